//! Attempts: one row each, written once, by the settlement of its delivery.
//!
//! The row's key combines the delivery and the attempt number in one integer, so that rows are inserted mostly in key
//! order and fill one page after another. An attempt is stored as one JSON document, serialised and compressed before
//! it reaches the writer thread. If the chain passed everything unchanged and was settled together with the first
//! attempt, its filter runs are part of that document, because no later runs can follow. All other filter runs are
//! stored in `filter_output`.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};
use setgate_domain::attempt::{Attempt, Connection as Over, Outcome, SentRequest, SentSet};
use setgate_domain::delivery::{DeliverySeq, Settlement};
use setgate_domain::id::SigningKeyId;
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::FilterRun;

use crate::Error;
use crate::schema::compression;
use crate::schema::sql_types;
use crate::schema::sql_types::{ReadColumn, params};
use crate::schema::statements::Statements;
use crate::state::stored::ATTEMPT_BYTES;

/// Bits of the key for the attempt number: a million attempts per delivery, far more than any schedule makes.
const NUMBER_BITS: u32 = 20;
const NUMBER_MAX: u32 = (1 << NUMBER_BITS) - 1;

/// Compression dictionary of attempt documents. It must never change, because existing rows could not be decompressed
/// with another one. A new dictionary would need a column that names the dictionary of each row.
const DICTIONARY: &str = concat!(
    r#"{"outcome":{"kind":"failed","class":"timeout","detail":"no answer began within 15000 ms"},"signed_with":[],"sent":null,"#,
    r#""connection":null,"runs":[],"fault":{"kind":"},"verdict":"patch","reason":","log":[{"level":"info","text":","#,
    r#""http":"h2","retry_after_s":60,"headers":[["content-type","text/plain; charset=utf-8"],["server",""#,
    r#"{"outcome":{"kind":"answered","status":200,"body_head":"","retry_after_s":null,"headers":[["content-length","0"],["date","Mon, 01 Jan 2026 00:00:00 GMT"]]},"#,
    r#""signed_with":["sig_01"],"sent":{"url":"https://","headers":[["host",""],["user-agent","Setgate/0.1.0"],["content-type","application/json"],"#,
    r#"["webhook-id","dlv_01"],["webhook-timestamp","17"],["webhook-signature","v1,"],["content-length","1"]],"body_digest":"sha256:","body_bytes":1},"#,
    r#""connection":{"http":"http/1.1","peer":"127.0.0.1:443","proxied":false},"runs":[{"filter":"","digest":"sha256:","verdict":"pass","fuel":1,"#,
    r#""memory_bytes":458752,"elapsed_us":1,"engine":"wasmtime 48.0.8 "}]}"#,
);

/// The stored document of an attempt.
#[derive(Serialize)]
struct NewAttemptDoc<'a> {
    outcome: &'a Outcome,
    signed_with: &'a [SigningKeyId],
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<&'a SentSet>,
    sent: Option<&'a SentRequest>,
    connection: Option<&'a Over>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    runs: &'a [FilterRun],
}

impl NewAttemptDoc<'_> {
    fn to_column(&self) -> Result<Value, Error> {
        let plain = serde_json::to_string(self)
            .map_err(|error| Error::corrupt(format!("an attempt cannot be serialised: {error}")))?;
        Ok(compression::compress(plain.as_bytes(), DICTIONARY).map_or(Value::Text(plain), Value::Blob))
    }
}

/// The document as read back.
#[derive(Deserialize)]
struct AttemptDoc {
    outcome: Outcome,
    signed_with: Vec<SigningKeyId>,
    #[serde(default)]
    set: Option<SentSet>,
    sent: Option<SentRequest>,
    connection: Option<Over>,
    #[serde(default)]
    runs: Vec<FilterRun>,
}

/// Number of the attempt that stores the filter runs of a chain that passed.
const FIRST_ATTEMPT: u32 = 1;

/// The row of an attempt, without the delivery's part of its key.
pub(crate) struct AttemptRow {
    doc: Value,
    /// Whether it contains the filter runs of a chain that passed.
    pub(crate) has_runs: bool,
}

impl AttemptRow {
    /// The row for the attempt of a settlement, or `None` if it has no attempt.
    ///
    /// # Errors
    /// If the attempt cannot be serialised, which no known attempt causes.
    pub(crate) fn of(settlement: &Settlement) -> Result<Option<Self>, Error> {
        let Some(attempt) = settlement.step.attempt() else { return Ok(None) };
        let runs = if attempt.number == FIRST_ATTEMPT { settlement.passed.as_slice() } else { &[] };
        let doc = NewAttemptDoc {
            outcome: &attempt.outcome,
            signed_with: &attempt.signed_with,
            set: attempt.set.as_ref(),
            sent: attempt.sent.as_ref(),
            connection: attempt.connection.as_ref(),
            runs,
        };
        Ok(Some(Self { doc: doc.to_column()?, has_runs: !runs.is_empty() }))
    }

