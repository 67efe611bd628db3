//! A run: the sorted entries of some events, written once and immutable.
//!
//! # Format
//!
//! A part is a row of `dedupe_part`: up to [`PART_ENTRIES`] entries of [`ENTRY_BYTES`], each the hash (8 bytes) and the
//! event's seq (6 bytes), big-endian, which fill one page of the file. The in-memory data of the parts is stored in
//! `dedupe_header`, up to [`HEADERS_PER_ROW`] parts per row: the part's first hash and its Bloom filter of [`FILTER_BITS`]
//! bits (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970). Each row ends with the CRC-32 of
//! its key and its bytes, so that a changed row is not treated as "not found". A key of either table is the run id,
//! shifted by [`RUN_SHIFT`], plus the row's number within the run, so that the rows of a run are adjacent.

use rusqlite::{Connection, OptionalExtension as _};
use setgate_domain::event::EventSeq;

use crate::Error;
use crate::schema::sql_types::{ReadColumn, params};
use crate::schema::statements::Statements;

/// Entries per part: as many as fit into one row on a page of 4 KiB.
pub(crate) const PART_ENTRIES: usize = 280;
const ENTRY_BYTES: usize = 14;
/// Parts per row of `dedupe_header`.
const HEADERS_PER_ROW: usize = 11;
/// Words of a part's Bloom filter: ten bits per entry, with one false positive in about 120 lookups.
const FILTER_WORDS: usize = 44;
const FILTER_BITS: u64 = FILTER_WORDS as u64 * 64;
/// Bits that an entry sets: close to the optimum for this filter size.
const FILTER_PROBES: u32 = 7;
const HEADER_BYTES: usize = 8 + FILTER_WORDS * 8;
/// Bits of a row's key that hold its number within the run.
pub(crate) const RUN_SHIFT: u32 = 32;
/// Exclusive upper bound of run ids.
pub(crate) const RUN_ID_END: i64 = 1 << 31;
/// Bytes of a row's checksum.
const CHECKSUM_BYTES: usize = 4;
/// Largest event seq that an entry can hold.
const SEQ_MAX: i64 = (1 << 48) - 1;

/// A hash of a dedupe key and its event, in the sort order of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) hash: i64,
    pub(crate) seq: EventSeq,
}

impl Entry {
    fn to_bytes(self) -> Result<[u8; ENTRY_BYTES], Error> {
        if !(0..=SEQ_MAX).contains(&self.seq.0) {
            return Err(Error::corrupt(format!("event seq {} is out of range for the dedupe index", self.seq.0)));
        }
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.hash.to_be_bytes());
        bytes[8..].copy_from_slice(&self.seq.0.to_be_bytes()[2..]);
        Ok(bytes)
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, seq @ ..] = *bytes;
        let [i, j, k, l, m, n] = seq;
        Self {
            hash: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            seq: EventSeq(i64::from_be_bytes([0, 0, i, j, k, l, m, n])),
        }
    }
}

