//! Files written whole or not at all.

use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::Error;
use crate::error::Result;

/// Writes a file: beside it first, then renamed, so that a reader (or a crash, or a full disk)
/// meets the old file or the new one, never a part. Devices and pipes are written to directly.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// The same, of what is too large to be in memory as a whole: `content` writes it.
pub fn write_with(
    path: impl AsRef<Path>,
    content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    write_beside(path, content).map_err(|e| Error::io("write", path, e))
}

fn write_beside(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    // Through a symbolic link, the file it points at is replaced, not the link.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let old = std::fs::metadata(&target).ok();
    if old.as_ref().is_some_and(|m| m.is_dir()) {
        return Err(std::io::Error::other("it is a folder"));
    }
    if old.as_ref().is_some_and(|m| !m.is_file()) {
        return content(&mut std::fs::OpenOptions::new().write(true).open(&target)?);
    }
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nnc-");
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(mode);
    // The temporary file's own name, which the error has, would only confuse.
    let mut file = builder.tempfile_in(folder).map_err(|e| match e.kind() {
        ErrorKind::NotFound if !folder.is_dir() => {
            std::io::Error::other(format!("there is no folder `{}`", folder.display()))
        }
        kind => kind.into(),
    })?;
    content(&mut file)?;
    // What the disk has no room for is told here at the latest, while the old file is still there.
    file.as_file().sync_all()?;
    if let Some(old) = old {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.persist(&target)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = write("/no/such/folder/a.txt", b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write `/no/such/folder/a.txt`: there is no folder `/no/such/folder`"
        );
    }
}
