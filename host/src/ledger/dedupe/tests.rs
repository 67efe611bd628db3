//! The index held against a plain set, through rolled back transactions, restarts and deletions.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rusqlite::StatementStatus;

use super::run::{PART_ENTRIES, SELECT_PART};
use super::*;
use crate::crypto::sha256;

/// A file with as much of the journal as the index looks at.
fn file() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(schema::DEDUPE_TABLES).unwrap();
    conn.execute_batch("CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID").unwrap();
    conn.execute_batch("CREATE TABLE event (seq INTEGER PRIMARY KEY, dedupe_hash INTEGER, dedupe_key BLOB)").unwrap();
    conn
}

fn key_of(number: u64) -> [u8; 32] {
    sha256(&number.to_be_bytes())
}

/// Appends events with these keys in a transaction that is kept or rolled back.
fn append(conn: &Connection, index: &mut Index, keys: &[[u8; 32]], first: i64, keep: bool) {
    conn.execute_batch("BEGIN").unwrap();
    let mut fresh = Vec::new();
    for (key, seq) in keys.iter().zip(first..) {
        let entry = Entry { hash: hash(key), seq: EventSeq(seq) };
        conn.prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3)").unwrap().execute((seq, entry.hash, key)).unwrap();
        fresh.push(entry);
    }
    index.keep_up(conn, fresh).unwrap();
    if keep {
        conn.execute_batch("COMMIT").unwrap();
        index.committed();
    } else {
        conn.execute_batch("ROLLBACK").unwrap();
        index.rolled_back();
    }
}

fn find(conn: &Connection, index: &Index, hash: i64) -> Vec<EventSeq> {
    index.find(&mut Statements::new(conn), hash).unwrap()
}

#[derive(Debug, Clone)]
enum Op {
    Append {
        keys: Vec<u64>,
        keep: bool,
    },
    /// Of the oldest events, that many.
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
    fn what_is_there_is_found_whatever_happens(ops in prop::collection::vec(op(), 1..200)) {
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
                // What it knew is gone, as in a crash: nothing of it may be needed.
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
        prop_assert_eq!(missing(&conn, 10).unwrap(), Vec::<String>::new());
        prop_assert_eq!(of_no_use(&conn, &index), 0);
    }
}

/// Rows of runs that are neither in use nor to be swept.
fn of_no_use(conn: &Connection, index: &Index) -> usize {
    let known = index
        .runs
        .iter()
        .map(|run| run.id)
        .chain(index.merges.iter().map(Merge::id))
        .chain(index.unused.iter().copied());
    let known: BTreeSet<_> = known.collect();
    let mut statement =
        conn.prepare("SELECT id >> 32 FROM dedupe_part UNION SELECT id >> 32 FROM dedupe_head").unwrap();
    let there = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    there.filter(|run| !known.contains(run.as_ref().unwrap())).count()
}

/// Enough for runs of several parts and rows of heads, on three levels.
fn filled(events: u64) -> (Connection, Index) {
    let conn = file();
    let mut index = Index::open(&conn, 600).unwrap();
    let keys: Vec<_> = (0..events).map(key_of).collect();
    for (batch, keys) in keys.chunks(100).enumerate() {
        append(&conn, &mut index, keys, batch as i64 * 100 + 1, true);
    }
    (conn, index)
}

#[test]
fn few_runs_hold_many_events_and_a_look_reads_the_file_where_there_is_something_to_find() {
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
    // One look of 120 in each run.
    assert!(usize::try_from(in_vain).unwrap() < 10_000 * levels.len() / 60, "{in_vain} of 10,000 in {levels:?}");
    let per_event = index.bytes() as f64 / 45_000.0;
    assert!(per_event < 2.0, "{per_event}");
    assert_eq!(missing(&conn, 10).unwrap(), Vec::<String>::new());
    assert_eq!(of_no_use(&conn, &index), 0);
}

