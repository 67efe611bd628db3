//! Compiled filters on disk: a modified file is recompiled and never loaded, and an unmodified one is not recompiled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::arena::{Arena, Attacker};
use super::encode;
use super::guest::Guest;
use super::trial::{self, Observed};
use super::{Attack, Class, How, Stage, rule};
use crate::{Host, Receiver, Seed, event};

const fn class(name: &'static str, tried: &'static str, attack: Attack) -> Class {
    Class { name, stage: Stage::Artefact, tried, answer: rule("compiled again"), how: How::Other(attack) }
}

pub(super) const CLASSES: &[Class] = &[
    class("tampered-artefact", "single bits of compiled filters turned on disk", |arena, _| {
        Box::pin(tampered(arena, TAMPERED))
    }),
    class("truncated-artefact", "compiled filters cut short on disk", |arena, _| Box::pin(tampered(arena, TRUNCATED))),
    class("swapped-artefact", "one compiled filter in the place of another", |arena, _| {
        Box::pin(tampered(arena, SWAPPED))
    }),
];

/// A modification of a compiled filter's file. Parameters: its bytes, and those of another filter's file.
type Change = fn(&mut Vec<u8>, &[u8]);

const TAMPERED: &[Change] = &[
    |file, _| file[0] ^= 1,
    |file, _| file[20] ^= 0x80,
    // In the machine code, which is the most dangerous place, and in its authentication tag.
    |file, _| flip(file, 1, 2),
    |file, _| flip(file, 3, 4),
    |file, _| flip(file, 1, 1),
];
const TRUNCATED: &[Change] = &[
    |file, _| file.clear(),
    |file, _| file.truncate(40),
    |file, _| file.truncate(file.len() / 2),
    |file, _| file.truncate(file.len() - 1),
    |file, _| file.push(0),
];
const SWAPPED: &[Change] = &[
    |file, other| other.clone_into(file),
    |file, other| {
        // The header of the right filter with the code of another one.
        let head = file[..80].to_vec();
        other.clone_into(file);
        file[..80].copy_from_slice(&head);
    },
];

fn flip(file: &mut [u8], part: usize, of: usize) {
    let at = (file.len() - 1) * part / of;
    file[at] ^= 0x10;
}

/// Uploads a filter for each modification and one more, modifies their files while the host is down, and runs them all.
async fn tampered(arena: Arc<Arena>, changes: &'static [Change]) -> Observed {
    let mut host = arena.another_host("").await;
    let attacker = Attacker::new(&host, "hostile", &arena.quota(&Value::Null)).await;
    let mut bound = Vec::new();
    for number in 0..=changes.len() {
        let name = format!("filter-{number}");
        let wasm = Guest::patches(&format!("{{\"mark\":{number}}}")).wasm();
        let shown = attacker.tenant.upload(&name, wasm).await.expect(201).json();
        let digest = shown["active"].as_str().expect("an uploaded filter is active").to_owned();
        bound.push((digest, trial::subscribe(&arena, &attacker, &name, &Value::Null).await));
    }
    let status = host.terminate().await;
    let folder = host.data().join("compiled");
    let other = std::fs::read(file_of(&folder, &bound[changes.len()].0)).expect("a compiled filter can be read");
    for (change, (digest, _)) in changes.iter().zip(&bound) {
        let path = file_of(&folder, digest);
        let mut bytes = std::fs::read(&path).expect("a compiled filter can be read");
        change(&mut bytes, &other);
        std::fs::write(&path, bytes).expect("a compiled filter can be written");
    }
    host.start_again().await;

    let accepted = attacker.source.accept(event::set("after")).await;
    let mut wrong = Vec::new();
    if !status.success() {
        wrong.push(format!("the host ended with {status}"));
    }
    for (number, (_, subscription)) in bound.iter().enumerate() {
        let id = subscription.delivery_of(&accepted);
        match trial::at_rest(&attacker.tenant, &id).await {
            Ok(delivery) if delivery["state"] == "delivered" => {
                let arrived = arena.receiver.all().into_iter().find(|received| received.id() == id);
                if arrived.as_ref().is_none_or(|received| received.json()["mark"] != number) {
                    wrong.push(format!("filter {number} did something else: {:?}", arrived.map(|a| a.text())));
                }
            }
            Ok(delivery) => wrong.push(format!("filter {number} did not run: {delivery}")),
            Err(why) => wrong.push(why),
        }
    }
    let (compiled, loaded) = loads(&host).await;
    let told =
        format!("{} of {} gave the right verdict; {compiled} compiled again", bound.len() - wrong.len(), bound.len());
    // The unmodified one is loaded.
    let by = if (compiled, loaded) == (changes.len(), 1) {
        "compiled again".to_owned()
    } else {
        format!("{compiled} compiled, {loaded} loaded")
    };
    Observed { by, told, ..Observed::nothing() }.wrong(wrong)
}

