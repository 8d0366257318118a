//! Streams and what is put on them; events.
//!
//! Work is done when somebody waits for it, in the order of its stream; a wait for an event first does what is
//! before the event on its own stream.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread::{self, ThreadId};
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
    /// The capture that it is in.
    pub captured: Option<InCapture>,
}

/// A stream in a capture.
#[derive(Clone, Debug, Default)]
pub struct InCapture {
    /// Which.
    pub capture: Handle,
    /// What the next thing on the stream comes after.
    pub after: Vec<usize>,
}

/// What was captured: things, and those that each comes after.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The stream and the thread with which it began.
    origin: (Handle, ThreadId),
    mode: Mode,
    /// Something was called that may not be called meanwhile.
    pub invalid: bool,
    work: Vec<(Op, Vec<usize>)>,
}

/// Which threads have to keep to what may be called during a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

impl Captured {
    /// True if this thread may call now only what is captured.
    pub fn forbids(&self) -> bool {
        match self.mode {
            Mode::Global => true,
            Mode::ThreadLocal => self.origin.1 == thread::current().id(),
            Mode::Relaxed => false,
        }
    }

    fn add(&mut self, op: Op, after: Vec<usize>) -> usize {
        self.work.push((op, after));
        self.work.len() - 1
    }

    /// True if all of it comes before one of these.
    fn ends_in(&self, last: &[usize]) -> bool {
        let mut found = vec![false; self.work.len()];
        let mut todo = last.to_vec();
        while let Some(i) = todo.pop() {
            if !std::mem::replace(&mut found[i], true) {
                todo.extend(&self.work[i].1);
            }
        }
        found.into_iter().all(|f| f)
    }

    /// Its things in an order that a GPU may take and that is as far from that of the capture as can be: of those that
    /// come after nothing that is still to be done, the latest one is next.
    pub fn turned(&self) -> Vec<Op> {
        let (mut done, mut out) = (vec![false; self.work.len()], vec![]);
        let mut rest: Vec<usize> = (0..self.work.len()).collect();
        while let Some(at) = rest.iter().rposition(|&i| self.work[i].1.iter().all(|&j| done[j])) {
            let i = rest.remove(at);
            done[i] = true;
            out.push(self.work[i].0.clone());
        }
        out
    }
}

/// An event.
#[derive(Debug, Default)]
pub struct Event {
    /// It knows no time.
    pub untimed: bool,
    /// How often it was recorded, and where the last time.
    pub recorded: u64,
    pub stream: Handle,
    /// The last recording that has happened, and when.
    pub happened: u64,
    pub time: Option<Instant>,
    /// The last recording, if it was in a capture: what comes after it comes after these.
    pub captured: Option<InCapture>,
}