    /// Bytes charged for the row.
    pub(crate) fn bytes(&self) -> i64 {
        let doc = match &self.doc {
            Value::Text(text) => text.len(),
            Value::Blob(block) => block.len(),
            _ => 0,
        };
        ATTEMPT_BYTES + i64::try_from(doc).unwrap_or(0)
    }

    /// Inserts the row. Returns false if it already exists.
    pub(crate) fn insert(
        &self,
        statements: &mut Statements<'_>,
        delivery: DeliverySeq,
        attempt: &Attempt,
    ) -> Result<bool, Error> {
        let latency_us = i64::try_from(attempt.latency_us).unwrap_or(i64::MAX);
        let insert =
            statements.get("INSERT OR IGNORE INTO attempt (id, at, latency_us, doc) VALUES (?1, ?2, ?3, ?4)")?;
        let new = insert.execute(params![key(delivery, attempt.number)?, attempt.at, latency_us, self.doc])?;
        Ok(new > 0)
    }
}

/// The attempts of a delivery in order, or only one of them.
pub(crate) fn attempts(conn: &Connection, delivery: DeliverySeq, number: Option<u32>) -> Result<Vec<Attempt>, Error> {
    let (first, last) = number.map_or((0, NUMBER_MAX), |number| (number, number));
    let mut statement =
        conn.prepare_cached("SELECT id, doc, at, latency_us FROM attempt WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
    let mut rows = statement.query([key(delivery, first)?, key(delivery, last)?])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        let AttemptDoc { outcome, signed_with, set, sent, connection, runs: _ } = parse_row(row)?;
        let (at, latency_us): (Timestamp, i64) = (row.column(2)?, row.get(3)?);
        let latency_us = latency_us.cast_unsigned();
        let number = number_of(row)?;
        attempts.push(Attempt { number, at, latency_us, outcome, signed_with, set, sent, connection });
    }
    Ok(attempts)
}

/// The filter runs stored with a delivery's first attempt, if any.
pub(crate) fn runs(conn: &Connection, delivery: DeliverySeq) -> Result<Option<Vec<FilterRun>>, Error> {
    let mut statement = conn.prepare_cached("SELECT id, doc FROM attempt WHERE id = ?1")?;
    let mut rows = statement.query([key(delivery, FIRST_ATTEMPT)?])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let AttemptDoc { runs, .. } = parse_row(row)?;
    Ok((!runs.is_empty()).then_some(runs))
}

/// Descriptions of attempts that cannot be decoded, at most `most`.
pub(crate) fn unreadable(conn: &Connection, most: usize) -> Result<Vec<String>, Error> {
    let name = |key: i64| format!("attempt {} of delivery {}", key & i64::from(NUMBER_MAX), key >> NUMBER_BITS);
    sql_types::unreadable(conn, "SELECT id, doc FROM attempt", parse_row, name, most)
}

pub(crate) fn delete(conn: &Connection, delivery: DeliverySeq) -> Result<(), Error> {
    conn.prepare_cached("DELETE FROM attempt WHERE id BETWEEN ?1 AND ?2")?
        .execute([key(delivery, 0)?, key(delivery, NUMBER_MAX)?])?;
    Ok(())
}

fn key(delivery: DeliverySeq, number: u32) -> Result<i64, Error> {
    let key = delivery.0.checked_mul(1 << NUMBER_BITS).filter(|_| number <= NUMBER_MAX);
    key.map(|key| key | i64::from(number))
        .ok_or_else(|| Error::corrupt(format!("attempt {number} of delivery {} is outside the key range", delivery.0)))
}

fn number_of(row: &Row<'_>) -> Result<u32, Error> {
    let key: i64 = row.get(0)?;
    u32::try_from(key & i64::from(NUMBER_MAX)).map_err(|error| Error::corrupt(error.to_string()))
}

