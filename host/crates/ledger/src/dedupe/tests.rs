//! Compares the index with a plain set, through rollbacks, restarts and deletions.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rusqlite::StatementStatus;
use setgate_base::crypto::sha256;

use super::run::{PART_ENTRIES, SELECT_PART};
use super::*;
use crate::schema;

/// A database with the columns of the journal that the index uses.
fn file() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    prepare(&conn);
    conn
}

fn prepare(conn: &Connection) {
    conn.execute_batch(schema::tables::DEDUPE_TABLES).unwrap();
    conn.execute_batch("CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID").unwrap();
    conn.execute_batch(
        "CREATE TABLE event (seq INTEGER PRIMARY KEY AUTOINCREMENT, dedupe_hash INTEGER, dedupe_key BLOB)",
    )
    .unwrap();
}

fn key_of(number: u64) -> [u8; 32] {
    sha256(&number.to_be_bytes())
}

/// The keys of a batch of one hundred events.
fn keys_of(batch: i64) -> Vec<[u8; 32]> {
    (0..100).map(|n| key_of(batch.cast_unsigned() * 100 + n)).collect()
}

fn held(index: &Index) -> i64 {
    index.runs.iter().map(|run| run.entries).sum::<i64>() + index.memtable.len() as i64
}

/// Appends events with these keys in a transaction that is committed or rolled back.
fn append(conn: &Connection, index: &mut Index, keys: &[[u8; 32]], first: i64, keep: bool) {
    try_append(conn, index, keys, first, keep, EventSeq::default()).unwrap();
}

/// Like [`append`], for transactions that may fail, as the writer runs them.
fn try_append(
    conn: &Connection,
    index: &mut Index,
    keys: &[[u8; 32]],
    first: i64,
    keep: bool,
    retention_watermark: EventSeq,
) -> Result<(), Error> {
    conn.execute_batch("BEGIN").unwrap();
    let mut new_entries = Vec::new();
    for (key, seq) in keys.iter().zip(first..) {
        let entry = Entry { hash: hash(key), seq: EventSeq(seq) };
        conn.prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3)").unwrap().execute((seq, entry.hash, key)).unwrap();
        new_entries.push(entry);
    }
    let appended = index.append(conn, new_entries, retention_watermark);
    if keep && appended.is_ok() {
        conn.execute_batch("COMMIT").unwrap();
        index.committed();
    } else {
        conn.execute_batch("ROLLBACK").unwrap();
        index.rolled_back();
    }
    appended
}

fn find(conn: &Connection, index: &Index, hash: i64) -> Vec<EventSeq> {
    try_find(conn, index, hash).unwrap()
}

/// All events with this hash in the index.
fn try_find(conn: &Connection, index: &Index, hash: i64) -> Result<Vec<EventSeq>, Error> {
    let mut found = Vec::new();
    let all = |_: &mut Statements<'_>, seq| {
        found.push(seq);
        Ok(None::<()>)
    };
    index.find(&mut Statements::new(conn), hash, all)?;
    Ok(found)
}

