//! Checks the WAL before SQLite recovers it. SQLite applies the valid frames from the start and silently ignores the
//! rest. That is right for a commit that was in progress at a crash, but wrong for an acknowledged commit that is
//! damaged.
//!
//! A transaction is only written after the one before it was synced. So if valid frames of a later transaction follow a
//! damaged frame, the damaged transaction had been acknowledged. The loss is logged, and the file is copied before it
//! is overwritten; it cannot be repaired here. A file truncated between two transactions cannot be distinguished from
//! one that was never longer.
//!
//! Format: SQLite, "WAL-mode File Format", sections 4.1 to 4.3.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::Error;
use crate::schema;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Magic number of a WAL with checksums over little-endian words. For big-endian words it is one higher.
const MAGIC: u32 = 0x377f_0682;

/// Result of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct WalReport {
    /// Frames that SQLite will apply.
    valid_frames: u64,
    /// Later frames that belong to the current use of the file, not to an earlier one.
    ignored_frames: u64,
    /// Minimum number of acknowledged transactions that are lost.
    lost_commits: u64,
    /// The header is unreadable, and frames follow it.
    header_damaged: bool,
}

/// Checks the WAL in the folder. If commits are lost, logs it and copies the file.
///
/// [`Error::Corrupt`] if a WAL exists but its database file is missing or empty: SQLite would start a new database.
pub(crate) fn check(folder: &Path) -> Result<(), Error> {
    let wal = folder.join(format!("{}-wal", schema::FILE));
    let length = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    if length(&wal) == 0 {
        return Ok(());
    }
    if length(&folder.join(schema::FILE)) == 0 {
        return Err(Error::corrupt(format!(
            "{} is missing or empty, but its WAL is not: restore the file or a backup",
            schema::FILE
        )));
    }
    let failed = |source| Error::Folder { path: wal.clone(), source };
    let file = BufReader::with_capacity(1 << 20, File::open(&wal).map_err(failed)?);
    let report = read(file).map_err(failed)?;
    if report.lost_commits > 0 || report.header_damaged {
        metrics::gauge!(crate::metric_names::DAMAGED).set(1.0);
        let damaged_copy = copy_damaged(&wal);
        tracing::error!(
            ?report,
            ?damaged_copy,
            "the ledger's WAL is damaged: acknowledged commits are lost and cannot be recovered; the host continues with \
             the rest. A copy of the file is kept. Check the disk and see docs/how-to/storage.md"
        );
    } else if report.ignored_frames > 0 {
        tracing::info!(?report, "the ledger's WAL ends with an unfinished commit, which is discarded");
    }
    Ok(())
}

/// Copies the file so that data can be salvaged from it. An existing copy is not overwritten.
fn copy_damaged(wal: &Path) -> Option<std::path::PathBuf> {
    let damaged_copy = wal.with_extension("db-wal.damaged");
    if damaged_copy.exists() {
        return Some(damaged_copy);
    }
    match fs::copy(wal, &damaged_copy) {
        Ok(_) => Some(damaged_copy),
        Err(error) => {
            tracing::error!(%error, "the damaged WAL could not be copied");
            None
        }
    }
}

/// A frame as stored.
struct Frame {
    /// It ends a transaction.
    is_commit: bool,
    salts: [u8; 8],
    checksum: (u32, u32),
    /// The part of its header that the checksum covers.
    head: [u8; 8],
    page: Vec<u8>,
}

fn read(mut file: impl Read) -> io::Result<WalReport> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut file, &mut header)? {
        return Ok(WalReport::default());
    }
    let little = word(&header, 0) == MAGIC;
    let page_bytes = match word(&header, 8) as usize {
        bytes @ 512..=65_536 if bytes.is_power_of_two() => bytes,
        _ => 4_096,
    };
    let header_checksum = (word(&header, 24), word(&header, 28));
    let is_header = word(&header, 0) & !1 == MAGIC & !1 && checksum(little, (0, 0), &header[..24]) == header_checksum;
    let mut report = WalReport::default();
    let mut before = header_checksum;
    let mut damaged = !is_header;
    // Commit frames after the damage: any later frame was written after they had been acknowledged.
    let mut commits_after_damage = 0;
    while let Some(frame) = next(&mut file, page_bytes)? {
        let same_use = frame.salts == header[16..24];
        let is_valid = checksum(little, checksum(little, before, &frame.head), &frame.page) == frame.checksum;
        before = frame.checksum;
        if !is_header {
            // Without a header the byte order of the checksums is unknown too.
            report.header_damaged |= frame.is_commit && frame.salts != [0; 8];
            continue;
        }
        if !damaged && same_use && is_valid {
            report.valid_frames += 1;
            continue;
        }
        damaged = true;
        if !same_use {
            continue;
        }
        report.ignored_frames += 1;
        if is_valid && commits_after_damage > 0 {
            report.lost_commits = commits_after_damage;
        }
        commits_after_damage += u64::from(frame.is_commit);
    }
    Ok(report)
}

