//! Ledgers as earlier versions wrote them, opened by this one: a test for each schema that a file may have. What stands
//! here in SQL is not to be made of today's code, or it would change with it. A new schema adds what only it could write.

use std::path::Path;

use bytes::Bytes;
use rusqlite::Connection;

use super::schema::{FILE, MIGRATIONS};
use super::tests::{NOW, TENANT, attempt, block_on, event};
use super::{Appended, FanOut, Ledger, Options, inspect};
use crate::clock::Clock;
use crate::crypto::sha256;
use crate::domain::attempt::{HttpVersion, Outcome};
use crate::domain::delivery::{DeliverySeq, Settlement, State, Step};
use crate::domain::event::EventSeq;
use crate::domain::id::{DeliveryId, Digest, EventId, SubscriptionId};

/// What every schema can hold: a tenant; three events, of which two are fanned out: one delivered, one dead and due
/// once more; a plan; a filter's component, whole in its row.
const ROWS: &str = r#"
INSERT INTO entry VALUES ('tenant', 'acme', 'acme', 1,
    '{"id":"acme","created_at":"2025-07-05T08:45:49.662Z"}');
INSERT INTO event (seq, id, tenant, source, accepted_at, dedupe_hash, dedupe_key, dedupe_body, issued_at, issuer, jti,
    types, subject, content_type, set_text, original)
VALUES
    (1, x'0197D9C7A63E00000000000000000001', 'acme', 'idp', 1751705149662, 0,
     x'0000000000000000000000000000000000000000000000000000000000000001',
     x'0101010101010101010101010101010101010101010101010101010101010101', 1751705149, 'https://idp.example', '1',
     '["https://e/1"]', 'user-1', 'application/json', '{"jti":"1"}', CAST('original 1' AS BLOB)),
    (2, x'0197D9C7A63E00000000000000000002', 'acme', 'idp', 1751705149662, 0,
     x'0000000000000000000000000000000000000000000000000000000000000002',
     x'0101010101010101010101010101010101010101010101010101010101010101', 1751705149, 'https://idp.example', '2',
     '["https://e/2"]', NULL, 'application/json', '{"jti":"2"}', NULL),
    (3, x'0197D9C7A63E00000000000000000003', 'acme', 'idp', 1751705149662, 0,
     x'0000000000000000000000000000000000000000000000000000000000000003',
     x'0101010101010101010101010101010101010101010101010101010101010101', 1751705149, 'https://idp.example', '3',
     '["https://e/3"]', 'user-3', 'application/json', '{"jti":"3"}', NULL);
INSERT INTO plan VALUES (1, x'0707070707070707070707070707070707070707070707070707070707070707', 3, 1751705149662,
    '{"steps":[],"tables":{}}');
INSERT INTO delivery (seq, event_seq, event_id, subscription, run, tenant, state, due_at, plan, attempts,
    attempts_before, filter_tries, filtered, created_at, updated_at, reason)
VALUES
    (1, 1, x'0197D9C7A63E00000000000000000001', x'0197D9C7A63E00000000000000000009', 0, 'acme', 1, 1751705149662, 1, 1,
     0, 0, 1, 1751705149662, 1751705149662, NULL),
    (2, 1, x'0197D9C7A63E00000000000000000001', x'0197D9C7A63E00000000000000000009', 1, 'acme', 4, 1751705149662, 1, 1,
     0, 0, 1, 1751705149662, 1751705149662, 'given up after 1 attempts'),
    (3, 2, x'0197D9C7A63E00000000000000000002', x'0197D9C7A63E00000000000000000009', 0, 'acme', 0, 1751705149662, 1, 1,
     0, 0, 1, 1751705149662, 1751705149662, NULL);
INSERT INTO filtered VALUES (3, '{"after":2}', '[]');
INSERT INTO tally VALUES ('acme', x'0197D9C7A63E00000000000000000009', 1, 1, 0, 0, 1);
UPDATE mark SET value = 2 WHERE name = 'cursor';
UPDATE mark SET value = 1 WHERE name = 'revision';
INSERT INTO meta VALUES ('kept', x'01');
"#;

/// The attempts of those deliveries, up to schema 9.
const ATTEMPTS: &str = r#"
INSERT INTO attempt (delivery, number, at, latency_us, outcome, signed_with) VALUES
    (1, 1, 1751705149662, 1500, '{"kind":"answered","status":200,"body_head":"said"}', '[]'),
    (2, 1, 1751705149662, 1500, '{"kind":"answered","status":500,"body_head":"said"}', '[]'),
    (3, 1, 1751705149662, 1500, '{"kind":"answered","status":500,"body_head":"said"}', '[]');