/// Decodes a row that starts with key and document.
fn parse_row(row: &Row<'_>) -> Result<AttemptDoc, Error> {
    let text = match row.get_ref(1)? {
        ValueRef::Blob(block) => compression::decompress(block, DICTIONARY)?,
        plain => plain.as_str().map_err(|error| Error::corrupt(error.to_string()))?.as_bytes().to_vec(),
    };
    serde_json::from_slice(&text).map_err(|error| Error::corrupt(format!("an attempt cannot be decoded: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{NOW, TENANT, attempt, block_on, due_one, open, reopen, run, tenant};
    use setgate_domain::attempt::HttpVersion;
    use setgate_domain::delivery::Step;
    use setgate_domain::id::Digest;

    /// A typical attempt.
    fn usual() -> Attempt {
        let headers = [
            ("host", "receiver.example.com"),
            ("user-agent", "Setgate/0.1.0"),
            ("content-type", "application/json"),
            ("webhook-id", "dlv_01M8CSVQZYGFHPTE8ATKVYJ6AW_01M8CSV673FDE8YAJK3JJB8WB4_0"),
            ("webhook-timestamp", "1795726106"),
            ("webhook-signature", "v1,fnFme9PNYPUklRZXl40GAdWiNDGJy5wVYnhoLYDgHVk="),
            ("content-length", "1112"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let sent = SentRequest {
            url: "https://receiver.example.com/".into(),
            headers,
            body_digest: Digest([7; 32]),
            body_bytes: 9,
        };
        let connection = Over { http: HttpVersion::Http1, peer: Some("192.0.2.7:443".into()), proxied: false };
        Attempt { sent: Some(sent), connection: Some(connection), ..attempt(1, 200) }
    }

    #[test]
    fn typical_attempt_compresses_to_half() {
        let settlement = Settlement {
            passed: vec![run()],
            ..Settlement::new(DeliverySeq(1), NOW, Step::Delivered { attempt: usual() })
        };
        let Value::Blob(block) = AttemptRow::of(&settlement).unwrap().unwrap().doc else { panic!("it is compressed") };
        let plain = compression::decompress(&block, DICTIONARY).unwrap();
        assert!(block.len() * 2 < plain.len(), "{} of {}", block.len(), plain.len());
    }

    #[test]
    fn attempts_and_runs_round_trip() {
        block_on(async {
            let (folder, ledger) = open();
            let due = due_one(&ledger).await;
            let retry = Step::Retry { attempt: attempt(1, 500), due_at: NOW };
            let passed = Settlement { passed: vec![run()], ..Settlement::new(due.seq, NOW, retry) };
            ledger.deliveries.settle(passed).await.unwrap();
            let second = Attempt { number: 2, ..usual() };
            ledger
                .deliveries
                .settle(Settlement::new(due.seq, NOW, Step::Delivered { attempt: second.clone() }))
                .await
                .unwrap();
            let ledger = reopen(&folder, ledger).await;
            assert_eq!(ledger.history.attempts(&tenant().id, due.seq).await.unwrap(), [attempt(1, 500), second]);
            let record = ledger.history.delivery(&TENANT.parse().unwrap(), due.id).await.unwrap().unwrap();
            assert_eq!(record.runs, [run()]);
            assert!(ledger.history.attempts(&tenant().id, DeliverySeq(due.seq.0 + 1)).await.unwrap().is_empty());
        });
    }

    /// The filter runs of a retried chain are replaced once the chain passes, with any attempt.
    #[test]
    fn last_chain_runs_win() {
        for number in [1, 2] {
            block_on(async {
                let (_folder, ledger) = open();
                let due = due_one(&ledger).await;
                let (first, last) = (FilterRun { fuel: 1, ..run() }, FilterRun { fuel: 2, ..run() });
                let again = Step::FilterRetry { runs: vec![first], due_at: NOW };
                ledger.deliveries.settle(Settlement::new(due.seq, NOW, again)).await.unwrap();
                let delivered = Settlement::new(due.seq, NOW, Step::Delivered { attempt: attempt(number, 200) });
                ledger.deliveries.settle(Settlement { passed: vec![last.clone()], ..delivered }).await.unwrap();
                let record = ledger.history.delivery(&TENANT.parse().unwrap(), due.id).await.unwrap().unwrap();
                assert_eq!(record.runs, [last], "attempt {number}");
            });
        }
    }

    #[test]
    fn unreadable_attempt_does_not_hide_delivery() {
        block_on(async {
            let (_folder, ledger) = open();
            let due = due_one(&ledger).await;
            ledger
                .deliveries
                .settle(Settlement::new(due.seq, NOW, Step::Delivered { attempt: usual() }))
                .await
                .unwrap();
            let spoil = "UPDATE attempt SET doc = substr(doc, 1, 20)";
            ledger.store.queue().write(move |batch| Ok(batch.conn.execute(spoil, [])?)).await.unwrap();
            assert!(ledger.history.attempts(&tenant().id, due.seq).await.unwrap_err().is_damage());
            let record = ledger.history.delivery(&TENANT.parse().unwrap(), due.id).await.unwrap().unwrap();
            assert_eq!((record.attempt_count, record.runs.len()), (1, 0));
            let found = ledger.store.readers().read(|conn| unreadable(conn, 9)).await.unwrap();
            assert!(matches!(&found[..], [one] if one.starts_with("attempt 1 of delivery 1: ")), "{found:?}");
        });
    }

    /// Existing rows depend on it: with a single byte changed, none of them could be read.
    #[test]
    fn compression_dictionary_is_unchanged() {
        let digest = hex::encode(setgate_base::crypto::sha256(DICTIONARY.as_bytes()));
        assert_eq!(digest, "41afcf02fbd0bc0718630911760161c0fda16e35d58e4e59b30c88dce52dcab0");
    }

    #[test]
    fn keys_do_not_overlap() {
        assert_eq!(key(DeliverySeq(2), 0).unwrap(), key(DeliverySeq(1), NUMBER_MAX).unwrap() + 1);
        assert!(key(DeliverySeq(1), NUMBER_MAX + 1).is_err() && key(DeliverySeq(i64::MAX), 1).is_err());
    }
}
