//! Machine code that the driver has made of PTX, kept in files, so that it is made once.
//!
//! An entry's name is a hash of everything that the code depends on: the PTX, the GPU's compute
//! capability, the driver's version. Its file has a checksum, so that damage is found; it is written beside
//! and renamed, so that processes that write the same entry do not meet; and the oldest entries go
//! when all together are larger than [`LIMIT`]. Nothing that goes wrong with a file is an error: the
//! code is made again.
//!
//! ```text
//! magic "nnccub01"   8 bytes
//! key               16 bytes, little-endian
//! checksum of code  16 bytes, little-endian
//! code
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The environment variable that says where the cache is; `off` switches it off.
pub const CACHE: &str = "NNC_CUDA_CACHE";

/// The most bytes that the files of a cache have together.
pub const LIMIT: u64 = 256 << 20;

const MAGIC: &[u8; 8] = b"nnccub01";
const HEADER_BYTES: usize = 8 + 16 + 16;
const EXTENSION: &str = "cubin";
const UNFINISHED: &str = "new";

/// Unfinished files of processes that ended are this old at least.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of machine code. See the module's head.
#[derive(Clone, Debug)]
pub struct Cache {
    /// None: switched off.
    folder: Option<PathBuf>,
    limit: u64,
}

/// What code depends on, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u128);

impl Key {
    /// The key of code made of this PTX, by a driver for a GPU.
    pub fn of(ptx: &str, driver: i32, capability: (u32, u32)) -> Key {
        let about = format!("{driver} {}.{} {}\n", capability.0, capability.1, ptx.len());
        Key(fnv(fnv(FNV_START, about.as_bytes()), ptx.as_bytes()))
    }
}