"#;

/// What one of them sent, and over what, from schema 4 to 9.
const SENT: &str = r#"
UPDATE attempt SET connection = '{"http":"h2","peer":"192.0.2.7:443","proxied":false}',
    sent = '{"url":"https://r.example/","headers":[],"body_digest":"sha256:0707070707070707070707070707070707070707070707070707070707070707","body_bytes":7}'
WHERE delivery = 2;
"#;

/// The same since.
const ATTEMPTS_BY_KEY: &str = r#"
INSERT INTO attempt VALUES
    (1048577, 1751705149662, 1500, '{"outcome":{"kind":"answered","status":200,"body_head":"said"},"signed_with":[]}'),
    (2097153, 1751705149662, 1500, '{"outcome":{"kind":"answered","status":500,"body_head":"said"},"signed_with":[]}'),
    (3145729, 1751705149662, 1500, '{"outcome":{"kind":"answered","status":500,"body_head":"said"},"signed_with":[]}');
"#;

/// Makes a file of the given schema with [`ROWS`], and a blob as that schema kept it.
pub(super) fn write(folder: &Path, schema: usize, blob: &[u8]) {
    let conn = Connection::open(folder.join(FILE)).unwrap();
    conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL").unwrap();
    for step in &MIGRATIONS[..schema] {
        conn.execute_batch(step).unwrap();
    }
    conn.execute_batch(ROWS).unwrap();
    conn.execute_batch(if schema < 10 { ATTEMPTS } else { ATTEMPTS_BY_KEY }).unwrap();
    if (4..10).contains(&schema) {
        conn.execute_batch(SENT).unwrap();
    }
    let digest = sha256(blob);
    let put = |body: &[u8]| {
        conn.execute("INSERT INTO blob (digest, put_at, body) VALUES (?1, 1751705149662, ?2)", (digest, body)).unwrap();
    };
    if schema == 1 {
        put(blob);
    } else {
        for (number, part) in (0_i64..).zip(blob.chunks(1000)) {
            let part = (digest, number, part);
            conn.execute(
                "INSERT INTO blob_part (digest, number, put_at, body) VALUES (?1, ?2, 1751705149662, ?3)",
                part,
            )
            .unwrap();
        }
        put(b"");
    }
    conn.execute_batch(&format!("PRAGMA user_version = {schema}")).unwrap();
}

#[test]
fn a_ledger_of_each_earlier_schema_is_gone_on_with() {
    for schema in 1..=MIGRATIONS.len() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let blob = vec![b'w'; 2_500];
            write(folder.path(), schema, &blob);
            // Twice: what was brought up to date opens as any other.
            for round in 0..2 {
                let options = Options { gap_ms_min: i64::MAX, ..Options::new(folder.path()) };
                let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
                go_on(&ledger, round, &blob).await;
                let attempts = ledger.attempts(DeliverySeq(2)).await.unwrap();
                let (sent, connection) = (&attempts[0].sent, &attempts[0].connection);
                let was_kept = (4..10).contains(&schema);
                assert_eq!(sent.as_ref().map(|sent| sent.body_bytes), was_kept.then_some(7));
                assert_eq!(connection.as_ref().is_some_and(|over| over.http == HttpVersion::Http2), was_kept);
                ledger.shutdown().await;
            }
        });
    }
}

/// Killed while attempts were copied, and a host of the earlier schema that wrote in between.
#[test]
fn a_copy_of_attempts_that_was_broken_off_is_gone_on_with() {
    let by_key = "CREATE TABLE attempt_by_key (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, latency_us INTEGER NOT NULL, told NOT NULL);";
    let told = r#"'{"outcome":{"kind":"answered","status":200,"body_head":""},"signed_with":[]}'"#;
    for copied in [1_048_577, 3_145_729] {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), 9, b"blob");
            let conn = Connection::open(folder.path().join(FILE)).unwrap();
            conn.execute_batch(&format!("{by_key} INSERT INTO attempt_by_key VALUES ({copied}, 0, 0, {told})"))
                .unwrap();
            drop(conn);
            let options = Options { gap_ms_min: i64::MAX, ..Options::new(folder.path()) };
            let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
            for (delivery, count) in [(1, 1), (2, 1), (3, 1), (4, 0)] {
                assert_eq!(
                    ledger.attempts(DeliverySeq(delivery)).await.unwrap().len(),
                    count,
                    "{delivery} of {copied}"
                );
            }
        });
    }
}

