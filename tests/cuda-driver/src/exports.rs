//! The functions of `libcuda.so`, with the signatures of NVIDIA's `cuda.h`. Handles are numbers, so that a
//! wrong one is found and not followed; pointers are trusted as the driver trusts them.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::Arc;

use nnc_ptx_interpreter::Module;

use crate::codes::{self, Code};
use crate::work::{Event, Mode, Op, Stream};
use crate::world::{CURRENT, Link, MAGIC, World, enter, leave};

/// Bytes of dynamic shared memory that every launch may have.
const UNASKED_SHARED: u32 = 48 << 10;

/// Blocks of a grid at most, along x, y and z, and threads of a block: the programming guide's table.
const MOST_BLOCKS: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
const MOST_THREADS: [u32; 3] = [1024, 1024, 64];
const MOST_THREADS_OF_ALL: u32 = 1024;

/// What `cuGraphInstantiate` may be told.
const INSTANTIATE_FLAGS: c_ulonglong = 15;

/// Bits of an event's flags: a wait that does not spin, no time, other processes.
const EVENT_FLAGS: c_uint = 7;
const UNTIMED: c_uint = 2;

/// An opaque handle.
type Raw = *mut c_void;

fn raw(handle: usize) -> Raw {
    std::ptr::without_provenance_mut(handle)
}

/// Writes a result to where the caller wants it.
///
/// # Safety
/// The pointer must be null or may be written.
unsafe fn give<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(codes::ERROR_INVALID_VALUE);
    }
    // SAFETY: by the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// Defines exported functions: each is logged by its name (and what `$log` adds), then done.
macro_rules! exports {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(log $log:expr)? => |$world:ident| $body:expr;)*) => { $(
        #[doc = "See `cuda.h`."]
        #[unsafe(no_mangle)]
        // Not all of them follow pointers.
        #[allow(unused_unsafe)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> Code {
            let line = stringify!($name).trim_start_matches("cu").trim_end_matches("_v2").to_string();
            $( let line = format!("{line} {}", $log); )?
            // SAFETY: of the calls inside: pointers are the caller's, who keeps to `cuda.h`.
            enter(&line, |$world| unsafe { $body })
        }
    )* };
}