#[derive(Debug, Clone)]
enum Op {
    Append {
        keys: Vec<u64>,
        keep: bool,
    },
    /// That many of the oldest events.
    Delete(usize),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (prop::collection::vec(0..60_u64, 1..12), prop::bool::weighted(0.8))
            .prop_map(|(keys, keep)| Op::Append { keys, keep }),
        2 => (0..40_usize).prop_map(Op::Delete),
        1 => Just(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn matches_model(ops in prop::collection::vec(op(), 1..200)) {
        let conn = file();
        let mut index = Index::open(&conn, 5).unwrap();
        let mut ever = BTreeSet::new();
        let mut there = BTreeSet::new();
        let mut next = 1;
        for op in ops {
            match op {
                Op::Append { keys, keep } => {
                    let keys: Vec<_> = keys.into_iter().map(key_of).collect();
                    append(&conn, &mut index, &keys, next, keep);
                    if keep {
                        let new = keys.iter().zip(next..).map(|(key, seq)| (EventSeq(seq), hash(key)));
                        ever.extend(new.clone());
                        there.extend(new);
                        next += keys.len() as i64;
                    }
                }
                Op::Delete(count) => {
                    for _ in 0..count.min(there.len()) {
                        let (seq, _) = there.pop_first().unwrap();
                        conn.execute("DELETE FROM event WHERE seq = ?1", [seq.0]).unwrap();
                    }
                }
                // As after a crash: the in-memory state is lost and must not be needed.
                Op::Restart => index = Index::open(&conn, 5).unwrap(),
            }
        }
        for key in 0..60 {
            let hash = hash(&key_of(key));
            let found = find(&conn, &index, hash);
            prop_assert!(found.is_sorted_by(|a, b| a > b), "the newest first, and none twice: {found:?}");
            prop_assert!(found.iter().all(|seq| ever.contains(&(*seq, hash))));
            let wanted = there.iter().filter(|(_, of)| *of == hash).map(|(seq, _)| seq);
            prop_assert!(wanted.into_iter().all(|seq| found.contains(seq)));
        }
        prop_assert_eq!(faults(&conn, 10).unwrap(), Vec::<String>::new());
        prop_assert_eq!(orphaned_runs(&conn, &index), 0);
    }
}

/// Rows of runs that are neither in use nor queued for deletion.
fn orphaned_runs(conn: &Connection, index: &Index) -> usize {
    let known = index
        .runs
        .iter()
        .map(|run| run.id)
        .chain(index.merges.iter().map(Merge::id))
        .chain(index.obsolete.iter().copied());
    let known: BTreeSet<_> = known.collect();
    let mut statement =
        conn.prepare("SELECT id >> 32 FROM dedupe_part UNION SELECT id >> 32 FROM dedupe_header").unwrap();
    let there = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    there.filter(|run| !known.contains(run.as_ref().unwrap())).count()
}

/// Enough events for runs of several parts and header rows, on three levels.
fn filled(events: u64) -> (Connection, Index) {
    let conn = file();
    let index = fill(&conn, events);
    (conn, index)
}

fn fill(conn: &Connection, events: u64) -> Index {
    let mut index = Index::open(conn, 600).unwrap();
    let keys: Vec<_> = (0..events).map(key_of).collect();
    for (batch, keys) in keys.chunks(100).enumerate() {
        append(conn, &mut index, keys, batch as i64 * 100 + 1, true);
    }
    index
}

#[test]
fn runs_stay_few_and_lookups_read_few_parts() {
    let (conn, index) = filled(45_000);
    let levels: Vec<_> = index.runs.iter().map(|run| run.level).collect();
    assert!(levels.contains(&2) && levels.len() < 3 * FAN_IN, "{levels:?}");
    assert!(levels.is_sorted_by(|a, b| a >= b), "old runs are the larger ones: {levels:?}");
    assert!(index.runs.iter().any(|run| run.parts() > 100));
    let reads = || conn.prepare_cached(SELECT_PART).unwrap().get_status(StatementStatus::Run);
    let before = reads();
    for number in (0..45_000).step_by(7) {
        assert_eq!(find(&conn, &index, hash(&key_of(number))), [EventSeq(number.cast_signed() + 1)]);
    }
    let (found, before) = (reads() - before, reads());
    assert!(found < 45_000 / 7 * 12 / 10, "{found}");
    for number in 100_000..110_000 {
        assert_eq!(find(&conn, &index, hash(&key_of(number))), []);
    }
    let in_vain = reads() - before;
    // One false positive in 120 lookups per run.
    assert!(usize::try_from(in_vain).unwrap() < 10_000 * levels.len() / 60, "{in_vain} of 10,000 in {levels:?}");
    let per_event = index.bytes() as f64 / 45_000.0;
    assert!(per_event < 2.0, "{per_event}");
    assert_eq!(faults(&conn, 10).unwrap(), Vec::<String>::new());
    assert_eq!(orphaned_runs(&conn, &index), 0);
}

/// As at the first start after an upgrade: no event is in a run.
#[test]
fn rebuild_from_events_finds_all() {
    let (conn, _) = filled(5_000);
    for table in ["dedupe_run", "dedupe_part", "dedupe_header"] {
        conn.execute(&format!("DELETE FROM {table}"), []).unwrap();
    }
    let built = Index::open(&conn, 600).unwrap();
    let runs: Vec<_> = built.runs.iter().map(|run| (run.level, run.entries)).collect();
    assert_eq!((runs, built.memtable.len()), (vec![(1, 4_800)], 200));
    for number in (0..5_000).step_by(11) {
        assert_eq!(find(&conn, &built, hash(&key_of(number))), [EventSeq(number.cast_signed() + 1)]);
    }
    assert_eq!(faults(&conn, 10).unwrap(), Vec::<String>::new());
    assert_eq!(orphaned_runs(&conn, &built), 0);
}

/// Enough events with the same hash to fill several parts: all are found across the parts.
#[test]
fn equal_hashes_are_all_found() {
    let conn = file();
    let mut index = Index::open(&conn, 3 * PART_ENTRIES).unwrap();
    let count = 3 * PART_ENTRIES as i64;
    append(&conn, &mut index, &vec![[7; 32]; count as usize], 1, true);
    append(&conn, &mut index, &[key_of(1)], count + 1, true);
    assert_eq!(index.runs[0].parts(), 3);
    let wanted: Vec<_> = (1..=count).rev().map(EventSeq).collect();
    assert_eq!(find(&conn, &index, hash(&[7; 32])), wanted);
}

#[test]
fn merges_drop_entries_of_deleted_events() {
    let (conn, mut index) = filled(3_000);
    conn.execute("DELETE FROM event WHERE seq <= 2900", []).unwrap();
    for batch in 0..60_i64 {
        let keys = keys_of(1_000 + batch);
        append(&conn, &mut index, &keys, 3_001 + batch * 100, true);
    }
    let held = held(&index);
    assert!((6_100..6_700).contains(&held), "{held}");
    assert_eq!(find(&conn, &index, hash(&key_of(1))), []);
    let pages: i64 = conn.query_row("SELECT count(*) FROM dedupe_part", [], |row| row.get(0)).unwrap();
    assert!(pages < 3 * held / PART_ENTRIES as i64, "{pages}: what is not used is swept");
}

/// One old event that must stay does not preserve the entries of later, deleted ones.
#[test]
fn old_retained_event_does_not_block_compaction() {
    let (conn, mut index) = filled(20_000);
    conn.execute("DELETE FROM event WHERE seq BETWEEN 2 AND 19999", []).unwrap();
    for batch in 200..300_i64 {
        try_append(&conn, &mut index, &keys_of(batch), batch * 100 + 1, true, EventSeq(19_999)).unwrap();
    }
    let held = held(&index);
    assert!((10_000..11_500).contains(&held), "{held}");
    assert_eq!(find(&conn, &index, hash(&key_of(0))), [EventSeq(1)]);
    assert_eq!(find(&conn, &index, hash(&key_of(1))), []);
}

#[test]
fn damage_is_detected_and_rebuilt_at_start() {
    for damage in [
        "DELETE FROM dedupe_header WHERE id >> 32 = 1",
        "UPDATE dedupe_header SET body = CAST(substr(body, 1, 87) || x'31' || substr(body, 89) AS BLOB) WHERE id >> 32 = 1",
        "UPDATE dedupe_run SET entries = 9000000000000 WHERE id = 1",
        "INSERT INTO dedupe_run VALUES (3000000000, 0, 1, 1)",
    ] {
        let (conn, _) = filled(2_000);
        assert!(conn.execute(damage, []).unwrap() > 0);
        assert!(Index::load(&conn, 600).err().unwrap().is_damage(), "{damage}");
        let index = Index::open(&conn, 600).unwrap();
        assert_eq!(find(&conn, &index, hash(&key_of(1_500))), [EventSeq(1_501)], "{damage}");
        assert_eq!(faults(&conn, 10).unwrap(), Vec::<String>::new());
    }
    // Damage that only a lookup detects: never reported as "not found".
    for damage in [
        "DELETE FROM dedupe_part WHERE id >> 32 = 1",
        "UPDATE dedupe_part SET body = x'00' WHERE id >> 32 = 1",
        "UPDATE dedupe_part SET body = substr(body, 1, length(body) / 14 / 2 * 14) WHERE id >> 32 = 1",
        "UPDATE dedupe_part SET body = CAST(substr(body, 1, 87) || x'31' || substr(body, 89) AS BLOB) WHERE id >> 32 = 1",
        "UPDATE dedupe_part SET body = (SELECT body FROM dedupe_part WHERE id = (2 << 32)) WHERE id >> 32 = 1",
    ] {
        let (conn, mut index) = filled(2_000);
        assert!(conn.execute(damage, []).unwrap() > 0);
        assert!(faults(&conn, 3).unwrap()[0].contains("is missing or damaged"), "{damage}");
        for number in 0..600 {
            assert!(try_find(&conn, &index, hash(&key_of(number))).unwrap_err().is_damage(), "{damage}");
        }
        // The damage is recorded by the next batch.
        append(&conn, &mut index, &[], 0, true);
        let index = Index::open(&conn, 600).unwrap();
        for number in (0..2_000).step_by(7) {
            assert_eq!(find(&conn, &index, hash(&key_of(number))), [EventSeq(number.cast_signed() + 1)]);
        }
        assert_eq!(faults(&conn, 10).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn unreadable_event_is_not_index_damage() {
    let (conn, index) = filled(2_000);
    let look = |_: &mut Statements<'_>, _| Err::<Option<()>, _>(Error::corrupt("the row"));
    let found = index.find(&mut Statements::new(&conn), hash(&key_of(7)), look);
    assert!(found.unwrap_err().is_damage() && index.damage.get() == Damage::None);
}

/// Parts that a merge cannot read must not make events fail.
#[test]
fn damaged_merge_is_abandoned() {
    let (conn, mut index) = filled(4_000);
    conn.execute("UPDATE dedupe_part SET body = x'00' WHERE id >> 32 = ?1", [index.runs[1].id]).unwrap();
    let mut failed = 0;
    for batch in 40..90_i64 {
        let keys = keys_of(batch);
        if try_append(&conn, &mut index, &keys, batch * 100 + 1, true, EventSeq::default()).is_err() {
            failed += 1;
            append(&conn, &mut index, &keys, batch * 100 + 1, true);
        }
    }
    assert_eq!(failed, 1, "one batch meets it");
    assert!(index.damage.get() == Damage::Read && index.runs.len() > FAN_IN && index.merges.is_empty());
    assert_eq!(find(&conn, &index, hash(&key_of(8_000))), [EventSeq(8_001)]);
    let index = Index::open(&conn, 600).unwrap();
    assert!(index.damage.get() == Damage::None && index.runs.len() <= FAN_IN, "the next start makes it anew");
    assert_eq!(faults(&conn, 10).unwrap(), Vec::<String>::new());
}

/// Pages of the index are overwritten: no existing event is accepted as new, later events are still accepted, and the
/// next start has an intact index.
#[test]
fn damaged_pages_do_not_block_other_events_or_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.db");
    for table in ["dedupe_part", "dedupe_header", "dedupe_run"] {
        for which in ["pageno = (SELECT max(pageno) FROM dbstat WHERE name = ?1)", "path = '/'"] {
            let _ = std::fs::remove_file(&file);
            let conn = Connection::open(&file).unwrap();
            prepare(&conn);
            let mut index = fill(&conn, 6_000);
            let sql = format!("SELECT pgoffset FROM dbstat WHERE name = ?1 AND {which}");
            let at: i64 = conn.query_row(&sql, [table], |row| row.get(0)).unwrap();
            drop(conn);
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[at as usize..][..4096].fill(0xa5);
            std::fs::write(&file, bytes).unwrap();

            let conn = Connection::open(&file).unwrap();
            let (mut refused, mut failed) = (0, 0);
            for number in 0..6_000 {
                match try_find(&conn, &index, hash(&key_of(number))) {
                    Ok(found) => assert_eq!(found, [EventSeq(number.cast_signed() + 1)], "{table} {which}"),
                    Err(error) => refused += u32::from(error.is_damage()),
                }
            }
            assert!(refused < 6_000 || table == "dedupe_part", "{refused}");
            for batch in 60..90_i64 {
                let keys = keys_of(batch);
                while let Err(error) = try_append(&conn, &mut index, &keys, batch * 100 + 1, true, EventSeq::default())
                {
                    assert!(error.is_damage(), "{error}");
                    failed += 1;
                }
            }
            assert!(failed <= 2, "it is met once in reading and once in writing: {failed}");
            let index = Index::open(&conn, 600).unwrap();
            for number in (0..9_000).step_by(17) {
                let found = find(&conn, &index, hash(&key_of(number)));
                assert_eq!(found, [EventSeq(number.cast_signed() + 1)], "{table} {which}");
            }
            assert_eq!(faults(&conn, 10).unwrap(), Vec::<String>::new(), "{table} {which}");
        }
    }
}
