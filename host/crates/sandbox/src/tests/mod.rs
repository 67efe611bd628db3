//! Tests the guarantees of the sandbox with guests that try to break them.

mod code_cache;
mod compiling;
mod denied;
mod determinism;
mod fairness;
mod guests;
mod interference;
mod placement;
mod reuse;
mod running;
mod upload;

use std::path::PathBuf;
use std::time::Duration;

use super::*;

/// A sandbox with its own directory, and a call for one tenant.
struct Fixture {
    sandbox: Sandbox,
    quota: Quota,
    dir: tempfile::TempDir,
}

const ACCEPTED_AT: Timestamp = Timestamp::from_millis(1_751_705_149_662);

impl Fixture {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(set: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options =
            Options::new(dir.path().join("cache"), [7; 32], Arc::new(|_, _| Box::pin(std::future::ready(None))));
        options.instances_max = 8;
        options.instances_per_tenant_max = 8;
        options.concurrent_slices_max = 2;
        options.guest_threads = 2;
        set(&mut options);
        Self { sandbox: Sandbox::new(options).unwrap(), quota: Quota::default(), dir }
    }

    async fn upload(&self, wasm: Bytes) -> Result<CompiledFilter, UploadError> {
        self.sandbox.compile(&"acme".parse().unwrap(), wasm, &self.quota).await
    }

    /// Uploads a filter and calls it once.
    async fn run(&self, wasm: Bytes) -> CallResult {
        let digest = self.upload(wasm).await.unwrap().digest;
        self.sandbox.run(self.call(digest)).await
    }

    async fn fault(&self, wasm: Bytes) -> Fault {
        self.run(wasm).await.verdict.unwrap_err()
    }

    fn call(&self, digest: Digest) -> Call {
        let event = EventId::new(ACCEPTED_AT, 1);
        let subscription = SubscriptionId::new(ACCEPTED_AT, 2);
        Call {
            digest,
            filter: "redact".parse().unwrap(),
            event: EventView {
                id: event,
                issuer: "https://idp.example".into(),
                issued_at: ACCEPTED_AT.as_seconds(),
                accepted_at: ACCEPTED_AT,
                types: vec!["https://schemas.openid.net/secevent/caep/event-type/session-revoked".into()],
                subject: Some("u-1".into()),
                tenant: "acme".parse().unwrap(),
                source: "idp".parse().unwrap(),
                subscription,
                delivery: DeliveryId { event, subscription, run: 0 },
                claims: r#"{"iss":"https://idp.example"}"#.into(),
            },
            config: r#"{"limit":3}"#.into(),
            secrets: BTreeMap::new(),
            grants: Grant::ALL.into(),
            tables: Arc::new(MemoryTables::default()),
            quota: self.quota.clone(),
            reuse: None,
        }
    }
}

/// The function named in a fault.
fn own(name: &str) -> Option<String> {
    Some(name.to_owned())
}
