//! A look at the WAL before SQLite recovers it. SQLite takes what is whole from its begin and passes over the rest in
//! silence: right for a commit that was under way at a crash, wrong for one that was acknowledged and is damaged.
//!
//! A transaction is written when the one before it was synced. So where whole frames of a later transaction stand behind
//! a frame that is damaged, the one with the damage had been acknowledged. That is told, and the file is put aside before
//! it is written over; it cannot be repaired from here. A file that was cut off between two transactions looks
//! like one that was never longer: nothing can tell.
//!
//! Format: SQLite, "WAL-mode File Format", section 4.1 to 4.3.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::{Error, schema};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Magic number of a WAL with checksums over little-endian words; the one over big-endian words is one more.
const MAGIC: u32 = 0x377f_0682;

/// What a WAL shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tail {
    /// Frames that SQLite will take.
    taken: u64,
    /// Frames behind them that are no remains of an earlier use of the file.
    passed_over: u64,
    /// Transactions that were acknowledged and are passed over, at the least.
    lost: u64,
    /// The header cannot be read, and there are frames behind it.
    headless: bool,
}

/// Looks at the WAL in the folder, tells what is lost and puts the file aside where something is.
///
/// [`Error::Corrupt`] where there is a WAL and the file it belongs to is gone or empty: SQLite would begin anew.
pub(super) fn look(folder: &Path) -> Result<(), Error> {
    let wal = folder.join(format!("{}-wal", schema::FILE));
    let length = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    if length(&wal) == 0 {
        return Ok(());
    }
    if length(&folder.join(schema::FILE)) == 0 {
        return Err(Error::corrupt(format!("{} is gone or empty, and its WAL is not", schema::FILE)));
    }
    let failed = |source| Error::Folder { path: wal.clone(), source };
    let file = BufReader::with_capacity(1 << 20, File::open(&wal).map_err(failed)?);
    let tail = read(file).map_err(failed)?;
    if tail.lost > 0 || tail.headless {
        metrics::gauge!(super::DAMAGED).set(1.0);
        let aside = put_aside(&wal);
        tracing::error!(
            ?tail,
            ?aside,
            "the ledger's WAL is damaged: commits that were acknowledged are lost, and no one can tell of what; the host \
             goes on with the rest. The file is put aside. See the disk's own health, and docs/how-to/storage.md"
        );
    } else if tail.passed_over > 0 {
        tracing::info!(?tail, "the ledger's WAL ends in a commit that was under way when the host ended");
    }
    Ok(())
}

/// A copy beside the file, for whoever wants to save what can be saved; an earlier one stays.
fn put_aside(wal: &Path) -> Option<std::path::PathBuf> {
    let aside = wal.with_extension("db-wal.damaged");
    if aside.exists() {
        return Some(aside);
    }
    match fs::copy(wal, &aside) {
        Ok(_) => Some(aside),
        Err(error) => {
            tracing::error!(%error, "the damaged WAL could not be put aside");
            None
        }
    }
}

/// A frame as it stands there.
struct Frame {
    /// Ends a transaction.
    commits: bool,
    salts: [u8; 8],
    checksum: (u32, u32),
    /// The checksum that it has to have behind the given one.
    head: [u8; 8],
    page: Vec<u8>,
}

fn read(mut file: impl Read) -> io::Result<Tail> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut file, &mut header)? {
        return Ok(Tail::default());
    }
    let little = word(&header, 0) == MAGIC;
    let page_bytes = match word(&header, 8) as usize {
        bytes @ 512..=65_536 if bytes.is_power_of_two() => bytes,
        _ => 4_096,
    };
    let stands = (word(&header, 24), word(&header, 28));
    let is_header = word(&header, 0) & !1 == MAGIC & !1 && checksum(little, (0, 0), &header[..24]) == stands;
    let mut tail = Tail::default();
    let mut before = stands;
    let mut broken = !is_header;
    // A commit frame behind the damage: what follows it was written when it had been acknowledged.
    let mut commits_behind = 0;
    while let Some(frame) = next(&mut file, page_bytes)? {
        let own = frame.salts == header[16..24];
        let whole = checksum(little, checksum(little, before, &frame.head), &frame.page) == frame.checksum;
        before = frame.checksum;
        if !is_header {
            // Which way its words lie is not known either.
            tail.headless |= frame.commits && frame.salts != [0; 8];
            continue;
        }
        if !broken && own && whole {
            tail.taken += 1;
            continue;
        }
        broken = true;
        if !own {
            continue;
        }
        tail.passed_over += 1;
        if whole && commits_behind > 0 {
            tail.lost = commits_behind;
        }
        commits_behind += u64::from(frame.commits);
    }
    Ok(tail)
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
        commits: word(&head, 4) != 0,
        salts,
        checksum: (word(&head, 16), word(&head, 20)),
        head: [a, b, c, d, e, f, g, h],
        page,
    }))
}

/// Reads all of it; false where the file ends before.
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
    use super::super::tests::{block_on, copy, event, open, with_tenant};
    use super::*;

    /// A WAL with the commits of some events, as a crash would leave it, and the number of its frames.
    fn wal() -> (tempfile::TempDir, Vec<u8>, usize) {
        block_on(async {
            let (folder, ledger) = open();
            with_tenant(&ledger).await;
            for n in 1..=5 {
                ledger.append(event(n)).await.unwrap();
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
    fn a_whole_file_is_taken_whole() {
        let (_folder, bytes, frames) = wal();
        let tail = read(&bytes[..]).unwrap();
        assert_eq!(tail, Tail { taken: frames as u64, ..Tail::default() });
        assert!(frames >= 5);
    }

    #[test]
    fn damage_before_a_later_commit_is_a_loss_and_damage_of_the_last_is_not() {
        let (folder, bytes, frames) = wal();
        let mut last = bytes.clone();
        last[frame_at(frames - 1) + 2_000] ^= 1;
        let tail = read(&last[..]).unwrap();
        assert_eq!((tail.lost, tail.passed_over), (0, 1));

        let mut early = bytes.clone();
        early[frame_at(0) + 2_000] ^= 1;
        let tail = read(&early[..]).unwrap();
        assert_eq!((tail.taken, tail.passed_over), (0, frames as u64));
        assert!(tail.lost >= 4, "{tail:?}");

        // Cut off in the middle of a frame: nobody can tell a commit under way from one that was acknowledged.
        let tail = read(&bytes[..bytes.len() - 1_000]).unwrap();
        assert_eq!((tail.taken, tail.lost), (frames as u64 - 1, 0));

        let wal = folder.path().join("ledger.db-wal");
        fs::write(&wal, &early).unwrap();
        look(folder.path()).unwrap();
        assert_eq!(fs::read(folder.path().join("ledger.db-wal.damaged")).unwrap(), early);
    }

    #[test]
    fn a_header_that_is_gone_is_told() {
        let (_folder, mut bytes, _) = wal();
        bytes[..HEADER_BYTES].fill(b'x');
        assert!(read(&bytes[..]).unwrap().headless);
        // A file that was never more than its begin.
        assert!(!read(&[0; 5_000][..]).unwrap().headless);
    }

    #[test]
    fn a_wal_without_its_file_is_not_begun_anew() {
        let (folder, _, _) = wal();
        fs::write(folder.path().join("ledger.db"), b"").unwrap();
        assert!(matches!(look(folder.path()), Err(Error::Corrupt { .. })));
        fs::remove_file(folder.path().join("ledger.db")).unwrap();
        assert!(matches!(look(folder.path()), Err(Error::Corrupt { .. })));
    }
}
