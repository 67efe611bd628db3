//! Migration to encrypted endpoints. Ledgers before schema 13 store endpoint URLs in plain text, in documents and in
//! attempts. When such a ledger is opened, the documents are encrypted and the attempts redacted. Then the file is
//! rewritten, because SQLite leaves overwritten data in free pages and in free parts of pages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use setgate_base::crypto::MasterKey;
use setgate_domain::endpoint::{Destination, EndpointTls};
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::secret::{Sealed, Secret, endpoint_context};

use crate::deliveries::attempts;
use crate::schema::FILE;
use crate::schema::sql_types::params;
use crate::{Error, sync_folder};

/// First schema with encrypted endpoints.
pub(crate) const SCHEMA: i64 = 13;

/// Set until the file has been rewritten, so that a host killed meanwhile does it at its next start.
const MARK: &str = "rewrite";

/// The new file, before it replaces the old one.
const DRAFT: &str = "ledger.db.rewrite";

/// An index for the names of subscriptions, and the rewrite mark, for files that have ever held a document.
pub(crate) const STEP: &str = "
CREATE INDEX entry_name ON entry (tenant, doc ->> '$.name') WHERE kind = 'subscription' AND doc ->> '$.name' IS NOT NULL;
INSERT INTO mark SELECT 'rewrite', 1 WHERE EXISTS (SELECT 1 FROM entry);
";

