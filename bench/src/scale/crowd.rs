//! Many tenants on one host, each with a source, a subscription and a unique filter.

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

/// The filter of every chain: it checks the type and passes every event.
const FILTER: &str = "drop-by-type";
/// The product of all sources.
const SEED: Seed = Seed::Wso2;
/// Concurrent set-ups of tenants.
const AT_ONCE: usize = 4;
/// Number of tenants after which the progress of a long set-up is printed.
const TOLD_EVERY: usize = 500;
/// Disk space for all machine code, which exceeds the default.
const CONFIG: &str = "[sandbox]\ncache_bytes_max = 34359738368";

/// One of the tenants.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) tenant: Tenant,
    pub(super) source: Source,
    pub(super) subscription: Arc<Subscription>,
}

/// The host with all its tenants.
pub(super) struct Crowd {
    pub(super) host: Host,
    wasm: Vec<u8>,
    members: Vec<Member>,
    /// Records members for later runs. `None` if the crowd is temporary.
    kept: Option<List>,
}

impl Crowd {
    /// An empty crowd in a temporary directory.
    pub(super) async fn temporary() -> Self {
        let host = Host::with().config(CONFIG).start().await;
        Self { host, wasm: place::filter(FILTER), members: Vec::new(), kept: None }
    }

    /// The crowd stored by earlier runs. Tenants that are added from here on are stored as well.
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

    /// Sets up tenants until their number reaches `size`.
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

    /// Waits for the next complete tenant.
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

    /// Brings a stored crowd to the state of a new one: redirects the deliveries of the first `active` tenants to this
    /// receiver, and loads the machine code into the system's cache.
    pub(super) async fn adopt(&self, active: usize, receiver: &Receiver) -> anyhow::Result<()> {
        if self.kept.is_none() {
            return Ok(());
        }
        tokio::task::block_in_place(|| kept::read_compiled(&self.host.data()))?;
        for member in self.members.iter().take(active) {
            let asked = member.tenant.subscribe_url(&receiver.url()).chain(chain());
            // An interrupted run may have left failing deliveries, which paused the subscription.
            if !asked.replace(&member.subscription).await["paused"].is_null() {
                member.subscription.resume().await;
            }
        }
        Ok(())
    }

    /// Stops the host with SIGTERM.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        let ended = self.host.terminate().await;
        ensure!(ended.success(), "the host ended with {ended}:\n{}", self.host.log());
        Ok(())
    }

    /// Restarts the host, and returns the time until it was listening. Returns after the host's ledger check, which
    /// runs in the background, so that the host is idle.
    pub(super) async fn restart(&mut self) -> anyhow::Result<Duration> {
        self.stop().await?;
        let logged = self.host.logged();
        let took = host::start(&mut self.host).await?;
        until("the host has looked over its ledger", async || self.host.last_logged(logged, &["ledger file check"]))
            .await;
        Ok(took)
    }
}

/// Starts a host in a permanent directory, which may contain its data already.
async fn start_in(folder: PathBuf) -> anyhow::Result<Host> {
    let mut host = Host::with().config(CONFIG).in_folder(folder).prepare();
    host::start(&mut host).await?;
    host.take_operator_key();
    Ok(host)
}

/// A member that an earlier run has set up.
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

/// Removes an incomplete tenant of an interrupted run, if it exists.
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

/// The same component with another digest: appends a custom section, which has no effect.
fn distinct(wasm: &[u8], number: usize) -> Vec<u8> {
    let name = b"bench";
    let number = u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let size = 1 + name.len() + number.len();
    let mut distinct = wasm.to_vec();
    // Section 0; its size and that of its name each fit into one byte of LEB128.
    distinct.extend([0, u8::try_from(size).unwrap_or(0), u8::try_from(name.len()).unwrap_or(0)]);
    distinct.extend(name);
    distinct.extend(number);
    distinct
}
