//! The driver API, one type a handle: what is made is destroyed when it is dropped, and results are
//! errors. Everything unsafe about handles is here; what is copied and launched on them is the
//! [machine](super::machine)'s.
//!
//! The context of a GPU is current on a thread or not; every operation that needs it makes it current
//! first, so that handles may be used from any thread.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::error::{CudaError, DriverError};

/// Makes a result of what a function of the driver returned.
pub(super) fn check(call: &'static str, result: CUresult) -> Result<(), DriverError> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let text_of = |get: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the driver's library is loaded, as it gave the result; the pointer is to be written.
        let found = unsafe { get(result, &mut text) };
        if found != CUresult::CUDA_SUCCESS || text.is_null() {
            return format!("error {}", result as u32);
        }
        // SAFETY: on success it points at a constant string of the driver that ends with a zero.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    let (name, text) = (text_of(sys::cuGetErrorName), text_of(sys::cuGetErrorString));
    Err(DriverError { call, name, text })
}

/// Calls a function of the driver: `call!(cuMemFree_v2(address))`.
///
/// # Safety
/// That of the function.
macro_rules! call {
    ($name:ident($($arg:expr),* $(,)?)) => {
        $crate::cuda::driver::check(
            stringify!($name).trim_end_matches("_v2"),
            ::cudarc::driver::sys::$name($($arg),*),
        )
    };
}
pub(super) use call;

/// True if the driver's library can be loaded: nothing else here may be called where it cannot.
pub(super) fn is_present() -> bool {
    // SAFETY: loading the driver's library runs its initialisers, which are trusted as the driver is.
    unsafe { sys::is_culib_present() }
}

/// The version of CUDA that the driver is for: 12080 is 12.8.
pub(super) fn version() -> Result<i32, CudaError> {
    let mut version = 0;
    // SAFETY: the pointer is to be written; this may be called before anything else.
    match unsafe { sys::cuDriverGetVersion(&mut version) } {
        CUresult::CUDA_ERROR_STUB_LIBRARY => Err(CudaError::Stub),
        result => Ok(check("cuDriverGetVersion", result).map(|()| version)?),
    }
}

/// Starts the driver; any number of times.
pub(super) fn init() -> Result<(), CudaError> {
    // SAFETY: no arguments but the flags, which must be 0.
    match unsafe { sys::cuInit(0) } {
        CUresult::CUDA_ERROR_NO_DEVICE => Err(CudaError::NoDevice),
        CUresult::CUDA_ERROR_STUB_LIBRARY => Err(CudaError::Stub),
        result => Ok(check("cuInit", result)?),
    }
}

/// The number of GPUs.
pub(super) fn count() -> Result<i32, DriverError> {
    let mut n = 0;
    // SAFETY: the pointer is to be written.
    unsafe { call!(cuDeviceGetCount(&mut n)) }?;
    Ok(n)
}

/// A GPU by its number.
pub(super) fn device(ordinal: i32) -> Result<sys::CUdevice, DriverError> {
    let mut device = 0;
    // SAFETY: the pointer is to be written.
    unsafe { call!(cuDeviceGet(&mut device, ordinal)) }?;
    Ok(device)
}

/// The name of a GPU.
pub(super) fn name(device: sys::CUdevice) -> Result<String, DriverError> {
    let mut name = [0 as c_char; 256];
    // SAFETY: the driver writes no more bytes than it is told, a zero at the end included.
    unsafe { call!(cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int - 1, device)) }?;
    let bytes: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An attribute of a GPU.
pub(super) fn attribute(
    device: sys::CUdevice,
    attribute: sys::CUdevice_attribute,
) -> Result<u32, DriverError> {
    let mut value = 0;
    // SAFETY: the pointer is to be written.
    unsafe { call!(cuDeviceGetAttribute(&mut value, attribute, device)) }?;
    Ok(value.max(0) as u32)
}

/// Bytes of a GPU's memory.
pub(super) fn total_memory(device: sys::CUdevice) -> Result<usize, DriverError> {
    let mut bytes = 0;
    // SAFETY: the pointer is to be written.
    unsafe { call!(cuDeviceTotalMem_v2(&mut bytes, device)) }?;
    Ok(bytes)
}

/// The primary context of a GPU: what allocations, streams and modules belong to.
#[derive(Debug)]
pub(super) struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
}

// SAFETY: the driver's functions may be called from any thread with any context (CUDA driver API,
// "Context Management"); the handle is never changed.
unsafe impl Send for Context {}
// SAFETY: the same.
unsafe impl Sync for Context {}

impl Context {
    /// Retains it.
    pub fn of(device: sys::CUdevice) -> Result<Arc<Context>, DriverError> {
        let mut raw = null_mut();
        // SAFETY: the pointer is to be written.
        unsafe { call!(cuDevicePrimaryCtxRetain(&mut raw, device)) }?;
        Ok(Arc::new(Context { device, raw }))
    }

    /// Makes it the calling thread's.
    pub fn bind(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { call!(cuCtxSetCurrent(self.raw)) }
    }