#[test]
fn an_index_made_of_events_finds_what_one_that_grew_does() {
    let (conn, grown) = filled(5_000);
    conn.execute_batch("BEGIN").unwrap();
    build(&conn, 600).unwrap();
    conn.execute_batch("COMMIT").unwrap();
    let built = Index::load(&conn, 600).unwrap();
    assert_eq!(built.runs.iter().map(|run| (run.level, run.entries)).collect::<Vec<_>>(), [(1, 5_000)]);
    assert!(built.recent.is_empty() && built.unused.is_empty());
    for number in (0..5_000).step_by(11) {
        let hash = hash(&key_of(number));
        assert_eq!(find(&conn, &built, hash), [EventSeq(number.cast_signed() + 1)]);
    }
    assert!(grown.next_run > built.next_run);
    assert_eq!(missing(&conn, 10).unwrap(), Vec::<String>::new());
}

/// As many events as fill parts, all with hashes alike: they are found across the parts.
#[test]
fn keys_whose_hashes_are_alike_are_all_found() {
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
fn entries_of_deleted_events_go_with_their_runs_and_with_merges() {
    let (conn, mut index) = filled(3_000);
    conn.execute("DELETE FROM event WHERE seq <= 2900", []).unwrap();
    for batch in 0..60_i64 {
        let keys: Vec<_> = (0..100).map(|n| key_of(100_000 + batch.cast_unsigned() * 100 + n)).collect();
        append(&conn, &mut index, &keys, 3_001 + batch * 100, true);
    }
    let held = index.runs.iter().map(|run| run.entries).sum::<i64>() + index.recent.len() as i64;
    assert!((6_100..6_700).contains(&held), "{held}");
    assert_eq!(find(&conn, &index, hash(&key_of(1))), []);
    let pages: i64 = conn.query_row("SELECT count(*) FROM dedupe_part", [], |row| row.get(0)).unwrap();
    assert!(pages < 3 * held / PART_ENTRIES as i64, "{pages}: what is not used is swept");
}

#[test]
fn damage_is_found_and_an_index_without_its_heads_is_made_anew() {
    let (conn, index) = filled(2_000);
    let run = index.runs[0].id;
    conn.execute("DELETE FROM dedupe_head WHERE id >> 32 = ?1", [run]).unwrap();
    assert!(Index::load(&conn, 600).err().unwrap().is_damage());
    let index = Index::open(&conn, 600).unwrap();
    assert_eq!(find(&conn, &index, hash(&key_of(1_500))), [EventSeq(1_501)]);
    assert_eq!(missing(&conn, 10).unwrap(), Vec::<String>::new());

    conn.execute("DELETE FROM dedupe_part WHERE id = (SELECT min(id) FROM dedupe_part)", []).unwrap();
    let faults = missing(&conn, 3).unwrap();
    assert!(faults[0].contains("is not there"), "{faults:?}");
    let event = (0..2_000).find(|n| index.find(&mut Statements::new(&conn), hash(&key_of(*n))).is_err());
    let event = event.expect("a look that cannot be had is an error, and not a new event");
    // It is remembered, whatever comes next.
    let mut index = index;
    conn.execute_batch("BEGIN").unwrap();
    index.keep_up(&conn, Vec::new()).unwrap();
    conn.execute_batch("COMMIT").unwrap();
    index.committed();
    let index = Index::open(&conn, 600).unwrap();
    assert_eq!(find(&conn, &index, hash(&key_of(event))), [EventSeq(event.cast_signed() + 1)]);
    assert_eq!(missing(&conn, 10).unwrap(), Vec::<String>::new());
}

/// A part that merging cannot read is no reason to refuse events.
#[test]
fn merging_that_meets_damage_is_left_alone() {
    let (conn, mut index) = filled(4_000);
    conn.execute("UPDATE dedupe_part SET body = x'00' WHERE id >> 32 = ?1", [index.runs[1].id]).unwrap();
    for batch in 40..90_i64 {
        let keys: Vec<_> = (0..100).map(|n| key_of(batch.cast_unsigned() * 100 + n)).collect();
        append(&conn, &mut index, &keys, batch * 100 + 1, true);
    }
    assert!(index.damaged.get() && index.runs.len() > FAN_IN && index.merges.is_empty());
    assert_eq!(find(&conn, &index, hash(&key_of(8_000))), [EventSeq(8_001)]);
    assert_eq!(of_no_use(&conn, &index), 0);
    let index = Index::open(&conn, 600).unwrap();
    assert!(!index.damaged.get() && index.runs.len() == 1, "the next start makes it anew");
}