impl Cache {
    /// The cache that [`CACHE`] names; without it, `nnc/cuda` in the user's folder for caches
    /// (`XDG_CACHE_HOME`, or `.cache` in the home folder).
    pub fn from_environment() -> Cache {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let folder = match set(CACHE) {
            Some(value) if value == "off" => None,
            Some(value) => Some(PathBuf::from(value)),
            None => set("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))
                .map(|caches| caches.join("nnc").join("cuda")),
        };
        Cache { folder, limit: LIMIT }
    }

    /// A cache in this folder, which may become that large.
    pub fn at(folder: impl Into<PathBuf>, limit: u64) -> Cache {
        Cache { folder: Some(folder.into()), limit }
    }

    /// No cache.
    pub fn off() -> Cache {
        Cache { folder: None, limit: 0 }
    }

    /// The code under a key, if it is there and whole.
    pub fn get(&self, key: Key) -> Option<Vec<u8>> {
        let path = self.path(key)?;
        let bytes = fs::read(&path).ok()?;
        let Some(code) = code_of(key, &bytes) else {
            let _ = fs::remove_file(&path);
            return None;
        };
        // It is the last that should go.
        let _ = File::options().append(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
        Some(code.to_vec())
    }

    /// Keeps code; does nothing where that is not possible.
    pub fn put(&self, key: Key, code: &[u8]) {
        let Some(path) = self.path(key) else { return };
        if code.len() as u64 + HEADER_BYTES as u64 > self.limit {
            return;
        }
        if write(&path, key, code).is_ok() {
            self.shrink();
        }
    }

    /// Forgets the code under a key.
    pub fn remove(&self, key: Key) {
        if let Some(path) = self.path(key) {
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self, key: Key) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{:032x}.{EXTENSION}", key.0)))
    }

    /// Removes the entries that were not used for longest, until the rest is within the limit.
    fn shrink(&self) {
        let Some(Ok(files)) = self.folder.as_ref().map(fs::read_dir) else { return };
        let now = SystemTime::now();
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = vec![];
        for file in files.flatten() {
            let path = file.path();
            let Ok(about) = file.metadata() else { continue };
            let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            match path.extension().and_then(|e| e.to_str()) {
                Some(EXTENSION) => entries.push((used, about.len(), path)),
                Some(UNFINISHED) if now.duration_since(used).is_ok_and(|age| age > ABANDONED) => {
                    let _ = fs::remove_file(path);
                }
                _ => {}
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|e| e.1).sum();
        for (_, bytes, path) in entries {
            if total <= self.limit {
                return;
            }
            let _ = fs::remove_file(path);
            total -= bytes;
        }
    }
}

/// The code in the bytes of an entry's file.
fn code_of(key: Key, bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let rest = rest.strip_prefix(&key.0.to_le_bytes())?;
    let (sum, code) = rest.split_at_checked(16)?;
    (*sum == fnv(FNV_START, code).to_le_bytes()).then_some(code)
}

fn write(path: &Path, key: Key, code: &[u8]) -> std::io::Result<()> {
    /// Threads of a process write files of their own, too.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{number}.{UNFINISHED}", std::process::id()));
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(MAGIC)?;
        file.write_all(&key.0.to_le_bytes())?;
        file.write_all(&fnv(FNV_START, code).to_le_bytes())?;
        file.write_all(code)?;
        drop(file);
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

const FNV_START: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// FNV-1a, 128 bits (Fowler, Noll, Vo).
fn fnv(sum: u128, bytes: &[u8]) -> u128 {
    bytes.iter().fold(sum, |h, &b| (h ^ u128::from(b)).wrapping_mul(FNV_PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fresh folder; removed at the end of the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("nnc-cache-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            Folder(folder)
        }

        fn files(&self) -> Vec<PathBuf> {
            fs::read_dir(&self.0).map_or(vec![], |d| d.flatten().map(|f| f.path()).collect())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn key(i: i32) -> Key {
        Key::of("text", i, (8, 0))
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv(FNV_START, b""), FNV_START);
        assert_eq!(fnv(FNV_START, b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn everything_that_matters_is_in_the_key() {
        let base = Key::of("text", 12080, (8, 0));
        assert_eq!(base, Key::of("text", 12080, (8, 0)));
        for other in
            [Key::of("texts", 12080, (8, 0)), Key::of("text", 13000, (8, 0)), Key::of("text", 12080, (8, 6))]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let folder = Folder::new("kept");
        let cache = Cache::at(&folder.0, 1000);
        assert_eq!(cache.get(key(1)), None);
        cache.put(key(1), b"code");
        assert_eq!(cache.get(key(1)).as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.get(key(2)), None);
        cache.remove(key(1));
        assert_eq!((cache.get(key(1)), folder.files().len()), (None, 0));
        let off = Cache::off();
        off.put(key(1), b"code");
        assert_eq!(off.get(key(1)), None);
    }

    #[test]
    fn damage_is_found_and_removed() {
        let folder = Folder::new("damage");
        let cache = Cache::at(&folder.0, 1000);
        cache.put(key(1), b"some code");
        let path = folder.files().remove(0);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            for bytes in [&damaged[..], &whole[..at]] {
                fs::write(&path, bytes).unwrap();
                assert_eq!(cache.get(key(1)), None, "byte {at}");
                assert!(!path.exists());
            }
        }
        // The file of another key under this name.
        cache.put(key(2), b"other code");
        fs::rename(folder.files().remove(0), &path).unwrap();
        assert_eq!(cache.get(key(1)), None);
    }

    #[test]
    fn the_oldest_go_first() {
        let folder = Folder::new("limit");
        let cache = Cache::at(&folder.0, 3 * (HEADER_BYTES as u64 + 10));
        let age = |i: i32, seconds: u64| {
            let file = File::options().append(true).open(cache.path(key(i)).unwrap()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        for i in 1..=3 {
            cache.put(key(i), &[i as u8; 10]);
        }
        (1..=3).for_each(|i| age(i, 100 - i as u64));
        assert!(cache.get(key(1)).is_some(), "used now");
        fs::write(folder.0.join("x.0-0.new"), b"").unwrap();
        cache.put(key(4), &[4; 10]);
        let there: Vec<bool> = (1..=4).map(|i| cache.get(key(i)).is_some()).collect();
        assert_eq!(there, [true, false, true, true]);
        assert!(folder.0.join("x.0-0.new").exists(), "somebody may be writing it");
        cache.put(key(5), &[0; 1000]);
        assert_eq!(cache.get(key(5)), None, "too large for the whole cache");
        assert!(cache.get(key(4)).is_some());
    }

    #[test]
    fn writers_do_not_meet() {
        let folder = Folder::new("writers");
        let cache = Cache::at(&folder.0, 1 << 20);
        let code: Vec<u8> = (0..10_000).map(|i| i as u8).collect();
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    for _ in 0..20 {
                        cache.put(key(1), &code);
                        assert_eq!(cache.get(key(1)).as_deref(), Some(&code[..]));
                    }
                });
            }
        });
        assert_eq!(folder.files().len(), 1, "nothing unfinished is left");
    }

    #[test]
    fn a_folder_that_cannot_be_is_no_error() {
        let folder = Folder::new("file");
        fs::write(&folder.0, b"a file").unwrap();
        let cache = Cache::at(folder.0.join("below"), 1000);
        cache.put(key(1), b"code");
        assert_eq!(cache.get(key(1)), None);
        fs::remove_file(&folder.0).unwrap();
    }
}