    /// Bytes that are free, and bytes in all.
    pub fn memory(&self) -> Result<(usize, usize), DriverError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are to be written.
        unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok((free, total))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once by `of`; all that belongs to it keeps it alive, so is gone.
        // Nothing can be done about an error.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// Work that runs in order. It does not wait for the null stream, nor that for it.
#[derive(Debug)]
pub(super) struct Stream {
    context: Arc<Context>,
    raw: sys::CUstream,
}

// SAFETY: handles of the driver may be used from any thread; it synchronises itself.
unsafe impl Send for Stream {}
// SAFETY: the same.
unsafe impl Sync for Stream {}

impl Stream {
    pub fn new(context: &Arc<Context>) -> Result<Stream, DriverError> {
        context.bind()?;
        let mut raw = null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a context is current; the pointer is to be written.
        unsafe { call!(cuStreamCreate(&mut raw, flags)) }?;
        Ok(Stream { context: context.clone(), raw })
    }

    pub fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// Waits until all its work is done. An error may be that of any of it.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.context.bind()?;
        // SAFETY: the stream lives.
        unsafe { call!(cuStreamSynchronize(self.raw)) }
    }

    /// What is put on the stream from now on waits for the event.
    pub fn wait(&self, event: &Event) -> Result<(), DriverError> {
        self.context.bind()?;
        // SAFETY: both live.
        unsafe { call!(cuStreamWaitEvent(self.raw, event.raw, 0)) }
    }

    /// What `work` puts on the stream, as a graph; none of it runs.
    pub fn capture<E: From<DriverError>>(&self, work: impl FnOnce() -> Result<(), E>) -> Result<Graph, E> {
        self.context.bind()?;
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives, and is not the null stream, which cannot be captured.
        unsafe { call!(cuStreamBeginCapture_v2(self.raw, mode)) }?;
        let done = work();
        let mut raw = null_mut();
        // SAFETY: the capture began above, on this thread. It must end whatever became of the work.
        let ended = unsafe { call!(cuStreamEndCapture(self.raw, &mut raw)) };
        let captured = Captured(raw);
        done?;
        ended?;
        let mut graph = null_mut();
        // SAFETY: the graph was captured without error; the pointer is to be written.
        unsafe { call!(cuGraphInstantiateWithFlags(&mut graph, captured.0, 0)) }?;
        Ok(Graph { context: self.context.clone(), raw: graph })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Work that still runs may use memory that is freed next.
        let _ = self.synchronize();
        // SAFETY: it was created by `new` and nobody else has it.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
    }
}

/// A graph before it is instantiated.
struct Captured(sys::CUgraph);

impl Drop for Captured {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the driver made it for us; the instance does not need it.
            let _ = unsafe { sys::cuGraphDestroy(self.0) };
        }
    }
}

/// Work that can be put on a stream with one call.
#[derive(Debug)]
pub(super) struct Graph {
    context: Arc<Context>,
    raw: sys::CUgraphExec,
}

// SAFETY: as for streams.
unsafe impl Send for Graph {}

impl Graph {
    /// Puts it on a stream.
    ///
    /// # Safety
    /// Whatever the captured work reads and writes must be there until it is done, and not be touched.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), DriverError> {
        self.context.bind()?;
        // SAFETY: both live; the caller vouches for what the work touches.
        unsafe { call!(cuGraphLaunch(self.raw, stream.raw)) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: it was instantiated by `capture` and nobody else has it.
        let _ = unsafe { sys::cuGraphExecDestroy(self.raw) };
    }
}

/// A moment of a stream.
#[derive(Debug)]
pub(super) struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: as for streams.
unsafe impl Send for Event {}

impl Event {
    /// One to be waited for.
    pub fn new(context: &Arc<Context>) -> Result<Event, DriverError> {
        Event::of(context, sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING)
    }

    /// One that knows its time.
    pub fn with_time(context: &Arc<Context>) -> Result<Event, DriverError> {
        Event::of(context, sys::CUevent_flags_enum::CU_EVENT_DEFAULT)
    }

    fn of(context: &Arc<Context>, flags: sys::CUevent_flags) -> Result<Event, DriverError> {
        context.bind()?;
        let mut raw = null_mut();
        // SAFETY: a context is current; the pointer is to be written.
        unsafe { call!(cuEventCreate(&mut raw, flags as u32)) }?;
        Ok(Event { context: context.clone(), raw })
    }

    /// The moment at which all that is on the stream now is done.
    pub fn record(&self, stream: &Stream) -> Result<(), DriverError> {
        self.context.bind()?;
        // SAFETY: both live.
        unsafe { call!(cuEventRecord(self.raw, stream.raw)) }
    }

