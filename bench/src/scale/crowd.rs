//! Many tenants of one host, each with a source, a subscription and a filter that no other has.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use setgate_tests::{Host, Seed, Source, Subscription, Tenant, place, until};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::host;
use crate::load::Receiver;

/// The filter of every chain: it looks at the type and passes what it gets.
const FILTER: &str = "drop-by-type";
/// Tenants set up at once.
const AT_ONCE: usize = 4;

/// One of them.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) tenant: Tenant,
    pub(super) source: Source,
    pub(super) subscription: Arc<Subscription>,
}

/// The host with all of them.
pub(super) struct Crowd {
    pub(super) host: Host,
    wasm: Vec<u8>,
    members: Vec<Member>,
}

impl Crowd {
    pub(super) fn new(host: Host) -> Self {
        Self { host, wasm: place::filter(FILTER), members: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Sets tenants up until there are so many.
    pub(super) async fn grow(&mut self, size: usize, receiver: &Receiver) -> anyhow::Result<()> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut setting_up = JoinSet::new();
        for number in self.len()..size {
            let tenant = self.host.tenant(&format!("bench-{number:05}")).await;
            let (wasm, url, turns) = (distinct(&self.wasm, number), receiver.url(), turns.clone());
            setting_up.spawn(async move {
                let _turn = turns.acquire().await?;
                set_up(tenant, wasm, &url).await
            });
        }
        while let Some(member) = setting_up.join_next().await {
            self.members.push(member??);
        }
        Ok(())
    }

    /// Stops the host and starts it again; gives what that took until it listened. Returns when the host has looked over its
    /// ledger, which it does after that: only then it is at rest.
    pub(super) async fn restart(&mut self) -> anyhow::Result<Duration> {
        let ended = self.host.terminate().await;
        ensure!(ended.success(), "the host ended with {ended}:\n{}", self.host.log());
        let logged = self.host.logged();
        let took = host::start(&mut self.host).await?;
        until("the host has looked over its ledger", async || self.host.last_logged(logged, &["looked over"])).await;
        Ok(took)
    }
}

async fn set_up(tenant: Tenant, wasm: Vec<u8>, url: &str) -> anyhow::Result<Member> {
    let taken = tenant.upload(FILTER, wasm).await;
    let (name, status) = (&tenant.name, taken.status);
    ensure!(matches!(status, 200 | 201), "the filter of {name} was answered {status}: {}", taken.text());
    let source = tenant.source("idp", Seed::Wso2).await;
    let chain = json!([{"filter": FILTER, "config": {"drop": ["nothing"]}}]);
    let subscription = tenant.subscribe_url(url).chain(chain).create().await;
    Ok(Member { tenant, source, subscription: Arc::new(subscription) })
}

/// The same component under another digest: with a custom section behind it, which nobody reads.
fn distinct(wasm: &[u8], number: usize) -> Vec<u8> {
    let name = b"bench";
    let number = u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let size = 1 + name.len() + number.len();
    let mut distinct = wasm.to_vec();
    // Section 0; its size and that of its name each fit a byte of LEB128.
    distinct.extend([0, u8::try_from(size).unwrap_or(0), u8::try_from(name.len()).unwrap_or(0)]);
    distinct.extend(name);
    distinct.extend(number);
    distinct
}
