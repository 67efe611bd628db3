//! Many tenants of one host, each with a source, a subscription and a filter that no other has.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use setgate_tests::{Client, Host, Seed, Source, Subscription, Tenant, place, until};
use tokio::task::JoinSet;

use super::kept::{self, Line, List};
use crate::host;
use crate::load::Receiver;

/// The filter of every chain: it looks at the type and passes what it gets.
const FILTER: &str = "drop-by-type";
/// What all sources are of.
const SEED: Seed = Seed::Wso2;
/// Tenants set up at once.
const AT_ONCE: usize = 4;
/// Tenants after which it is told how far a long set-up is.
const TOLD_EVERY: usize = 500;
/// Room on disk for the machine code of all, which the default has not.
const CONFIG: &str = "[sandbox]\ncache_bytes_max = 34359738368";

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
    /// Where members are noted for the next run; none: they go with this one.
    kept: Option<List>,
}

impl Crowd {
    /// Nobody yet, in a folder that goes with it.
    pub(super) async fn temporary() -> Self {
        let host = Host::with().config(CONFIG).start().await;
        Self { host, wasm: place::filter(FILTER), members: Vec::new(), kept: None }
    }

    /// Those that runs before this one have kept, as many as they are; what is set up from here on is kept as well.
    pub(super) async fn kept() -> anyhow::Result<Self> {
        let wasm = place::filter(FILTER);
        let folder = kept::folder(&wasm)?;
        let (list, lines) = List::open(&folder)?;
        let told = format!("the crowd that is kept in {}", folder.display());
        eprintln!("  {told}: {} tenants", lines.len());
        let host = start_in(folder)
            .await
            .with_context(|| format!("{told}: end the host that still runs there, or remove it"))?;
        let members = lines.iter().map(|line| known(line, host.operator())).collect();
        Ok(Self { host, wasm, members, kept: Some(list) })
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Sets tenants up until there are so many.
    pub(super) async fn grow(&mut self, size: usize, receiver: &Receiver) -> anyhow::Result<()> {
        let there: HashSet<String> = self.members.iter().map(|member| member.tenant.name.clone()).collect();
        let mut setting_up = JoinSet::new();
        for number in 0..size {
            let name = format!("bench-{number:05}");
            if there.contains(&name) {
                continue;
            }
            if setting_up.len() >= AT_ONCE {
                self.take(&mut setting_up, size).await?;
            }
            if self.kept.is_some() {
                remove(self.host.operator(), &name).await?;
            }
            let tenant = self.host.tenant(&name).await;
            setting_up.spawn(set_up(tenant, distinct(&self.wasm, number), receiver.url()));
        }
        while !setting_up.is_empty() {
            self.take(&mut setting_up, size).await?;
        }
        Ok(())
    }

    /// Waits for the next one that is complete.
    async fn take(&mut self, setting_up: &mut JoinSet<anyhow::Result<Member>>, size: usize) -> anyhow::Result<()> {
        let Some(member) = setting_up.join_next().await else { return Ok(()) };
        let member = member??;
        if let Some(list) = &mut self.kept {
            list.add(&line(&member))?;
        }
        self.members.push(member);
        if self.members.len().is_multiple_of(TOLD_EVERY) {
            eprintln!("  {} of {size} tenants are set up", self.members.len());
        }
        Ok(())
    }

    /// Brings a crowd that is kept to where one is that was just set up: deliveries of the first `active` go to this receiver,
    /// wherever they went in another run, and the machine code is in the system's cache.
    pub(super) async fn adopt(&self, active: usize, receiver: &Receiver) -> anyhow::Result<()> {
        if self.kept.is_none() {
            return Ok(());
        }
        tokio::task::block_in_place(|| kept::read_compiled(&self.host.data()))?;
        for member in self.members.iter().take(active) {
            let asked = member.tenant.subscribe_url(&receiver.url()).chain(chain());
            // A run that was broken off may have left deliveries that failed for so long that the host gave up.
            if !asked.replace(&member.subscription).await["paused"].is_null() {
                member.subscription.resume().await;
            }
        }
        Ok(())
    }

    /// Stops the host as an operator would.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let ended = self.host.terminate().await;
        ensure!(ended.success(), "the host ended with {ended}:\n{}", self.host.log());
        Ok(())
    }

    /// Stops the host and starts it again; gives what that took until it listened. Returns when the host has looked over its
    /// ledger, which it does after that: only then it is at rest.
    pub(super) async fn restart(&mut self) -> anyhow::Result<Duration> {
        self.stop().await?;
        let logged = self.host.logged();
        let took = host::start(&mut self.host).await?;
        until("the host has looked over its ledger", async || self.host.last_logged(logged, &["looked over"])).await;
        Ok(took)
    }
}

/// A host in a folder that stays, whether it lives there already or not.
async fn start_in(folder: PathBuf) -> anyhow::Result<Host> {
    let mut host = Host::with().config(CONFIG).in_folder(folder).prepare();
    host::start(&mut host).await?;
    host.take_operator_key();
    Ok(host)
}

/// A member that a run before this one has set up.
fn known(line: &Line, operator: &Client) -> Member {
    let tenant = Tenant::new(&line.tenant, &line.key, operator);
    let source = tenant.known_source(&line.ingest_path, SEED);
    let subscription = Arc::new(tenant.known_subscription(&line.subscription, &line.secret));
    Member { tenant, source, subscription }
}

fn line(member: &Member) -> Line {
    let Member { tenant, source, subscription } = member;
    Line {
        tenant: tenant.name.clone(),
        key: tenant.key.clone(),
        ingest_path: source.path.clone(),
        subscription: subscription.id.clone(),
        secret: subscription.secret.clone(),
    }
}

/// Removes what a run before this one was setting up when it was broken off, where there is something.
async fn remove(operator: &Client, tenant: &str) -> anyhow::Result<()> {
    let answer = operator.delete(&format!("/api/v1/tenants/{tenant}")).await;
    ensure!(matches!(answer.status, 204 | 404), "removing {tenant} was answered {}: {}", answer.status, answer.text());
    Ok(())
}

async fn set_up(tenant: Tenant, wasm: Vec<u8>, url: String) -> anyhow::Result<Member> {
    let taken = tenant.upload(FILTER, wasm).await;
    let (name, status) = (&tenant.name, taken.status);
    ensure!(matches!(status, 200 | 201), "the filter of {name} was answered {status}: {}", taken.text());
    let source = tenant.source("idp", SEED).await;
    let subscription = tenant.subscribe_url(&url).chain(chain()).create().await;
    Ok(Member { tenant, source, subscription: Arc::new(subscription) })
}

fn chain() -> Value {
    json!([{"filter": FILTER, "grants": ["config"], "config": {"drop": ["nothing"]}}])
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