/// The filter bits of a hash. Hashes in one part share their leading bits, and senders can choose the hashed values, so
/// each bit must depend on the whole hash (the finalizer of MurmurHash3).
fn bits_of(hash: i64) -> impl Iterator<Item = (usize, u64)> {
    let mut mixed = hash.cast_unsigned();
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^= mixed >> 33;
    let (first, step) = (mixed & 0xffff_ffff, (mixed >> 32) | 1);
    (0..u64::from(FILTER_PROBES)).map(move |probe| {
        let place = first.wrapping_add(probe.wrapping_mul(step)) & 0xffff_ffff;
        let bit = (place * FILTER_BITS) >> 32;
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}

/// The in-memory data of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: i64,
    /// Number of merges its entries went through. Runs of one level have about the same size.
    pub(crate) level: u32,
    /// All events up to this one are in this run or an older one.
    pub(crate) last: EventSeq,
    pub(crate) entries: i64,
    /// Entries of deleted events were left out when it was written, and retention had examined all its events by then.
    pub(crate) is_compacted: bool,
    /// First hash of each part.
    fences: Vec<i64>,
    /// Filters of all parts, concatenated.
    filters: Vec<u64>,
}

impl Run {
    /// Loads all runs, oldest first.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a run is incomplete.
    pub(crate) fn load_all(conn: &Connection) -> Result<Vec<Self>, Error> {
        let mut statement = conn.prepare("SELECT id, level, last_seq, entries FROM dedupe_run ORDER BY last_seq")?;
        let rows = statement.query_map([], |row| {
            let run = Self::new(row.get(0)?, row.get(1)?, row.column(2)?);
            Ok(Self { entries: row.get(3)?, ..run })
        })?;
        let mut runs = rows.collect::<Result<Vec<_>, _>>()?;
        for run in &mut runs {
            run.load_headers(conn)?;
        }
        Ok(runs)
    }

    fn new(id: i64, level: u32, last: EventSeq) -> Self {
        Self { id, level, last, entries: 0, is_compacted: false, fences: Vec::new(), filters: Vec::new() }
    }

    fn load_headers(&mut self, conn: &Connection) -> Result<(), Error> {
        let incomplete =
            || Error::corrupt(format!("the headers of run {} of the dedupe index are incomplete", self.id));
        if !(1..RUN_ID_END).contains(&self.id) {
            return Err(incomplete());
        }
        let (mut fences, mut filters) = (Vec::new(), Vec::new());
        let mut statement =
            conn.prepare_cached("SELECT id, body FROM dedupe_header WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
        let mut rows = statement.query([self.id << RUN_SHIFT, (self.id + 1) << RUN_SHIFT])?;
        while let Some(row) = rows.next()? {
            let body =
                verified_body(row.get(0)?, row.get_ref(1)?.as_blob().unwrap_or_default()).ok_or_else(incomplete)?;
            for header in body.as_chunks::<HEADER_BYTES>().0 {
                let mut words = header.as_chunks::<8>().0.iter().copied();
                fences.push(i64::from_be_bytes(words.next().unwrap_or_default()));
                filters.extend(words.map(u64::from_be_bytes));
            }
        }
        let parts = usize::try_from(self.entries).unwrap_or(0).div_ceil(PART_ENTRIES);
        if fences.is_empty() || fences.len() != parts || !fences.is_sorted() {
            return Err(incomplete());
        }
        fences.shrink_to_fit();
        filters.shrink_to_fit();
        (self.fences, self.filters) = (fences, filters);
        Ok(())
    }

    pub(crate) fn parts(&self) -> usize {
        self.fences.len()
    }

    /// Memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.fences.capacity() * 8 + self.filters.capacity() * 8
    }

    /// Calls `look` for each event of the run with that hash, newest first, until it returns a value. Reads a part from
    /// the file only if its filter reports a probable match.
    pub(crate) fn find<T>(
        &self,
        statements: &mut Statements<'_>,
        hash: i64,
        look: &mut impl FnMut(&mut Statements<'_>, EventSeq) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        // The part that contains the hash, then earlier parts if events with the same hash extend over several.
        let mut part = self.fences.partition_point(|fence| *fence <= hash);
        while part > 0 {
            part -= 1;
            let filter = &self.filters[part * FILTER_WORDS..][..FILTER_WORDS];
            if bits_of(hash).all(|(word, bit)| filter[word] & bit != 0) {
                let select = statements.get(SELECT_PART)?;
                let body = select.query_row([key(self.id, part)], |row| row.get(0)).optional()?;
                let entries = self.entries_of(part, body)?;
                for entry in entries.iter().rev().filter(|entry| entry.hash == hash) {
                    if let Some(found) = look(statements, entry.seq)? {
                        return Ok(Some(found));
                    }
                }
            }
            if self.fences[part] != hash {
                break;
            }
        }
        Ok(None)
    }

    /// The entries of a part.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is missing or changed.
    pub(crate) fn read_part(&self, conn: &Connection, part: usize) -> Result<Vec<Entry>, Error> {
        let body = conn.prepare_cached(SELECT_PART)?.query_row([key(self.id, part)], |row| row.get(0)).optional()?;
        self.entries_of(part, body)
    }

    fn entries_of(&self, part: usize, body: Option<Vec<u8>>) -> Result<Vec<Entry>, Error> {
        let wanted = usize::try_from(self.entries).unwrap_or(0).saturating_sub(part * PART_ENTRIES).min(PART_ENTRIES);
        let body = body.as_deref().and_then(|body| verified_body(key(self.id, part), body));
        let entries = body.map(|body| body.as_chunks().0.iter().map(Entry::from_bytes).collect::<Vec<_>>());
        entries.filter(|entries| entries.len() == wanted).ok_or_else(|| {
            Error::corrupt(format!("part {part} of run {} of the dedupe index is missing or damaged", self.id))
        })
    }
}

pub(crate) const SELECT_PART: &str = "SELECT body FROM dedupe_part WHERE id = ?1";

fn key(run: i64, number: usize) -> i64 {
    // No table has 2^32 rows of a page each.
    (run << RUN_SHIFT) | number as i64
}

/// Checksum of a row, including its key, so that no row passes for another.
fn checksum(key: i64, body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&key.to_be_bytes());
    sum.update(body);
    sum.finalize().to_be_bytes()
}

/// The content of a row without its checksum. `None` if the checksum does not match.
fn verified_body(key: i64, row: &[u8]) -> Option<&[u8]> {
    let (body, stored) = row.split_last_chunk::<CHECKSUM_BYTES>()?;
    (*stored == checksum(key, body)).then_some(body)
}

/// A run being written, entry by entry.
pub(crate) struct RunWriter {
    run: Run,
    /// Entries of the current part.
    body: Vec<u8>,
    /// Filter of the current part.
    filter: [u64; FILTER_WORDS],
    /// Headers of finished parts that are not in a row yet.
    headers: Vec<u8>,
    header_rows_written: usize,
}

impl RunWriter {
    /// Starts a run that covers all events up to `last` that are in no older run. `parts` is the expected maximum
    /// number of parts.
    pub(crate) fn new(id: i64, level: u32, last: EventSeq, parts: usize) -> Self {
        Self {
            run: Run {
                fences: Vec::with_capacity(parts),
                filters: Vec::with_capacity(parts * FILTER_WORDS),
                ..Run::new(id, level, last)
            },
            body: Vec::with_capacity(PART_ENTRIES * ENTRY_BYTES + CHECKSUM_BYTES),
            filter: [0; FILTER_WORDS],
            headers: Vec::with_capacity(HEADERS_PER_ROW * HEADER_BYTES + CHECKSUM_BYTES),
            header_rows_written: 0,
        }
    }

    pub(crate) fn id(&self) -> i64 {
        self.run.id
    }

    /// Memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.run.bytes()
    }

    /// See [`Run::is_compacted`].
    pub(crate) fn set_compacted(&mut self, retention_watermark: EventSeq) {
        self.run.is_compacted = self.run.last <= retention_watermark;
    }

    /// Appends an entry, which must not be less than the previous one.
    pub(crate) fn push(&mut self, conn: &Connection, entry: Entry) -> Result<(), Error> {
        if self.body.is_empty() {
            self.run.fences.push(entry.hash);
        }
        self.body.extend(entry.to_bytes()?);
        for (word, bit) in bits_of(entry.hash) {
            self.filter[word] |= bit;
        }
        self.run.entries += 1;
        if self.body.len() == PART_ENTRIES * ENTRY_BYTES {
            self.write_part(conn)?;
        }
        Ok(())
    }

    fn write_part(&mut self, conn: &Connection) -> Result<(), Error> {
        let Some((part, fence)) = self.run.fences.iter().enumerate().next_back() else { return Ok(()) };
        let id = key(self.run.id, part);
        self.body.extend(checksum(id, &self.body));
        conn.prepare_cached("INSERT INTO dedupe_part (id, body) VALUES (?1, ?2)")?.execute(params![id, self.body])?;
        self.headers.extend(fence.to_be_bytes());
        self.headers.extend(self.filter.iter().flat_map(|word| word.to_be_bytes()));
        self.run.filters.extend(self.filter);
        self.body.clear();
        self.filter.fill(0);
        if self.headers.len() == HEADERS_PER_ROW * HEADER_BYTES {
            self.write_headers(conn)?;
        }
        Ok(())
    }

    fn write_headers(&mut self, conn: &Connection) -> Result<(), Error> {
        let id = key(self.run.id, self.header_rows_written);
        self.headers.extend(checksum(id, &self.headers));
        conn.prepare_cached("INSERT INTO dedupe_header (id, body) VALUES (?1, ?2)")?
            .execute(params![id, self.headers])?;
        self.header_rows_written += 1;
        self.headers.clear();
        Ok(())
    }

    /// Writes the remaining entries and the row of the run. `None` if the run has no entries.
    pub(crate) fn finish(mut self, conn: &Connection) -> Result<Option<Run>, Error> {
        if self.run.entries == 0 {
            return Ok(None);
        }
        if !self.body.is_empty() {
            self.write_part(conn)?;
        }
        if !self.headers.is_empty() {
            self.write_headers(conn)?;
        }
        let run = &self.run;
        conn.prepare_cached("INSERT INTO dedupe_run (id, level, last_seq, entries) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![run.id, run.level, run.last, run.entries])?;
        self.run.fences.shrink_to_fit();
        self.run.filters.shrink_to_fit();
        Ok(Some(self.run))
    }
}
