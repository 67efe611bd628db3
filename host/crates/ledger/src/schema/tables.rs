//! The tables of schema version 1, and the migration from each version to the next one.
//!
//! `delivery` and `event` are written for every event, so each of their indexes must justify its cost: `event_id` and
//! `delivery_event` grow at their end, the two `_history` indexes append to one page per tenant that is hot anyway, and
//! `delivery_due`, `delivery_rest` and `delivery_order` hold only rows in the states they cover. A filter by type,
//! subject or subscription is a bounded scan instead of an index. Small columns come before large ones, so that a scan
//! never follows overflow pages.

/// Entry `i` migrates a file from version `i` to `i + 1` in one transaction; `user_version` is the number of entries
/// applied. The first entry creates the tables of a new file. A released entry is never changed.
pub(crate) const MIGRATIONS: [&str; 2] = [V1, V2];

macro_rules! dedupe_tables {
    () => {
        "CREATE TABLE dedupe_run (
            id INTEGER PRIMARY KEY,
            level INTEGER NOT NULL,
            last_seq INTEGER NOT NULL,
            entries INTEGER NOT NULL
        );
        CREATE TABLE dedupe_part (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
        CREATE TABLE dedupe_header (id INTEGER PRIMARY KEY, body BLOB NOT NULL);"
    };
}

/// Tables of the dedupe index (`dedupe`), which are created again if the index is rebuilt after damage.
pub(crate) const DEDUPE_TABLES: &str = dedupe_tables!();

const V1: &str = concat!(
    r"
-- Accepted events. `compressed` has a bit for each compressed column (`compression.rs`). `trace` is the trace context, 25
-- bytes and a `tracestate`; null costs one byte at the end of the row.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    tenant TEXT NOT NULL,
    source TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    dedupe_hash INTEGER NOT NULL,
    dedupe_key BLOB NOT NULL,
    dedupe_body BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    issuer TEXT NOT NULL,
    jti TEXT NOT NULL,
    types TEXT NOT NULL,
    subject TEXT,
    content_type TEXT NOT NULL,
    set_text TEXT NOT NULL,
    original BLOB,
    trace BLOB,
    compressed INTEGER NOT NULL
);
CREATE UNIQUE INDEX event_id ON event (id);
CREATE INDEX event_history ON event (tenant, accepted_at);

CREATE TABLE plan (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    refs INTEGER NOT NULL,
    interned_at INTEGER NOT NULL,
    doc TEXT NOT NULL
);

-- `order_key` is null without ordered delivery. `bytes` is the memory that the delivery needs while it is in flight.
CREATE TABLE delivery (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_seq INTEGER NOT NULL,
    event_id BLOB NOT NULL,
    subscription BLOB NOT NULL,
    run INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    state INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    plan INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    attempts_before INTEGER NOT NULL,
    filter_tries INTEGER NOT NULL,
    filtered INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    reason TEXT,
    order_key INTEGER,
    bytes INTEGER NOT NULL
);
CREATE UNIQUE INDEX delivery_event ON delivery (event_seq, subscription, run);
CREATE INDEX delivery_due ON delivery (subscription, due_at) WHERE state = 0;
CREATE INDEX delivery_rest ON delivery (tenant, state, created_at) WHERE state IN (3, 4);
CREATE INDEX delivery_history ON delivery (tenant, created_at);
CREATE INDEX delivery_order ON delivery (subscription, order_key, seq) WHERE order_key IS NOT NULL AND state IN (0, 3);

CREATE TABLE filter_output (
    delivery INTEGER PRIMARY KEY,
    claims TEXT,
    runs TEXT NOT NULL
);

-- One integer key and one document per attempt (`attempts.rs`): a WITHOUT ROWID table would store whole rows in the
-- interior pages of its tree too, with only a few per page.
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    latency_us INTEGER NOT NULL,
    doc NOT NULL
);

CREATE TABLE tally (
    tenant TEXT NOT NULL,
    subscription BLOB NOT NULL,
    due INTEGER NOT NULL,
    delivered INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    held INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    PRIMARY KEY (tenant, subscription)
) WITHOUT ROWID;

-- Failure streaks of subscriptions.
CREATE TABLE failure_streak (subscription BLOB PRIMARY KEY, tenant TEXT NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;

-- Counters per minute and hour. Only the first write of a bucket changes the index; later updates do not.
CREATE TABLE statistic (
    tenant TEXT NOT NULL,
    subscription BLOB NOT NULL,
    bucket_ms INTEGER NOT NULL,
    at INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (tenant, subscription, bucket_ms, at)
) WITHOUT ROWID;
CREATE INDEX statistic_age ON statistic (bucket_ms, at);

CREATE TABLE document (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (kind, tenant, id)
) WITHOUT ROWID;
CREATE INDEX document_name ON document (tenant, doc ->> '$.name') WHERE kind = 'subscription' AND doc ->> '$.name' IS NOT NULL;

-- A blob is charged to the tenant that stored it first. Its bytes are in its parts.
CREATE TABLE blob (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    stored_at INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE blob_part (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    number INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX blob_part_of ON blob_part (digest, number);

-- Bytes stored per tenant, and bytes of unfinished uploads per tenant (`stored.rs`).
CREATE TABLE tenant_usage (tenant TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE upload (
    digest BLOB NOT NULL,
    tenant TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (digest, tenant)
) WITHOUT ROWID;

-- Replays. `at` and `seq` are the position of the last event examined.
CREATE TABLE replay (
    id BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    state INTEGER NOT NULL,
    last INTEGER NOT NULL,
    at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    made INTEGER NOT NULL,
    passed_over INTEGER NOT NULL,
    ended_at INTEGER,
    reason TEXT,
    doc TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX replay_of ON replay (tenant, id);
CREATE INDEX replay_running ON replay (state, id) WHERE state = 0;

-- The audit log. The searchable columns are computed from the document, so the two cannot disagree.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL,
    doc TEXT NOT NULL,
    tenant TEXT AS (doc ->> '$.tenant'),
    action TEXT AS (doc ->> '$.action')
);
CREATE INDEX audit_tenant ON audit (tenant);
CREATE INDEX audit_created ON audit (tenant) WHERE action = 'tenant.create';

-- Requests with an `Idempotency-Key` header (`idempotency.rs`).
CREATE TABLE idempotency (
    id INTEGER PRIMARY KEY,
    claim BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    request BLOB NOT NULL,
    response TEXT
);
CREATE INDEX idempotency_tenant ON idempotency (tenant, bytes);
CREATE INDEX idempotency_at ON idempotency (at);

CREATE TABLE mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO mark VALUES ('cursor', 0), ('revision', 0);

CREATE TABLE purge (tenant TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
",
    dedupe_tables!()
);

const V2: &str = r"
-- Names of tenants that ever had an issuer key, and the number of tenants of that name that had one. A row is never
-- deleted: receivers may still trust the issuer after its tenant was removed.
CREATE TABLE issuer_name (tenant TEXT PRIMARY KEY, issuers INTEGER NOT NULL) WITHOUT ROWID;

-- The signed SET of a delivery, so that each of its attempts sends the same bytes. `kid` is the issuer key that signed it.
CREATE TABLE signed_set (
    delivery INTEGER PRIMARY KEY,
    kid TEXT NOT NULL,
    jti TEXT NOT NULL,
    token TEXT NOT NULL
);
CREATE INDEX signed_set_key ON signed_set (kid);
";
