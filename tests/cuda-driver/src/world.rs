//! Everything that there is: one world a process. And what may be called when.

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use nnc_ptx_interpreter::{Buffer, Memory, Module};

use crate::codes::{self, Code};
use crate::config::Config;
use crate::work::{Captured, Event, Stream};

/// The number behind a handle.
pub type Handle = usize;

/// A translation of PTX.
#[derive(Default)]
pub struct Link {
    pub ptx: Option<String>,
    /// What comes of it; it must stay where it is until the translation is destroyed.
    pub code: Vec<u8>,
    /// The caller's buffer for messages: address and size.
    pub log: (usize, usize),
    /// Where the caller wants to be told how long the messages are.
    pub log_size: usize,
}

impl Link {
    /// Gives the caller a message, and its length.
    ///
    /// # Safety
    /// The caller's buffer and its values live as long as this, as the driver asks.
    pub unsafe fn say(&self, message: &str) {
        let n = (message.len() + 1).min(self.log.1);
        if let Some(kept) = n.checked_sub(1) {
            let to = std::ptr::with_exposed_provenance_mut::<u8>(self.log.0);
            // SAFETY: by the caller's promise; a zero comes last.
            unsafe {
                std::ptr::copy_nonoverlapping(message.as_ptr(), to, kept);
                to.add(kept).write(0);
                std::ptr::with_exposed_provenance_mut::<usize>(self.log_size).write(n);
            }
        }
    }
}

/// See the module's head.
pub struct World {
    pub config: Config,
    pub memory: Memory,
    /// Allocations by address: buffer and size.
    allocations: HashMap<u64, (Buffer, usize)>,
    pub used: usize,
    /// Page-locked memory by address.
    pinned: BTreeMap<usize, Layout>,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub modules: HashMap<Handle, Arc<Module>>,
    /// Functions: module and name.
    pub functions: HashMap<Handle, (Handle, String)>,
    /// Bytes of dynamic shared memory that a function may have, where they were asked for.
    pub asked: HashMap<Handle, u32>,
    pub graphs: HashMap<Handle, Captured>,
    /// Instances of graphs.
    pub executables: HashMap<Handle, Captured>,
    /// Captures under way.
    pub captures: HashMap<Handle, Captured>,
    pub links: HashMap<Handle, Link>,
    /// How often the context was retained.
    pub retained: i32,
    pub started: bool,
    /// What every call says since a kernel failed.
    pub broken: Option<Code>,
    handles: usize,
}

/// Magic of the double's "machine code", which is PTX with its length before it.
pub const MAGIC: &[u8; 8] = b"\x7fDOUBLE1";

static WORLD: Mutex<Option<World>> = Mutex::new(None);

thread_local! {
    /// The context of this thread; 0 for none.
    pub static CURRENT: Cell<Handle> = const { Cell::new(0) };
}

/// Functions that may be called before the driver is started.
const EARLY: [&str; 2] = ["Init", "DriverGetVersion"];

/// Functions that may be called while a stream is captured: what the driver captures, and the end. It lets more pass;
/// which, is written nowhere, but for the allocations and questions that it refuses.
const CAPTURED: [&str; 6] = [
    "LaunchKernel",
    "MemcpyHtoDAsync",
    "MemcpyDtoHAsync",
    "EventRecord",
    "StreamWaitEvent",
    "StreamEndCapture",
];

/// Logs a call and does it, if it may be called now.
pub fn enter(call: &str, act: impl FnOnce(&mut World) -> Result<(), Code>) -> Code {
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let world = world.get_or_insert_with(World::new);
    world.log(call);
    match world.broken {
        Some(code) => code,
        None => world.allow(call).and_then(|()| act(world)).err().unwrap_or(codes::SUCCESS),
    }
}

/// The same for what gives things back, which goes on when a kernel has failed. Callers have no use for an error of
/// it: it is said on standard error.
pub fn leave(call: &str, act: impl FnOnce(&mut World) -> Result<(), Code>) -> Code {
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let world = world.get_or_insert_with(World::new);
    world.log(call);
    if let Some(code) = world.broken {
        let _ = act(world);
        return code;
    }
    let done = world.allow(call).and_then(|()| act(world));
    let code = done.err().unwrap_or(codes::SUCCESS);
    if code != codes::SUCCESS {
        eprintln!("cuda driver double: {call} gives {code}");
    }
    code
}

impl World {
    fn new() -> World {
        World {
            config: Config::from_environment(),
            memory: Memory::new(),
            allocations: HashMap::new(),
            used: 0,
            pinned: BTreeMap::new(),
            streams: HashMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            asked: HashMap::new(),
            graphs: HashMap::new(),
            executables: HashMap::new(),
            captures: HashMap::new(),
            links: HashMap::new(),
            retained: 0,
            started: false,
            broken: None,
            handles: 0,
        }
    }