exports! {
    fn cuInit(flags: c_uint) => |world| {
        if world.config.stub {
            return Err(codes::ERROR_STUB_LIBRARY);
        }
        if flags != 0 {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        // A driver that finds no GPU has not started: what is called after that is told so.
        world.started = world.config.devices > 0;
        if world.started { Ok(()) } else { Err(codes::ERROR_NO_DEVICE) }
    };
    fn cuDriverGetVersion(version: *mut c_int) => |world| {
        if world.config.stub { Err(codes::ERROR_STUB_LIBRARY) } else { give(version, world.config.driver) }
    };
    fn cuDeviceGetCount(count: *mut c_int) => |world| give(count, world.config.devices);
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) => |world| {
        known(world, ordinal)?;
        give(device, ordinal)
    };
    fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) => |world| {
        known(world, device)?;
        let text = format!("Test double {device}");
        for (i, b) in text.bytes().chain([0]).enumerate().take(len.max(0) as usize) {
            name.add(i).write(b as c_char);
        }
        Ok(())
    };
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) => |world| {
        known(world, device)?;
        match attribute {
            13 | 36 => give(value, 1_000_000), // Clocks of multiprocessors and memory, in kHz.
            16 => give(value, 4),
            37 => give(value, 256),
            75 => give(value, world.config.capability.0),
            76 => give(value, world.config.capability.1),
            _ => Err(codes::ERROR_INVALID_VALUE),
        }
    };
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) => |world| {
        known(world, device)?;
        give(bytes, world.config.memory)
    };
    fn cuDevicePrimaryCtxRetain(context: *mut Raw, device: c_int) => |world| {
        known(world, device)?;
        world.retained += 1;
        give(context, raw(device as usize + 1))
    };
    fn cuCtxSetCurrent(context: Raw) => |world| {
        let known = 0..=world.config.devices as usize;
        if world.retained == 0 || !known.contains(&context.addr()) {
            return Err(codes::ERROR_INVALID_CONTEXT);
        }
        CURRENT.set(context.addr());
        Ok(())
    };
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) log bytes => |world| {
        let found = world.allocate(bytes)?;
        give(address, found)
    };
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) => |world| {
        give(free, world.config.memory - world.used)?;
        give(total, world.config.memory)
    };
    fn cuMemHostAlloc(start: *mut Raw, bytes: usize, flags: c_uint) log bytes => |world| {
        let _ = flags;
        let found = world.pin(bytes)?;
        give(start, found.cast())
    };
    fn cuMemcpyDtoH_v2(to: Raw, from: u64, bytes: usize) log bytes => |world| {
        let data = world.read(from, bytes)?;
        std::ptr::copy_nonoverlapping(data.as_ptr(), to.cast(), bytes);
        Ok(())
    };
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Raw) log stream.addr() => |world| {
        world.put(stream.addr(), Op::Upload { to, from: from.addr(), bytes, hash: 0 })
    };
    fn cuMemcpyDtoHAsync_v2(to: Raw, from: u64, bytes: usize, stream: Raw) log stream.addr() => |world| {
        world.pinned(to.addr(), bytes)?;
        world.put(stream.addr(), Op::Download { to: to.addr(), from, bytes })
    };
    fn cuStreamCreate(stream: *mut Raw, flags: c_uint) => |world| {
        // Others wait for the null stream, which is not here.
        if flags != 1 {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        let handle = world.handle();
        world.streams.insert(handle, Stream::default());
        give(stream, raw(handle))
    };
    fn cuStreamSynchronize(stream: Raw) log stream.addr() => |world| world.finish(stream.addr());
    fn cuStreamWaitEvent(stream: Raw, event: Raw, flags: c_uint) log stream.addr() => |world| {
        if flags != 0 {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        world.wait(stream.addr(), event.addr())
    };
    fn cuStreamBeginCapture_v2(stream: Raw, mode: c_uint) => |world| {
        let mode = match mode {
            0 => Mode::Global,
            1 => Mode::ThreadLocal,
            2 => Mode::Relaxed,
            _ => return Err(codes::ERROR_INVALID_VALUE),
        };
        world.begin_capture(stream.addr(), mode)
    };
    fn cuStreamEndCapture(stream: Raw, graph: *mut Raw) => |world| {
        give(graph, std::ptr::null_mut())?;
        let work = world.end_capture(stream.addr())?;
        let handle = world.handle();
        world.graphs.insert(handle, work);
        give(graph, raw(handle))
    };
    fn cuGraphInstantiateWithFlags(instance: *mut Raw, graph: Raw, flags: c_ulonglong) => |world| {
        if flags > INSTANTIATE_FLAGS {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        let work = world.graphs.get(&graph.addr()).cloned().ok_or(codes::ERROR_INVALID_HANDLE)?;
        let handle = world.handle();
        world.executables.insert(handle, work);
        give(instance, raw(handle))
    };
    fn cuGraphLaunch(graph: Raw, stream: Raw) log stream.addr() => |world| {
        let work = world.executables.get(&graph.addr()).cloned().ok_or(codes::ERROR_INVALID_HANDLE)?;
        work.turned().into_iter().try_for_each(|op| world.put(stream.addr(), op))
    };
    fn cuEventCreate(event: *mut Raw, flags: c_uint) => |world| {
        if flags > EVENT_FLAGS {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        let handle = world.handle();
        world.events.insert(handle, Event { untimed: flags & UNTIMED != 0, ..Event::default() });
        give(event, raw(handle))
    };
    fn cuEventRecord(event: Raw, stream: Raw) log stream.addr() => |world| {
        world.record(event.addr(), stream.addr())
    };
    fn cuEventSynchronize(event: Raw) => |world| world.finish_event(event.addr());
    fn cuEventElapsedTime(ms: *mut f32, start: Raw, end: Raw) => |world| {
        give(ms, world.elapsed(start.addr(), end.addr())?)
    };
    fn cuLinkCreate_v2(n: c_uint, options: *mut c_uint, values: *mut Raw, state: *mut Raw) => |world| {
        let mut link = Link::default();
        for i in 0..n as usize {
            let value = values.add(i).read();
            match options.add(i).read() {
                5 => link.log.0 = value.expose_provenance(),
                6 => (link.log.1, link.log_size) = (value.addr(), values.add(i).expose_provenance()),
                _ => return Err(codes::ERROR_INVALID_VALUE),
            }
        }
        let handle = world.handle();
        world.links.insert(handle, link);
        give(state, raw(handle))
    };
    fn cuLinkAddData_v2(
        state: Raw, kind: c_uint, data: Raw, bytes: usize, name: *const c_char, n: c_uint, options: Raw, values: Raw,
    ) => |world| {
        let _ = (name, n, options, values);
        let capability = world.config.capability;
        let link = world.links.get_mut(&state.addr()).ok_or(codes::ERROR_INVALID_HANDLE)?;
        let data = std::slice::from_raw_parts(data.cast::<u8>(), bytes);
        let text = CStr::from_bytes_with_nul(data).ok().and_then(|t| t.to_str().ok());
        let (Some(text), 1) = (text, kind) else { return Err(codes::ERROR_INVALID_VALUE) };
        let target = text.lines().find_map(|l| l.trim().strip_prefix(".target sm_")?.trim().parse::<i32>().ok());
        if target.is_some_and(|t| t > capability.0 * 10 + capability.1) {
            return Err(codes::ERROR_NO_BINARY_FOR_GPU);
        }
        if let Err(e) = Module::parse(text) {
            link.say(&format!("ptxas double: {e}"));
            return Err(codes::ERROR_INVALID_PTX);
        }
        link.ptx = Some(text.to_string());
        Ok(())
    };
    fn cuLinkComplete(state: Raw, code: *mut Raw, bytes: *mut usize) => |world| {
        let link = world.links.get_mut(&state.addr()).ok_or(codes::ERROR_INVALID_HANDLE)?;
        let ptx = link.ptx.as_ref().ok_or(codes::ERROR_INVALID_VALUE)?;
        link.code = [&MAGIC[..], &(ptx.len() as u64).to_le_bytes(), ptx.as_bytes()].concat();
        give(code, link.code.as_mut_ptr().cast())?;
        give(bytes, link.code.len())
    };
    fn cuModuleLoadData(module: *mut Raw, image: *const c_void) => |world| {
        let start = image.cast::<u8>();
        if std::slice::from_raw_parts(start, MAGIC.len()) != MAGIC {
            return Err(codes::ERROR_INVALID_IMAGE);
        }
        let bytes = start.add(MAGIC.len()).cast::<[u8; 8]>().read();
        let text = std::slice::from_raw_parts(start.add(MAGIC.len() + 8), u64::from_le_bytes(bytes) as usize);
        let text = std::str::from_utf8(text).map_err(|_| codes::ERROR_INVALID_IMAGE)?;
        let mut loaded = Module::parse(text).map_err(|_| codes::ERROR_INVALID_IMAGE)?;
        loaded.set_sums(world.config.sums);
        let handle = world.handle();
        world.modules.insert(handle, Arc::new(loaded));
        give(module, raw(handle))
    };
    fn cuModuleGetFunction(function: *mut Raw, module: Raw, name: *const c_char) => |world| {
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        let found = world.modules.get(&module.addr()).ok_or(codes::ERROR_INVALID_HANDLE)?;
        if !found.kernels().any(|k| k == name) {
            return Err(codes::ERROR_NOT_FOUND);
        }
        let handle = world.handle();
        world.functions.insert(handle, (module.addr(), name));
        give(function, raw(handle))
    };
    fn cuFuncSetAttribute(function: Raw, attribute: c_uint, value: c_int) log value => |world| {
        if attribute != 8 || !world.functions.contains_key(&function.addr()) {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        let asked = u32::try_from(value).ok().filter(|&n| n <= world.config.most_shared());
        world.asked.insert(function.addr(), asked.ok_or(codes::ERROR_INVALID_VALUE)?);
        Ok(())
    };
    fn cuLaunchKernel(
        function: Raw, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint,
        block_z: c_uint, shared: c_uint, stream: Raw, params: *mut Raw, extra: *mut Raw,
    ) => |world| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let most_shared = world.asked.get(&function.addr()).copied().unwrap_or(UNASKED_SHARED);
        let keeps_to = |n: [u32; 3], most: [u32; 3]| n.iter().zip(most).all(|(&n, most)| (1..=most).contains(&n));
        let threads = block.iter().try_fold(1u32, |all, &n| all.checked_mul(n));
        if !keeps_to(grid, MOST_BLOCKS)
            || !keeps_to(block, MOST_THREADS)
            || threads.is_none_or(|n| n > MOST_THREADS_OF_ALL)
            || shared > most_shared
            || params.is_null()
            || !extra.is_null()
        {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        let (module, name) = world.functions.get(&function.addr()).ok_or(codes::ERROR_INVALID_HANDLE)?;
        let module = world.modules.get(module).ok_or(codes::ERROR_INVALID_HANDLE)?;
        let sizes = module.parameter_sizes(name).ok_or(codes::ERROR_NOT_FOUND)?;
        let mut args = vec![];
        for (i, bytes) in sizes.into_iter().enumerate() {
            let value = params.add(i).read().cast::<u8>();
            args.push(std::slice::from_raw_parts(value, bytes).to_vec());
        }
        world.put(stream.addr(), Op::Launch { function: function.addr(), grid, block, shared, args })
    };
}

/// The same for functions that give something back.
macro_rules! endings {
    ($(fn $name:ident($arg:ident: $ty:ty) $(log $log:expr)? => |$world:ident| $body:expr;)*) => { $(
        #[doc = "See `cuda.h`."]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($arg: $ty) -> Code {
            let line = stringify!($name).trim_start_matches("cu").trim_end_matches("_v2").to_string();
            $( let line = format!("{line} {}", $log); )?
            leave(&line, |$world| { $body })
        }
    )* };
}

endings! {
    fn cuDevicePrimaryCtxRelease_v2(device: c_int) => |world| {
        known(world, device)?;
        if world.retained == 0 {
            return Err(codes::ERROR_INVALID_CONTEXT);
        }
        world.retained -= 1;
        if world.retained == 0 && world.left_over() > 0 {
            eprintln!("cuda driver double: {} things were not given back", world.left_over());
        }
        Ok(())
    };
    fn cuMemFree_v2(address: u64) => |world| world.free(address);
    fn cuMemFreeHost(start: Raw) => |world| world.unpin(start.addr());
    fn cuStreamDestroy_v2(stream: Raw) => |world| world.drop_stream(stream.addr());
    fn cuEventDestroy_v2(event: Raw) => |world| gone(world.events.remove(&event.addr()));
    fn cuGraphDestroy(graph: Raw) => |world| gone(world.graphs.remove(&graph.addr()));
    fn cuGraphExecDestroy(graph: Raw) => |world| gone(world.executables.remove(&graph.addr()));
    fn cuModuleUnload(module: Raw) => |world| gone(world.modules.remove(&module.addr()));
    fn cuLinkDestroy(state: Raw) => |world| gone(world.links.remove(&state.addr()));
}

/// Complains about what was not there.
fn gone<T>(thing: Option<T>) -> Result<(), Code> {
    thing.map(drop).ok_or(codes::ERROR_INVALID_HANDLE)
}

/// Complains about a GPU that is not there.
fn known(world: &World, device: c_int) -> Result<(), Code> {
    if (0..world.config.devices).contains(&device) { Ok(()) } else { Err(codes::ERROR_INVALID_DEVICE) }
}

/// See `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: Code, text: *mut *const c_char) -> Code {
    let Some((name, _)) = codes::describe(code) else { return codes::ERROR_INVALID_VALUE };
    // SAFETY: the caller wants it there.
    unsafe { give(text, name.as_ptr()) }.err().unwrap_or(codes::SUCCESS)
}

/// See `cuda.h`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: Code, text: *mut *const c_char) -> Code {
    let Some((_, description)) = codes::describe(code) else { return codes::ERROR_INVALID_VALUE };
    // SAFETY: the caller wants it there.
    unsafe { give(text, description.as_ptr()) }.err().unwrap_or(codes::SUCCESS)
}