/// Redacts the URLs in attempts in chunks, each in its own transaction. Idempotent.
pub(crate) fn redact_attempts(conn: &Connection) -> Result<(), Error> {
    let mut after = -1;
    while let Some(last) = attempts::redact_urls(conn, after)? {
        after = last;
        // Keeps the WAL from growing to the size of the whole table.
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    Ok(())
}

/// An endpoint as stored before schema 13.
#[derive(Deserialize)]
struct Before {
    url: String,
    /// From versions that stored header values in plain text.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    tls: EndpointTls,
}

/// Encrypts the endpoints of all subscriptions, within the transaction of the migration step.
pub(crate) fn seal(conn: &Connection, master: Option<&MasterKey>) -> Result<(), Error> {
    let mut statement = conn.prepare(
        "SELECT tenant, id, doc FROM entry WHERE kind = 'subscription' AND doc ->> '$.endpoint.target' IS NULL",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let rows: Vec<(String, String, String)> = rows.collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Ok(());
    }
    let master = master.ok_or(Error::NoMasterKey)?;
    check_key(conn, master)?;
    for (tenant, id, doc) in rows {
        let corrupt = |why: String| Error::corrupt(format!("subscription {tenant}/{id}: {why}"));
        let sealed = sealed_doc(&tenant, &id, &doc, master).map_err(corrupt)?;
        conn.prepare_cached("UPDATE entry SET doc = ?3 WHERE kind = 'subscription' AND tenant = ?1 AND id = ?2")?
            .execute(params![tenant, id, sealed])?;
    }
    Ok(())
}

/// Refuses another key than the ledger's: data encrypted with it would be lost.
fn check_key(conn: &Connection, master: &MasterKey) -> Result<(), Error> {
    let known: Option<Vec<u8>> =
        conn.query_row("SELECT value FROM meta WHERE name = 'master key'", [], |row| row.get(0)).optional()?;
    match known {
        Some(known) if known != master.fingerprint().as_bytes() => Err(Error::OtherMasterKey {
            found: master.fingerprint(),
            needed: String::from_utf8_lossy(&known).into_owned(),
        }),
        _ => Ok(()),
    }
}

/// Encrypts the endpoint of a document and leaves the rest unchanged.
fn sealed_doc(tenant: &str, id: &str, doc: &str, master: &MasterKey) -> Result<String, String> {
    let said = |error: serde_json::Error| error.to_string();
    let tenant: TenantId = tenant.parse().map_err(|error: setgate_domain::id::Error| error.to_string())?;
    let id: SubscriptionId = id.parse().map_err(|error: setgate_domain::id::Error| error.to_string())?;
    let mut members: BTreeMap<&str, Box<RawValue>> = serde_json::from_str(doc).map_err(said)?;
    let endpoint = members.get("endpoint").ok_or("it has no endpoint")?;
    let before: Before = serde_json::from_str(endpoint.get()).map_err(said)?;
    let destination = Destination::parse(&before.url).map_err(|error| error.to_string())?;
    let endpoint = master.seal_destination(&tenant, &id, &destination).with_tls(before.tls);
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    members.insert("endpoint", serde_json::value::to_raw_value(&endpoint).map_err(said)?);
    if !before.headers.is_empty() {
        let mut headers: BTreeMap<String, Sealed> = match members.get("headers") {
            Some(headers) => serde_json::from_str(headers.get()).map_err(said)?,
            None => BTreeMap::new(),
        };
        let context = endpoint_context(&tenant, &id);
        for (name, value) in before.headers {
            headers.entry(name.to_lowercase()).or_insert_with(|| master.seal(&context, &Secret::new(value)));
        }
        members.insert("headers", serde_json::value::to_raw_value(&headers).map_err(said)?);
    }
    serde_json::to_string(&members).map_err(said)
}

/// Whether the file must be rewritten.
pub(crate) fn is_due(conn: &Connection) -> Result<bool, Error> {
    Ok(conn.prepare("SELECT 1 FROM mark WHERE name = ?1")?.exists([MARK])?)
}

/// Copies the content of the file into a new one, which replaces it, and closes the connection. No other connection may
/// be open. If the disk has no space for both files, the host starts with the existing file and tries again at its next
/// start.
pub(crate) fn rewrite(conn: Connection, folder: &Path) -> Result<(), Error> {
    let file = folder.join(FILE);
    let bytes = fs::metadata(&file).map_or(0, |file| file.len());
    tracing::info!(
        bytes,
        "the ledger of an earlier Setgate is written anew without the URLs of endpoints, which may take minutes"
    );
    let draft = folder.join(DRAFT);
    let made = write_draft(&conn, &draft);
    if let Err(error) = made {
        let _ = fs::remove_file(&draft);
        tracing::warn!(
            %error,
            bytes,
            "the ledger could not be written anew: free parts of the file may still hold URLs of endpoints; free as many bytes on \
             its disk and start the host again"
        );
        return Ok(());
    }
    // The WAL holds nothing beyond the new file: it was checkpointed, and nothing has been written since.
    drop(conn);
    let failed = |source| Error::Folder { path: draft.clone(), source };
    for beside in ["ledger.db-wal", "ledger.db-shm"] {
        match fs::remove_file(folder.join(beside)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    fs::rename(&draft, &file).map_err(failed)?;
    sync_folder(folder)
}

fn write_draft(conn: &Connection, draft: &Path) -> Result<(), Error> {
    let failed = |source| Error::Folder { path: draft.to_owned(), source };
    match fs::remove_file(draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // SQLite accepts an existing empty file, which lets us set its mode.
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(failed)?;
    }
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let name = draft.to_str().ok_or_else(|| Error::corrupt("the path of the ledger is not UTF-8"))?;
    conn.execute("VACUUM INTO ?1", [name])?;
    let new = Connection::open(draft)?;
    new.execute("DELETE FROM mark WHERE name = ?1", [MARK])?;
    new.close().map_err(|(_, error)| error)?;
    fs::File::open(draft).and_then(|file| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tests::{NOW, block_on};
    use crate::{Ledger, Options, earlier};
    use setgate_base::clock::Clock;
    use setgate_domain::delivery::DeliverySeq;

    /// Occurs in paths, queries and headers, and must not be in any file after the ledger has been opened.
    const SECRET: &str = "Zq4711Secret0815";

    /// A subscription as stored by schema 12, with a plain-text header of an even older version.
    fn subscription(id: &str) -> String {
        format!(
            r#"{{"id":"{id}","tenant":"acme","description":null,
                "endpoint":{{"url":"https://r.example:8443/services/{SECRET}?token={SECRET}","headers":{{"X-Token":"{SECRET}"}}}},
                "events":["*"],"chain":[{{"filter":"f","config":{{"n":1.50}},"secrets":{{}},"grants":[],"on_fault":"hold"}}],
                "signing":{{"scheme":"standard","keys":[]}},
                "created_at":"2025-07-05T08:45:49.662Z","updated_at":"2025-07-05T08:45:49.662Z"}}"#
        )
    }

    const ID: &str = "sub_01JZCWF9HY0000000000000009";

    fn before(folder: &Path, master: &MasterKey) {
        earlier::write(folder, 12, b"blob");
        let conn = Connection::open(folder.join(FILE)).unwrap();
        let put = "INSERT OR REPLACE INTO entry VALUES ('subscription', 'acme', ?1, 2, ?2)";
        conn.execute(put, (ID, subscription(ID))).unwrap();
        conn.execute("INSERT INTO meta VALUES ('master key', ?1)", [master.fingerprint().as_bytes()]).unwrap();
        let told = format!(
            r#"{{"outcome":{{"kind":"answered","status":200,"body_head":"","retry_after_s":null}},"signed_with":[],"sent":
                {{"url":"https://r.example:8443/services/{SECRET}","headers":[],"body_digest":"sha256:{}","body_bytes":7}},"connection":null}}"#,
            "07".repeat(32)
        );
        conn.execute("UPDATE attempt SET told = ?1 WHERE id = 2097153", [told]).unwrap();
        // The text of these deleted subscriptions remains in free pages.
        for n in 0..200 {
            let id = format!("sub_01JZCWF9HY00000000000{n:05}");
            conn.execute(put, (&id, subscription(&id))).unwrap();
        }
        conn.execute("DELETE FROM entry WHERE kind = 'subscription' AND id <> ?1", [ID]).unwrap();
    }

    /// Files of the ledger that contain the secret.
    fn holding(folder: &Path) -> Vec<String> {
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
        let holds = |file: &fs::DirEntry| {
            fs::read(file.path()).unwrap_or_default().windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes())
        };
        files.filter(holds).map(|file| file.file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn urls_and_headers_of_an_earlier_ledger_are_sealed_and_gone_from_its_files() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let master = Arc::new(MasterKey::generate());
            before(folder.path(), &master);
            assert!(!holding(folder.path()).is_empty());
            let options = Options { gap_ms_min: i64::MAX, master: Some(master.clone()), ..Options::new(folder.path()) };
            for _ in 0..2 {
                let ledger = Ledger::open(options.clone(), Clock::manual(NOW)).unwrap();
                assert_eq!(holding(folder.path()), [""; 0]);
                let snapshot = ledger.snapshot();
                let stored = &snapshot.tenants[&"acme".parse().unwrap()].subscriptions[&ID.parse().unwrap()];
                let subscription = &stored.value;
                assert_eq!(stored.version, 2, "who has read it before may change it");
                let (tenant, id) = (&subscription.tenant, &subscription.id);
                let destination = master.open_destination(tenant, id, &subscription.endpoint).unwrap();
                let url = format!("https://r.example:8443/services/{SECRET}?token={SECRET}");
                assert_eq!(destination.url().as_str(), url);
                let header = master.open(&endpoint_context(tenant, id), &subscription.headers["x-token"]).unwrap();
                assert_eq!(header.expose(), SECRET);
                assert_eq!(subscription.chain[0].config.get(), r#"{"n":1.50}"#);
                let attempts = ledger.attempts(tenant, DeliverySeq(2)).await.unwrap();
                assert_eq!(attempts[0].sent.as_ref().unwrap().url, "https://r.example:8443/***0815");
                ledger.shutdown().await;
            }
            assert_eq!(holding(folder.path()), [""; 0]);
        });
    }

    #[test]
    fn a_ledger_is_sealed_under_its_own_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let master = Arc::new(MasterKey::generate());
        before(folder.path(), &master);
        let open = |master| {
            let options = Options { gap_ms_min: i64::MAX, master, ..Options::new(folder.path()) };
            Ledger::open(options, Clock::manual(NOW)).map(drop)
        };
        assert!(matches!(open(None), Err(Error::NoMasterKey)));
        assert!(matches!(open(Some(Arc::new(MasterKey::generate()))), Err(Error::OtherMasterKey { .. })));
        open(Some(master)).unwrap();
    }

    /// Killed after the migration step, before the file was replaced.
    #[test]
    fn a_file_that_was_not_written_anew_is_written_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let master = Arc::new(MasterKey::generate());
        before(folder.path(), &master);
        let options = Options { gap_ms_min: i64::MAX, master: Some(master), ..Options::new(folder.path()) };
        // A directory in place of the new file makes the rewrite fail, as a full disk would.
        fs::create_dir(folder.path().join(DRAFT)).unwrap();
        Ledger::open(options.clone(), Clock::manual(NOW)).map(drop).unwrap();
        assert_eq!(holding(folder.path()), [FILE]);
        fs::remove_dir(folder.path().join(DRAFT)).unwrap();
        fs::write(folder.path().join(DRAFT), SECRET).unwrap();
        Ledger::open(options, Clock::manual(NOW)).map(drop).unwrap();
        assert_eq!(holding(folder.path()), [""; 0]);
    }
}