    /// Complains about a call that may not come now.
    fn allow(&mut self, call: &str) -> Result<(), Code> {
        let name = call.split(' ').next().unwrap_or_default();
        if EARLY.contains(&name) {
            return Ok(());
        }
        if !self.started {
            return Err(codes::ERROR_NOT_INITIALIZED);
        }
        if name.starts_with("Device") || name == "CtxSetCurrent" {
            return Ok(());
        }
        if self.retained == 0 || CURRENT.get() == 0 {
            return Err(codes::ERROR_INVALID_CONTEXT);
        }
        if !CAPTURED.contains(&name)
            && let Some(capture) = self.captures.values_mut().find(|c| c.forbids())
        {
            eprintln!("cuda driver double: {call} while a stream is captured");
            capture.invalid = true;
            return Err(codes::ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        Ok(())
    }

    fn log(&self, call: &str) {
        let Some(path) = &self.config.log else { return };
        let file = std::fs::File::options().append(true).create(true).open(path);
        // A log that cannot be written shows in the test that reads it.
        let _ = file.and_then(|mut f| f.write_all(format!("{call}\n").as_bytes()));
    }

    /// A fresh handle; never 0.
    pub fn handle(&mut self) -> Handle {
        self.handles += 1;
        self.handles
    }

    pub fn allocate(&mut self, bytes: usize) -> Result<u64, Code> {
        if bytes == 0 {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        if self.used + bytes > self.config.memory {
            return Err(codes::ERROR_OUT_OF_MEMORY);
        }
        self.used += bytes;
        let buffer = self.memory.allocate(&format!("allocation of {bytes} bytes"), bytes);
        self.allocations.insert(buffer.address(), (buffer, bytes));
        Ok(buffer.address())
    }

    pub fn free(&mut self, address: u64) -> Result<(), Code> {
        let (buffer, bytes) = self.allocations.remove(&address).ok_or(codes::ERROR_INVALID_VALUE)?;
        self.used -= bytes;
        self.memory.free(buffer);
        Ok(())
    }

    /// What was not given back: memory, and whatever has a handle.
    pub fn left_over(&self) -> usize {
        let memory = self.allocations.len() + self.pinned.len();
        let streams = self.streams.len() + self.events.len();
        let graphs = self.graphs.len() + self.executables.len();
        memory + streams + graphs + self.modules.len() + self.links.len()
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Code> {
        self.memory.write_at(address, bytes).map_err(refused)
    }

    pub fn read(&mut self, address: u64, bytes: usize) -> Result<Vec<u8>, Code> {
        self.memory.read_at(address, bytes).map_err(refused)
    }

    pub fn pin(&mut self, bytes: usize) -> Result<*mut u8, Code> {
        let layout = Layout::from_size_align(bytes, 4096).map_err(|_| codes::ERROR_OUT_OF_MEMORY)?;
        if bytes == 0 {
            return Err(codes::ERROR_INVALID_VALUE);
        }
        // SAFETY: the size is not 0.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        if start.is_null() {
            return Err(codes::ERROR_OUT_OF_MEMORY);
        }
        self.pinned.insert(start as usize, layout);
        Ok(start)
    }

    pub fn unpin(&mut self, address: usize) -> Result<(), Code> {
        let layout = self.pinned.remove(&address).ok_or(codes::ERROR_INVALID_VALUE)?;
        // SAFETY: `pin` allocated it with this layout, and it is removed from the list.
        unsafe { std::alloc::dealloc(address as *mut u8, layout) };
        Ok(())
    }

    /// Bytes of page-locked memory; an error if it is not.
    pub fn pinned(&self, address: usize, bytes: usize) -> Result<&[u8], Code> {
        let found = self.pinned.range(..=address).next_back();
        match found {
            Some((start, layout)) if address + bytes <= start + layout.size() => {
                // SAFETY: `pin` allocated it, zeroed, and it is not given back while it is in the list; the
                // host does not write to it during a call of the driver.
                Ok(unsafe { std::slice::from_raw_parts(address as *const u8, bytes) })
            }
            _ => {
                eprintln!("cuda driver double: a copy beside the host uses memory that is not page-locked");
                Err(codes::ERROR_INVALID_VALUE)
            }
        }
    }
}

fn refused(error: nnc_ptx_interpreter::Error) -> Code {
    eprintln!("cuda driver double: {error}");
    codes::ERROR_INVALID_VALUE
}