/// Number of filters compiled, and loaded from disk, since the host's start.
async fn loads(host: &Host) -> (usize, usize) {
    let loads = async |from: &str| {
        let value = host.metric("setgate_filter_loads_total", &[&format!("from=\"{from}\"")]).await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let count = value as usize;
        count
    };
    (loads("compiler").await, loads("disk").await)
}

/// The file of a filter's machine code.
fn file_of(folder: &Path, digest: &str) -> PathBuf {
    let digest = digest.rsplit(':').next().expect("a split has a last part");
    let files = std::fs::read_dir(folder).expect("there is a directory of compiled filters");
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(digest));
    let found = files.filter_map(|entry| Some(entry.ok()?.path())).find(named);
    found.unwrap_or_else(|| panic!("there is no compiled filter {digest} in {}", folder.display()))
}

/// The result of a restart with many filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarted {
    /// Number of filters.
    pub filters: usize,
    /// Filters that worked after the restart.
    pub ran: usize,
    /// Filters that had to be compiled for that.
    pub compiled: usize,
    /// Filters that were loaded from disk for that.
    pub loaded: usize,
}

/// Filters in one chain.
const CHAIN: usize = 16;
/// Concurrent uploads.
const AT_ONCE: usize = 4;

/// Uploads the given number of different filters, restarts the host, and runs each of them once.
///
/// # Panics
/// If an upload is refused.
pub async fn restart_with(filters: usize) -> Restarted {
    let mut host = Host::start().await;
    let quota = json!({"filters_max": filters, "wall_ms_max": 60_000});
    let tenant = host.tenant_with("many", json!({"quota": quota})).await;
    let source = tenant.source("idp", Seed::Set).await;
    let receiver = Receiver::start().await;
    let wasm = Guest::pass().wasm();
    let mut uploads = tokio::task::JoinSet::new();
    for number in 0..filters {
        let wasm = encode::with_note(wasm.clone(), &number.to_le_bytes());
        let tenant = tenant.clone();
        if uploads.len() >= AT_ONCE {
            uploads.join_next().await.expect("there are some").expect("an upload does not panic");
        }
        uploads.spawn(async move { tenant.upload(&format!("filter-{number}"), wasm).await.expect(201) });
    }
    uploads.join_all().await;
    let grants = tenant.needs("filter-0").await;
    let names: Vec<_> =
        (0..filters).map(|number| json!({"filter": format!("filter-{number}"), "grants": grants})).collect();
    let mut subscriptions = Vec::new();
    for chain in names.chunks(CHAIN) {
        subscriptions.push(tenant.subscribe(&receiver).chain(json!(chain)).create().await);
    }
    host.restart().await;

    let accepted = source.accept(event::set("after")).await;
    let mut ran = 0;
    for subscription in &subscriptions {
        let delivery = trial::at_rest(&tenant, &subscription.delivery_of(&accepted)).await.expect("the deliveries end");
        ran += delivery["runs"].as_array().into_iter().flatten().filter(|run| run["verdict"] == "pass").count();
    }
    let (compiled, loaded) = loads(&host).await;
    Restarted { filters, ran, compiled, loaded }
}
