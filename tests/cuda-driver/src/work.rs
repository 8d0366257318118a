//! Streams and what is put on them; events.
//!
//! Work is done when somebody waits for it, in the order of its stream; a wait for an event first does what is
//! before the event on its own stream.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use nnc_ptx_interpreter::{Arg, Error, Fault};

use crate::codes::{self, Code};
use crate::world::{Handle, World};

/// What may be on a stream that nobody has waited for: a driver lets the host wait then, here it is noticed.
const MOST_PENDING: usize = 1 << 12;

/// What is where a copy to the host is to come, until then: numbers that are none.
const NOT_YET: u8 = 0xff;

/// Something on a stream.
#[derive(Clone, Debug)]
pub enum Op {
    /// Bytes from the host, and a hash of what they are when it is put on a stream.
    Upload { to: u64, from: usize, bytes: usize, hash: u64 },
    /// Bytes to the host.
    Download { to: usize, from: u64, bytes: usize },
    /// A kernel.
    Launch { function: Handle, grid: [u32; 3], block: [u32; 3], shared: u32, args: Vec<Vec<u8>> },
    /// The n-th recording of an event.
    Record(Handle, u64),
    /// The wait for it.
    Wait(Handle, u64),
}

/// A stream.
#[derive(Debug, Default)]
pub struct Stream {
    queue: VecDeque<Op>,
    /// What was put there since a capture began.
    pub captured: Option<Vec<Op>>,
}

/// An event.
#[derive(Debug, Default)]
pub struct Event {
    /// How often it was recorded, and where the last time.
    pub recorded: u64,
    pub stream: Handle,
    /// The last recording that has happened, and when.
    pub happened: u64,
    pub time: Option<Instant>,
}

impl World {
    /// Puts something on a stream.
    pub fn put(&mut self, stream: Handle, mut op: Op) -> Result<(), Code> {
        if let Op::Upload { from, bytes, hash, .. } = &mut op {
            *hash = hash_of(self.pinned(*from, *bytes)?);
        }
        let found = self.streams.get_mut(&stream).ok_or(codes::ERROR_INVALID_HANDLE)?;
        if let Some(captured) = &mut found.captured {
            captured.push(op);
            return Ok(());
        }
        if found.queue.len() >= MOST_PENDING {
            eprintln!("cuda driver double: {MOST_PENDING} things are on a stream that nobody waits for");
            return Err(codes::ERROR_LAUNCH_OUT_OF_RESOURCES);
        }
        if let Op::Download { to, bytes, .. } = op {
            // SAFETY: it lies in page-locked memory that the host still has (`cuMemcpyDtoHAsync` checks it), and does
            // not touch until it has waited for this copy.
            unsafe { std::ptr::write_bytes(to as *mut u8, NOT_YET, bytes) };
        }
        found.queue.push_back(op);
        Ok(())
    }

    /// Does all that is on a stream.
    pub fn finish(&mut self, stream: Handle) -> Result<(), Code> {
        if self.streams.get(&stream).ok_or(codes::ERROR_INVALID_HANDLE)?.captured.is_some() {
            return Err(codes::ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        while self.do_next(stream)? {}
        Ok(())
    }

    /// Does what is before a recording of an event.
    pub fn reach(&mut self, event: Handle, recording: u64) -> Result<(), Code> {
        loop {
            let Some(found) = self.events.get(&event) else { return Ok(()) };
            if found.happened >= recording {
                return Ok(());
            }
            if !self.do_next(found.stream)? {
                return Err(codes::ERROR_INVALID_HANDLE);
            }
        }
    }

    /// Does the next thing on a stream; false if there is nothing.
    fn do_next(&mut self, stream: Handle) -> Result<bool, Code> {
        let Some(op) = self.streams.get_mut(&stream).and_then(|s| s.queue.pop_front()) else {
            return Ok(false);
        };
        match op {
            Op::Upload { to, from, bytes, hash } => {
                let data = self.pinned(from, bytes)?.to_vec();
                if hash_of(&data) != hash {
                    eprintln!(
                        "cuda driver double: the host has changed memory that a copy was still to read"
                    );
                    return Err(codes::ERROR_INVALID_VALUE);
                }
                self.write(to, &data)?;
            }
            Op::Download { to, from, bytes } => {
                self.pinned(to, bytes)?;
                let data = self.read(from, bytes)?;
                // SAFETY: it lies in page-locked memory that the host still has, and does not touch meanwhile.
                unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, bytes) };
            }
            Op::Launch { function, grid, block, shared, args } => {
                let done = self.launch(function, grid, block, shared, args);
                if let Err(code) = done {
                    self.broken = Some(code);
                    return Err(code);
                }
            }
            Op::Record(event, recording) => {
                if let Some(event) = self.events.get_mut(&event) {
                    (event.happened, event.time) = (recording, Some(Instant::now()));
                }
            }
            Op::Wait(event, recording) => self.reach(event, recording)?,
        }
        Ok(true)
    }

    fn launch(
        &mut self,
        function: Handle,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: Vec<Vec<u8>>,
    ) -> Result<(), Code> {
        let (module, name) = self.functions.get(&function).cloned().ok_or(codes::ERROR_INVALID_HANDLE)?;
        if self.config.fail.as_ref().is_some_and(|part| name.contains(part.as_str())) {
            if self.config.after == 0 {
                return Err(codes::ERROR_LAUNCH_FAILED);
            }
            self.config.after -= 1;
        }
        let module = self.modules.get(&module).cloned().ok_or(codes::ERROR_INVALID_HANDLE)?;
        let args: Vec<Arg> = args.into_iter().map(Arg::Bytes).collect();
        match module.launch(&mut self.memory, &name, grid, block, shared, &args) {
            Ok(_) => Ok(()),
            Err(e) => {
                eprintln!("cuda driver double: {e}");
                Err(code_of(&e))
            }
        }
    }
}

fn hash_of(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

/// What a driver would say.
fn code_of(error: &Error) -> Code {
    match error {
        Error::Launch { .. } => codes::ERROR_INVALID_VALUE,
        Error::Fault(fault) => match fault.fault {
            Fault::OutOfBounds { .. } | Fault::WildAddress(_) => codes::ERROR_ILLEGAL_ADDRESS,
            _ => codes::ERROR_LAUNCH_FAILED,
        },
        _ => codes::ERROR_INVALID_VALUE,
    }
}