/// The index of dedupe keys is made of the events that are there, over several of its pages.
#[test]
fn dedupe_keys_of_an_earlier_schema_are_known() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 10, b"blob");
        let conn = Connection::open(folder.path().join(FILE)).unwrap();
        let key = |n: u64| sha256(&n.to_be_bytes());
        for n in 4..1_000_u64 {
            let hash = i64::from_be_bytes(key(n)[..8].try_into().unwrap());
            conn.execute(
                "INSERT INTO event (id, tenant, source, accepted_at, dedupe_hash, dedupe_key, dedupe_body, issued_at, issuer,
                     jti, types, subject, content_type, set_text, original)
                 SELECT ?1, tenant, source, accepted_at, ?2, ?3, dedupe_body, issued_at, issuer, jti, types, subject,
                     content_type, set_text, original FROM event WHERE seq = 3",
                (event(n).id.to_bytes(), hash, key(n)),
            )
            .unwrap();
        }
        drop(conn);
        let options = Options { gap_ms_min: i64::MAX, ..Options::new(folder.path()) };
        let ledger = Ledger::open(options, Clock::manual(NOW)).unwrap();
        for n in (4..1_000).step_by(13) {
            let mut copy = event(5_000 + n);
            copy.dedupe.key = key(n);
            assert_eq!(ledger.append(copy).await.unwrap(), Appended::Duplicate { id: event(n).id });
        }
        ledger.shutdown().await;
        let found = inspect(folder.path()).unwrap();
        let faults = found.checks.iter().find(|check| check.name == "dedupe").map(|check| check.faults);
        assert_eq!(faults, Some(0));
    });
}

async fn go_on(ledger: &Ledger, round: u64, blob: &[u8]) {
    let tenant = TENANT.parse().unwrap();
    let subscription = SubscriptionId::from_bytes(0x0197_D9C7_A63E_0000_0000_0000_0000_0009_u128.to_be_bytes());
    let id = |n: u128| EventId::from_bytes((0x0197_D9C7_A63E_0000_0000_0000_0000_0000_u128 + n).to_be_bytes());
    let digest = Digest(sha256(blob));
    assert_eq!(ledger.blob(&digest).await.unwrap(), Some(Bytes::from(blob.to_vec())));
    assert_eq!(ledger.meta_get("kept").await.unwrap(), Some(vec![1]));
    let first = ledger.event(&tenant, id(1)).await.unwrap().unwrap();
    assert_eq!((&first.original[..], first.subject.as_deref()), (&b"original 1"[..], Some("user-1")));
    assert_eq!(first.trace, None);
    // A second copy is known, and a new event is taken.
    assert_eq!(ledger.append(event(1)).await.unwrap(), Appended::Duplicate { id: id(1) });
    let new = ledger.append(event(10 + round)).await.unwrap();
    assert_eq!(new, Appended::New(EventSeq(4 + round.cast_signed())));
    let dead = DeliveryId { event: id(1), subscription, run: 1 };
    assert_eq!(ledger.delivery(&tenant, dead).await.unwrap().unwrap().state, State::Dead);
    let attempts = ledger.attempts(DeliverySeq(2)).await.unwrap();
    let Outcome::Answered { status, body_head, .. } = &attempts[0].outcome else { panic!("{attempts:?}") };
    assert_eq!((attempts.len(), attempts[0].number, attempts[0].latency_us), (1, 1, 1500));
    assert_eq!((*status, body_head.as_str(), attempts[0].at), (500, "said", NOW));
    if round > 0 {
        assert_eq!(ledger.backlog(&tenant), 0);
        return;
    }
    // What was due is still due, with its bytes, and comes to its end; what was not fanned out is.
    let due = ledger.due(subscription, NOW, None, 9).await.unwrap();
    assert_eq!((due.len(), due[0].attempts, due[0].filtered, ledger.backlog(&tenant)), (1, 1, true, 1));
    assert_eq!(ledger.load(due[0].seq).await.unwrap().unwrap().claims.as_deref(), Some("{\"after\":2}"));
    assert!(ledger.plan(&due[0].plan).await.unwrap().is_some());
    let step = Step::Delivered { attempt: attempt(2, 200) };
    ledger.settle(Settlement::new(due[0].seq, NOW, step)).await.unwrap();
    assert_eq!(ledger.cursor(), EventSeq(2));
    let behind = ledger.journal_after(EventSeq(2), 1).await.unwrap();
    assert_eq!(behind[0].id, id(3));
    ledger.fan_out(FanOut { through: EventSeq(4), deliveries: vec![] }).await.unwrap();
}
