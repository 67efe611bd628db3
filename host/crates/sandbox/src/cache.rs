//! On-disk cache of compiled filters, so that a restart does not compile anything.
//!
//! One file for each filter and engine, `<digest>-<start of compatibility>.cwasm`, in a directory with mode 0700:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `SGCWASM1` |
//! | 32 | the filter's digest: SHA-256 of its wasm |
//! | 32 | the engine's compatibility: SHA-256 over its version, target and settings |
//! | 8 | length of the code, little endian |
//! | n | the code |
//! | 32 | HMAC-SHA256 over everything before it, under the host's cache key |
//!
//! Invariants: a file is created atomically, by rename. A file that is truncated, modified, from another engine, for
//! another filter or without a valid MAC is treated as absent: the filter is compiled again and the file replaced. The
//! MAC covers the header, so a renamed file is not accepted for another filter.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use setgate_base::crypto::{hmac_sha256, sha256};
use setgate_domain::id::Digest;

use super::artefact::Artefact;

const MAGIC: &[u8; 8] = b"SGCWASM1";
const HEADER_BYTES: usize = 8 + 32 + 32 + 8;
const MAC_BYTES: usize = 32;

pub(super) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    compatibility: [u8; 32],
    bytes_max: u64,
    /// Makes the names of temporary files unique within this process.
    writes: AtomicU64,
    /// Upper bound of the bytes in the directory. `None` until the directory is first scanned. A replaced file counts
    /// twice until the next scan.
    held: Mutex<Option<u64>>,
}

impl Cache {
    /// Opens the directory and creates it if it does not exist.
    ///
    /// # Errors
    /// If it cannot be created, or cannot be made private because another user owns it.
    pub(super) fn open(dir: PathBuf, key: [u8; 32], compatibility: [u8; 32], bytes_max: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        Ok(Self { dir, key, compatibility, bytes_max, writes: AtomicU64::new(0), held: Mutex::default() })
    }

    /// The artefact of a filter. `None` if there is no valid file. Blocks.
    pub(super) fn load(&self, digest: &Digest) -> Option<Artefact> {
        let path = self.path(digest);
        let mut file = File::open(&path).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let Some(code) = self.check(digest, &bytes) else {
            tracing::warn!(%digest, path = %path.display(), "compiled filter on disk is damaged or foreign: compiling it again");
            return None;
        };
        // The modification time records the last use; `evict` orders files by it.
        #[expect(clippy::disallowed_methods, reason = "compared with other files' times only")]
        let _ = file.set_modified(SystemTime::now());
        Some(Artefact::authenticated(bytes, code))
    }

    /// Stores an artefact. Blocks.
    ///
    /// # Errors
    /// If the file cannot be written. The filter can still run.
    pub(super) fn store(&self, digest: &Digest, artefact: &Artefact) -> io::Result<()> {
        let header = self.header(digest, artefact.code().len());
        let mac = hmac_sha256(&self.key, &[&header, artefact.code()]);
        let unfinished =
            self.dir.join(format!("{}.{}.tmp", std::process::id(), self.writes.fetch_add(1, Ordering::Relaxed)));
        let written = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(&header)?;
            file.write_all(artefact.code())?;
            file.write_all(&mac)?;
            fs::rename(&unfinished, self.path(digest))
        };
        let result = written();
        if result.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        self.evict((HEADER_BYTES + artefact.code().len() + MAC_BYTES) as u64);
        result
    }

    /// If the directory may exceed its limit with `more` further bytes, removes the least recently used files. Removes
    /// a sixteenth more than necessary, so that a full directory of thousands of files is not scanned for each new
    /// file.
    fn evict(&self, more: u64) {
        // A poisoned lock is safe to use: a wrong count is corrected by the next scan.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = &mut *held {
            *held = held.saturating_add(more);
            if *held <= self.bytes_max {
                return;
            }
        }
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let meta = entry.metadata().ok().filter(|meta| meta.is_file())?;
                Some((meta.modified().ok()?, meta.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let bytes_left = if total > self.bytes_max { self.bytes_max - self.bytes_max / 16 } else { total };
        for (_, bytes, path) in files {
            if total <= bytes_left {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
        *held = Some(total);
    }

    fn check(&self, digest: &Digest, bytes: &[u8]) -> Option<std::ops::Range<usize>> {
        let code_len = bytes.len().checked_sub(HEADER_BYTES + MAC_BYTES)?;
        let (header, rest) = bytes.split_at(HEADER_BYTES);
        let (code, mac) = rest.split_at(code_len);
        if header != self.header(digest, code_len) {
            return None;
        }
        // Comparing hashes of the MACs leaks nothing about the expected MAC through timing.
        let expected = hmac_sha256(&self.key, &[header, code]);
        (sha256(mac) == sha256(&expected)).then_some(HEADER_BYTES..HEADER_BYTES + code_len)
    }

    fn header(&self, digest: &Digest, code_len: usize) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..40].copy_from_slice(&digest.0);
        header[40..72].copy_from_slice(&self.compatibility);
        header[72..].copy_from_slice(&(code_len as u64).to_le_bytes());
        header
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{}-{}.cwasm", hex::encode(digest.0), hex::encode(&self.compatibility[..8])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &tempfile::TempDir) -> Cache {
        Cache::open(dir.path().join("cache"), [1; 32], [2; 32], 1 << 20).unwrap()
    }

    #[test]
    fn loads_stored_artefact_from_private_directory() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(&dir);
        let digest = Digest([3; 32]);
        assert!(cache.load(&digest).is_none());
        cache.store(&digest, &Artefact::compiled(b"code".to_vec())).unwrap();
        assert_eq!(cache.load(&digest).unwrap().code(), b"code");
        assert_eq!(fs::metadata(&cache.dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(cache.path(&digest)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn refuses_modified_truncated_or_foreign_files() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(&dir);
        let digest = Digest([3; 32]);
        cache.store(&digest, &Artefact::compiled(b"code".to_vec())).unwrap();
        let path = cache.path(&digest);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(cache.load(&digest).is_none(), "byte {at} changed");
            fs::write(&path, &good[..at]).unwrap();
            assert!(cache.load(&digest).is_none(), "cut at {at}");
        }
        fs::write(&path, [&good[..], b"x"].concat()).unwrap();
        assert!(cache.load(&digest).is_none(), "longer");

        fs::write(&path, &good).unwrap();
        let other = Digest([4; 32]);
        fs::copy(&path, cache.path(&other)).unwrap();
        assert!(cache.load(&other).is_none(), "another filter's");
        for (key, compatibility) in [([9; 32], [2; 32]), ([1; 32], [9; 32])] {
            let foreign = Cache::open(cache.dir.clone(), key, compatibility, 1 << 20).unwrap();
            if foreign.path(&digest) != path {
                fs::copy(&path, foreign.path(&digest)).unwrap();
            }
            assert!(foreign.load(&digest).is_none(), "another host's or engine's");
        }
        assert!(cache.load(&digest).is_some(), "the good one still loads");
    }

    #[test]
    fn cache_stays_within_byte_limit() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Cache::open(dir.path().join("cache"), [1; 32], [2; 32], 1_000).unwrap();
        let mut cache = open();
        for n in 0..10 {
            if n == 5 {
                // Files from before the cache was opened count as well.
                cache = open();
            }
            cache.store(&Digest([n; 32]), &Artefact::compiled(vec![n; 300])).unwrap();
            let total: u64 = fs::read_dir(&cache.dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
            assert!(total <= 1_000, "{total} after {n}");
            assert!(cache.load(&Digest([n; 32])).is_some(), "the newest stays");
        }
    }
}