impl World {
    /// Puts something on a stream.
    pub fn put(&mut self, stream: Handle, mut op: Op) -> Result<(), Code> {
        if let Op::Upload { from, bytes, hash, .. } = &mut op {
            *hash = hash_of(self.pinned(*from, *bytes)?);
        }
        let found = self.streams.get_mut(&stream).ok_or(codes::ERROR_INVALID_HANDLE)?;
        if let Some(own) = &mut found.captured {
            let captured = self.captures.get_mut(&own.capture).filter(|c| !c.invalid);
            let captured = captured.ok_or(codes::ERROR_STREAM_CAPTURE_INVALIDATED)?;
            let i = captured.add(op, std::mem::take(&mut own.after));
            own.after.push(i);
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

    /// Records an event on a stream; in a capture, its place among what was captured.
    pub fn record(&mut self, event: Handle, stream: Handle) -> Result<(), Code> {
        let own = self.streams.get(&stream).ok_or(codes::ERROR_INVALID_HANDLE)?.captured.clone();
        let found = self.events.get_mut(&event).ok_or(codes::ERROR_INVALID_HANDLE)?;
        found.captured = own;
        if found.captured.is_some() {
            return Ok(());
        }
        (found.recorded, found.stream) = (found.recorded + 1, stream);
        let recording = found.recorded;
        self.put(stream, Op::Record(event, recording))
    }

    /// Lets a stream wait for an event. If that is in a capture, the stream is in it from then on.
    pub fn wait(&mut self, stream: Handle, event: Handle) -> Result<(), Code> {
        let found = self.events.get(&event).ok_or(codes::ERROR_INVALID_HANDLE)?;
        let (captured, recording) = (found.captured.clone(), found.recorded);
        let own = &mut self.streams.get_mut(&stream).ok_or(codes::ERROR_INVALID_HANDLE)?;
        match (&mut own.captured, captured) {
            (None, None) => self.put(stream, Op::Wait(event, recording)),
            (Some(own), Some(event)) if own.capture == event.capture => {
                own.after.extend(event.after);
                own.after.sort_unstable();
                own.after.dedup();
                Ok(())
            }
            (None, Some(event)) if own.queue.is_empty() && self.captures.contains_key(&event.capture) => {
                own.captured = Some(event);
                Ok(())
            }
            // Work outside of a capture, and one inside.
            _ => Err(codes::ERROR_STREAM_CAPTURE_ISOLATION),
        }
    }

    /// Begins a capture with a stream.
    pub fn begin_capture(&mut self, stream: Handle, mode: Mode) -> Result<(), Code> {
        let capture = self.handle();
        let found = self.streams.get_mut(&stream).ok_or(codes::ERROR_INVALID_HANDLE)?;
        if found.captured.is_some() {
            return Err(codes::ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        found.captured = Some(InCapture { capture, after: vec![] });
        let origin = (stream, thread::current().id());
        self.captures.insert(capture, Captured { origin, mode, invalid: false, work: vec![] });
        Ok(())
    }

    /// Ends it: everything on the streams that have joined it must come before the end of this one.
    pub fn end_capture(&mut self, stream: Handle) -> Result<Captured, Code> {
        let own = self.streams.get(&stream).and_then(|s| s.captured.clone());
        let own = own.ok_or(codes::ERROR_INVALID_VALUE)?;
        let found = self.captures.get(&own.capture).ok_or(codes::ERROR_STREAM_CAPTURE_INVALIDATED)?;
        if found.origin.0 != stream {
            return Err(codes::ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        if found.mode != Mode::Relaxed && found.origin.1 != thread::current().id() {
            return Err(codes::ERROR_STREAM_CAPTURE_WRONG_THREAD);
        }
        for s in self.streams.values_mut() {
            s.captured.take_if(|c| c.capture == own.capture);
        }
        let captured = self.captures.remove(&own.capture).filter(|c| !c.invalid);
        let captured = captured.ok_or(codes::ERROR_STREAM_CAPTURE_INVALIDATED)?;
        if captured.ends_in(&own.after) { Ok(captured) } else { Err(codes::ERROR_STREAM_CAPTURE_UNJOINED) }
    }

    /// Does all that is on a stream. One that is captured makes the capture invalid.
    pub fn finish(&mut self, stream: Handle) -> Result<(), Code> {
        let found = self.streams.get(&stream).ok_or(codes::ERROR_INVALID_HANDLE)?;
        if let Some(capture) = found.captured.as_ref().and_then(|c| self.captures.get_mut(&c.capture)) {
            capture.invalid = true;
            return Err(codes::ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        while self.do_next(stream)? {}
        Ok(())
    }

    /// Waits for the last recording of an event.
    pub fn finish_event(&mut self, event: Handle) -> Result<(), Code> {
        let found = self.events.get(&event).ok_or(codes::ERROR_INVALID_HANDLE)?;
        if found.captured.is_some() {
            return Err(codes::ERROR_CAPTURED_EVENT);
        }
        self.reach(event, found.recorded)
    }

    /// Milliseconds from one event to another.
    pub fn elapsed(&self, start: Handle, end: Handle) -> Result<f32, Code> {
        let time = |event: Handle| {
            let event = self.events.get(&event).ok_or(codes::ERROR_INVALID_HANDLE)?;
            if event.captured.is_some() {
                return Err(codes::ERROR_CAPTURED_EVENT);
            }
            if event.untimed || event.recorded == 0 {
                return Err(codes::ERROR_INVALID_HANDLE);
            }
            if event.happened < event.recorded {
                return Err(codes::ERROR_NOT_READY);
            }
            event.time.ok_or(codes::ERROR_INVALID_HANDLE)
        };
        Ok(time(end)?.saturating_duration_since(time(start)?).as_secs_f32() * 1e3)
    }

    /// Forgets a stream.
    pub fn drop_stream(&mut self, stream: Handle) -> Result<(), Code> {
        let gone = self.streams.remove(&stream).ok_or(codes::ERROR_INVALID_HANDLE)?;
        if self.broken.is_none() && !gone.queue.is_empty() {
            eprintln!("cuda driver double: a stream is destroyed before its work is done");
        }
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