    /// Waits for the moment.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.context.bind()?;
        // SAFETY: it lives.
        unsafe { call!(cuEventSynchronize(self.raw)) }
    }

    /// Milliseconds from another moment to this one; both must have come, and know their time.
    pub fn since(&self, start: &Event) -> Result<f32, DriverError> {
        type Function = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
        self.context.bind()?;
        let mut ms = 0.0;
        // The bindings have the function of CUDA 12.8 alone; this one is in every driver.
        // SAFETY: the library is loaded, as there is an event; `Function` is what `cuda.h` declares.
        let found = unsafe { sys::culib().get::<Function>(b"cuEventElapsedTime\0") };
        let result = match found {
            // SAFETY: both live; the pointer is to be written.
            Ok(function) => unsafe { function(&mut ms, start.raw, self.raw) },
            Err(_) => CUresult::CUDA_ERROR_NOT_FOUND,
        };
        check("cuEventElapsedTime", result)?;
        Ok(ms)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: it was created by `new` and nobody else has it.
        let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
    }
}

/// Loaded code.
#[derive(Debug)]
pub(super) struct Module {
    context: Arc<Context>,
    raw: sys::CUmodule,
}

// SAFETY: as for streams.
unsafe impl Send for Module {}
// SAFETY: as for streams.
unsafe impl Sync for Module {}

/// An entry of a [`Module`], which must live as long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function(pub sys::CUfunction);

// SAFETY: as for streams.
unsafe impl Send for Function {}
// SAFETY: as for streams.
unsafe impl Sync for Function {}

impl Module {
    /// Loads machine code that [`link`] made, now or in another process.
    pub fn load(context: &Arc<Context>, code: &[u8]) -> Result<Module, DriverError> {
        context.bind()?;
        let mut raw = null_mut();
        // SAFETY: the bytes are a cubin: the driver's own output, compared with its checksum where it
        // comes from a file. The driver copies it. The pointer is to be written.
        unsafe { call!(cuModuleLoadData(&mut raw, code.as_ptr().cast::<c_void>())) }?;
        Ok(Module { context: context.clone(), raw })
    }

    /// An entry that may have that many bytes of dynamic shared memory.
    pub fn function(&self, name: &str, shared_bytes: u32) -> Result<Function, DriverError> {
        /// What every function may have without asking.
        const ALWAYS: u32 = 48 << 10;
        self.context.bind()?;
        let unknown = |_| DriverError {
            call: "cuModuleGetFunction",
            name: "CUDA_ERROR_NOT_FOUND".into(),
            text: "a name with a zero".into(),
        };
        let name = CString::new(name).map_err(unknown)?;
        let mut raw = null_mut();
        // SAFETY: the module lives, the name ends with a zero, the pointer is to be written.
        unsafe { call!(cuModuleGetFunction(&mut raw, self.raw, name.as_ptr())) }?;
        if shared_bytes > ALWAYS {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just found in a module that lives.
            unsafe { call!(cuFuncSetAttribute(raw, attribute, shared_bytes as c_int)) }?;
        }
        Ok(Function(raw))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.context.bind();
        // SAFETY: it was loaded by `load`, and its functions are used by what keeps it alive only.
        let _ = unsafe { sys::cuModuleUnload(self.raw) };
    }
}

/// Translates PTX to machine code for the context's GPU.
pub(super) fn link(context: &Context, ptx: &str) -> Result<Vec<u8>, CudaError> {
    /// Bytes for the messages of the driver's assembler.
    const LOG_BYTES: usize = 8192;
    context.bind()?;
    let mut log = vec![0u8; LOG_BYTES];
    let mut options = [
        sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option_enum::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    // By the interface, numbers are given as pointers.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(LOG_BYTES)];
    let mut state = null_mut();
    // SAFETY: as many options as values; the buffer of the log outlives the state.
    unsafe {
        call!(cuLinkCreate_v2(options.len() as u32, options.as_mut_ptr(), values.as_mut_ptr(), &mut state))
    }?;
    let state = Linking(state);
    let refused = |error: DriverError, log: &[u8]| {
        let text = log.split(|&b| b == 0).next().unwrap_or_default();
        CudaError::Code { error, log: String::from_utf8_lossy(text).trim_end().to_string() }
    };
    // PTX is given with its zero.
    let mut text = Vec::with_capacity(ptx.len() + 1);
    text.extend_from_slice(ptx.as_bytes());
    text.push(0);
    let kind = sys::CUjitInputType_enum::CU_JIT_INPUT_PTX;
    let (data, none) = (text.as_mut_ptr().cast::<c_void>(), null_mut());
    // SAFETY: the text lives during the call and its size is right; there are no further options.
    unsafe { call!(cuLinkAddData_v2(state.0, kind, data, text.len(), c"nnc".as_ptr(), 0, none, null_mut())) }
        .map_err(|e| refused(e, &log))?;
    let (mut code, mut bytes) = (null_mut(), 0);
    // SAFETY: the pointers are to be written.
    unsafe { call!(cuLinkComplete(state.0, &mut code, &mut bytes)) }.map_err(|e| refused(e, &log))?;
    // SAFETY: on success they are the output's, which the state owns; it lives until the end of this.
    Ok(unsafe { std::slice::from_raw_parts(code.cast::<u8>(), bytes) }.to_vec())
}

/// A translation under way.
struct Linking(sys::CUlinkState);

impl Drop for Linking {
    fn drop(&mut self) {
        // SAFETY: it was created by `link`, and its output was copied.
        let _ = unsafe { sys::cuLinkDestroy(self.0) };
    }
}