fn next(file: &mut impl Read, page_bytes: usize) -> io::Result<Option<Frame>> {
    let mut head = [0; FRAME_HEADER_BYTES];
    let mut page = vec![0; page_bytes];
    if !fill(file, &mut head)? || !fill(file, &mut page)? {
        return Ok(None);
    }
    let [a, b, c, d, e, f, g, h, ..] = head;
    let mut salts = [0; 8];
    salts.copy_from_slice(&head[8..16]);
    Ok(Some(Frame {
        is_commit: word(&head, 4) != 0,
        salts,
        checksum: (word(&head, 16), word(&head, 20)),
        head: [a, b, c, d, e, f, g, h],
        page,
    }))
}

/// Fills the buffer. False if the file ends first.
fn fill(file: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn checksum(little: bool, (mut one, mut two): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let read = |word: &[u8]| {
        let word = [word[0], word[1], word[2], word[3]];
        if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) }
    };
    for pair in bytes.chunks_exact(8) {
        one = one.wrapping_add(read(&pair[..4])).wrapping_add(two);
        two = two.wrapping_add(read(&pair[4..])).wrapping_add(one);
    }
    (one, two)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{block_on, copy, event, open, with_tenant};

    /// A WAL with a few commits, as a crash would leave it, and its number of frames.
    fn wal() -> (tempfile::TempDir, Vec<u8>, usize) {
        block_on(async {
            let (folder, ledger) = open();
            with_tenant(&ledger).await;
            for n in 1..=5 {
                ledger.events.append(event(n)).await.unwrap();
            }
            let crashed = copy(&folder);
            let bytes = fs::read(crashed.path().join("ledger.db-wal")).unwrap();
            let frames = (bytes.len() - HEADER_BYTES) / (FRAME_HEADER_BYTES + 4_096);
            (crashed, bytes, frames)
        })
    }

    fn frame_at(number: usize) -> usize {
        HEADER_BYTES + number * (FRAME_HEADER_BYTES + 4_096)
    }

    #[test]
    fn intact_wal_is_valid() {
        let (_folder, bytes, frames) = wal();
        let report = read(&bytes[..]).unwrap();
        assert_eq!(report, WalReport { valid_frames: frames as u64, ..WalReport::default() });
        assert!(frames >= 5);
    }

    #[test]
    fn only_damage_before_a_later_commit_is_a_loss() {
        let (folder, bytes, frames) = wal();
        let mut last = bytes.clone();
        last[frame_at(frames - 1) + 2_000] ^= 1;
        let report = read(&last[..]).unwrap();
        assert_eq!((report.lost_commits, report.ignored_frames), (0, 1));

        let mut early = bytes.clone();
        early[frame_at(0) + 2_000] ^= 1;
        let report = read(&early[..]).unwrap();
        assert_eq!((report.valid_frames, report.ignored_frames), (0, frames as u64));
        assert!(report.lost_commits >= 4, "{report:?}");

        // Truncated within a frame: an unfinished commit and an acknowledged one look the same.
        let report = read(&bytes[..bytes.len() - 1_000]).unwrap();
        assert_eq!((report.valid_frames, report.lost_commits), (frames as u64 - 1, 0));

        let wal = folder.path().join("ledger.db-wal");
        fs::write(&wal, &early).unwrap();
        check(folder.path()).unwrap();
        assert_eq!(fs::read(folder.path().join("ledger.db-wal.damaged")).unwrap(), early);
    }

    #[test]
    fn damaged_header_is_reported() {
        let (_folder, mut bytes, _) = wal();
        bytes[..HEADER_BYTES].fill(b'x');
        assert!(read(&bytes[..]).unwrap().header_damaged);
        // A file that never had more than its start.
        assert!(!read(&[0; 5_000][..]).unwrap().header_damaged);
    }

    #[test]
    fn wal_without_database_is_refused() {
        let (folder, _, _) = wal();
        fs::write(folder.path().join("ledger.db"), b"").unwrap();
        assert!(matches!(check(folder.path()), Err(Error::Corrupt { .. })));
        fs::remove_file(folder.path().join("ledger.db")).unwrap();
        assert!(matches!(check(folder.path()), Err(Error::Corrupt { .. })));
    }
}
