//! Files that are read at given places, by several threads at once.

use std::fs::File;
use std::io;

/// A file, open for reading.
#[derive(Debug)]
pub struct ReadAt {
    file: File,
    /// Where the system has one position for all threads, they take turns.
    #[cfg(not(unix))]
    turn: std::sync::Mutex<()>,
}

impl ReadAt {
    /// That file.
    pub fn new(file: File) -> ReadAt {
        ReadAt {
            file,
            #[cfg(not(unix))]
            turn: std::sync::Mutex::default(),
        }
    }

    /// The number of its bytes, as it is now.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills `to` with the bytes from `at` on.
    ///
    /// # Errors
    /// What the system says; that the file has become shorter, if it ends before.
    pub fn read(&self, to: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact(to, at).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("it has become shorter since it was opened"),
            _ => e,
        })
    }

    #[cfg(unix)]
    fn read_exact(&self, to: &mut [u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, to, at)
    }

    #[cfg(not(unix))]
    fn read_exact(&self, to: &mut [u8], at: u64) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (&self.file).seek(SeekFrom::Start(at))?;
        (&self.file).read_exact(to)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Works on each of some parts in a thread of its own.
///
/// # Errors
/// That of the first part that has one.
pub fn side_by_side<T: Send, E: Send>(
    parts: impl Iterator<Item = T>,
    work: impl Fn(usize, T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let work = &work;
    std::thread::scope(|scope| {
        let mut parts = parts.enumerate();
        let own = parts.next();
        let others: Vec<_> = parts.map(|(i, part)| scope.spawn(move || work(i, part))).collect();
        let own = own.map_or(Ok(()), |(i, part)| work(i, part));
        let results = others.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All are waited for, whatever the first ones say.
        results.fold(own, Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_anywhere_and_tells_a_file_that_was_cut_off() {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut path, b"0123456789").unwrap();
        let file = ReadAt::new(path.reopen().unwrap());
        assert_eq!(file.length().unwrap(), 10);
        let parts = [7u64, 0, 4].map(|at| (at, [0u8; 3]));
        side_by_side(parts.into_iter(), |_, (at, mut to)| {
            file.read(&mut to, at)?;
            assert_eq!(to[0], b'0' + at as u8);
            io::Result::Ok(())
        })
        .unwrap();
        path.as_file().set_len(5).unwrap();
        let e = file.read(&mut [0; 3], 4).unwrap_err();
        assert_eq!(e.to_string(), "it has become shorter since it was opened");
    }

    #[test]
    fn the_first_error_counts() {
        let result = side_by_side(0..5, |i, n| if n == 1 || n == 3 { Err(i) } else { Ok(()) });
        assert_eq!(result, Err(1));
    }
}
