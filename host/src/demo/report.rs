//! Prints the results: a line for each finished delivery, a progress count and a summary.
//!
//! An expected delivery is a pair of an event that was answered 202 and a subscription that wants its product. It is
//! accounted for if it arrived, if the host shows it as dropped and its filter is configured to drop its type, or if
//! the host shows it as held or dead. All others are lost.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Value, json};
use setgate_dialects::catalogue;
use setgate_dialects::samples::Sample;

use super::provider::Sent;
use super::receiver::{Arrival, Receiver};
use super::reproduce::is_reused;
use super::stage::{Stage, SubscriptionOf};
use crate::cli::out::{self, say};

/// Width of the event column.
const NAME_WIDTH: usize = 44;

pub(super) struct Report {
    receiver: Receiver,
    sent: Vec<Sent>,
    /// Expected deliveries that are not accounted for yet.
    open: Vec<Expected>,
    done: Vec<Done>,
    /// Deliveries that were rerun, and of them those with the same result.
    reproduced: (usize, usize),
}

struct Expected {
    sent: usize,
    subscription: usize,
    delivery: String,
}

struct Done {
    sent: usize,
    types: Vec<String>,
    end: End,
    runs: Vec<Value>,
    end_to_end_ms: Option<f64>,
}

#[derive(PartialEq, Clone, Copy)]
enum End {
    Arrived { verified: bool },
    Dropped,
    Held,
    Dead,
    Lost,
}

impl Report {
    pub(super) fn new(_stage: &Stage, receiver: Receiver) -> Self {
        Self { receiver, sent: Vec::new(), open: Vec::new(), done: Vec::new(), reproduced: (0, 0) }
    }

    pub(super) fn heading(&self) {
        say!(
            "{:<NAME_WIDTH$} {:<7} {:<22} {:<72} {:>8} {:>8}  RESULT",
            "EVENT",
            "TENANT",
            "SUBSCRIPTION",
            "FILTERS AND THEIR VERDICTS",
            "FUEL",
            "MICROS"
        );
    }

    pub(super) fn sent(&mut self, sent: Sent) {
        if let Some(refusal) = &sent.refusal {
            say!("{} event `{}`: REFUSED {refusal}", sent.seed, sent.name);
        }
        self.sent.push(sent);
    }

    pub(super) fn outstanding(&self) -> usize {
        self.open.len()
    }

    /// Prints the deliveries that finished since the last call.
    pub(super) async fn print_arrived(&mut self, stage: &Stage) -> anyhow::Result<()> {
        self.expect(stage);
        let mut still_open = Vec::new();
        for expected in std::mem::take(&mut self.open) {
            match self.look(stage, &expected).await? {
                Some(done) => self.print(stage, &expected, done),
                None => still_open.push(expected),
            }
        }
        self.open = still_open;
        Ok(())
    }

    /// Counts every remaining delivery as lost, unless the host's history explains it.
    pub(super) async fn finish(&mut self, stage: &Stage) -> anyhow::Result<()> {
        self.print_arrived(stage).await?;
        for expected in std::mem::take(&mut self.open) {
            let (types, runs) = (Vec::new(), Vec::new());
            let done = Done { sent: expected.sent, types, end: End::Lost, runs, end_to_end_ms: None };
            self.print(stage, &expected, done);
        }
        Ok(())
    }

    fn expect(&mut self, stage: &Stage) {
        let known: BTreeSet<usize> = self.open.iter().map(|e| e.sent).chain(self.done.iter().map(|d| d.sent)).collect();
        for (number, sent) in self.sent.iter().enumerate().filter(|(number, _)| !known.contains(number)) {
            let Some(event) = &sent.event else { continue };
            let tenant = stage.source_of(sent.seed).map(|source| source.tenant);
            for (subscription, of) in stage.subscriptions.iter().enumerate() {
                if Some(of.tenant) == tenant && of.seeds.contains(&sent.seed) {
                    let delivery =
                        format!("dlv_{}_{}_0", event.trim_start_matches("evt_"), of.id.trim_start_matches("sub_"));
                    self.open.push(Expected { sent: number, subscription, delivery });
                }
            }
        }
    }

    /// Whether an expected delivery is accounted for. The receiver's record takes precedence; the host's history only
    /// adds the filters' verdicts.
    async fn look(&self, stage: &Stage, expected: &Expected) -> anyhow::Result<Option<Done>> {
        let of = &stage.subscriptions[expected.subscription];
        let path = format!("/api/v1/tenants/{}/deliveries/{}", of.tenant, expected.delivery);
        let answer = of.client.send(Method::GET, &path, &[], "").await?;
        let record: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let state = record["state"].as_str().unwrap_or_default();
        if state.is_empty() || state == "due" {
            return Ok(None);
        }
        // Read after the host's state: a delivery in state delivered has arrived before.
        let arrival = self.receiver.arrival(&expected.delivery);
        let end = match (&arrival, state) {
            (Some(arrival), _) => End::Arrived { verified: arrival.verified },
            (None, "dropped") if self.may_drop(of, &record) => End::Dropped,
            (None, "held") => End::Held,
            (None, "dead") => End::Dead,
            // The host claims delivered or dropped, but neither the receiver nor the configuration confirms it.
            (None, _) => End::Lost,
        };
        let sent = &self.sent[expected.sent];
        let end_to_end_ms =
            arrival.map(|arrival: Arrival| arrival.at.saturating_duration_since(sent.at).as_secs_f64() * 1000.0);
        let runs = record["runs"].as_array().cloned().unwrap_or_default();
        let types = record["types"].as_array().into_iter().flatten();
        let types = types.filter_map(|uri| Some(short_name(uri.as_str()?))).collect();
        Ok(Some(Done { sent: expected.sent, types, end, runs, end_to_end_ms }))
    }

    fn may_drop(&self, of: &SubscriptionOf, record: &Value) -> bool {
        record["types"].as_array().into_iter().flatten().filter_map(Value::as_str).any(|uri| of.drops(uri))
    }

    fn print(&mut self, stage: &Stage, expected: &Expected, done: Done) {
        let of = &stage.subscriptions[expected.subscription];
        let verdicts: Vec<_> = done
            .runs
            .iter()
            .map(|run| {
                let name = run["filter"].as_str().unwrap_or_default();
                format!("{name} {}", run["verdict"].as_str().unwrap_or("FAULT"))
            })
            .collect();
        let result = match done.end {
            End::Arrived { verified: true } => {
                format!("delivered {:.1} ms, signature ok", done.end_to_end_ms.unwrap_or_default())
            }
            End::Arrived { verified: false } => "delivered, SIGNATURE WRONG".to_owned(),
            End::Dropped => "dropped by filter".to_owned(),
            End::Held => "HELD".to_owned(),
            End::Dead => "DEAD".to_owned(),
            End::Lost => "LOST".to_owned(),
        };
        let event = if done.types.is_empty() { self.sent[expected.sent].name.clone() } else { done.types.join(" ") };
        say!(
            "{event:<NAME_WIDTH$} {:<7} {:<22} {:<72} {:>8} {:>8}  {result}",
            of.tenant,
            of.title,
            if verdicts.is_empty() { "-".to_owned() } else { verdicts.join(", ") },
            sum(&done.runs, "fuel"),
            sum(&done.runs, "elapsed_us"),
        );
        self.done.push(done);
        if self.done.len().is_multiple_of(25) {
            say!("... {} events sent, {} deliveries done, {} open", self.sent.len(), self.done.len(), self.open.len());
        }
    }

    /// Records how many deliveries were rerun, and how many of them had the same result.
    pub(super) fn reproduced(&mut self, reproduced: (usize, usize)) {
        self.reproduced = reproduced;
    }

    /// Prints the summary. Returns whether no delivery was lost, failed, unverified or different when rerun.
    pub(super) fn print_summary(&self, as_json: bool) -> serde_json::Result<bool> {
        let summary = self.summary();
        let good = ["lost", "signatures_failed", "failed", "held"].iter().all(|name| summary[*name] == 0)
            && self.sent.iter().all(|sent| sent.event.is_some())
            && self.reproduced == (self.repeatable(), self.repeatable());
        say!("");
        for name in [
            "events_accepted",
            "event_types",
            "deliveries",
            "delivered",
            "dropped_by_filter",
            "held",
            "failed",
            "transformed",
        ] {
            say!("{name:>20}: {}", summary[name]);
        }
        for (seed, counts) in summary["by_seed"].as_object().into_iter().flatten() {
            say!("{seed:>20}: {} accepted, {} delivered", counts["accepted"], counts["delivered"]);
        }
        say!("{:>20}: {} ok, {} failed", "signatures", summary["signatures_verified"], summary["signatures_failed"]);
        say!("{:>20}: p50 {}, max {}", "fuel", summary["fuel_p50"], summary["fuel_max"]);
        say!("{:>20}: p50 {}, p99 {}", "filter us", summary["filter_us_p50"], summary["filter_us_p99"]);
        say!("{:>20}: p50 {}, p99 {}", "end to end ms", summary["end_to_end_ms_p50"], summary["end_to_end_ms_p99"]);
        say!("{:>20}: {}", "lost", summary["lost"]);
        say!("{:>20}: {} of {}", "reproduced", summary["reproduced"], self.repeatable());
        let praise = "every event arrived, every signature verified, every delivery reproduced byte for byte";
        say!("");
        say!("{}", if good { praise } else { "FAILED: see above" });
        if as_json {
            out::json_line(&summary)?;
        }
        Ok(good)
    }

    /// Deliveries whose rerun must have the same result.
    fn repeatable(&self) -> usize {
        self.done.iter().filter(|done| !is_reused(&done.runs)).count()
    }

    fn summary(&self) -> Value {
        let count = |wanted: fn(&End) -> bool| self.done.iter().filter(|done| wanted(&done.end)).count();
        let mut by_seed = BTreeMap::new();
        for seed in ["wso2", "asgardeo", "logto", "platform", "set"] {
            let accepted = self.sent.iter().filter(|s| s.seed == seed && s.event.is_some()).count();
            let arrived: BTreeSet<_> = self
                .done
                .iter()
                .filter(|done| self.sent[done.sent].seed == seed && matches!(done.end, End::Arrived { .. }))
                .map(|done| done.sent)
                .collect();
            by_seed.insert(seed, json!({"accepted": accepted, "delivered": arrived.len()}));
        }
        let transformed = self
            .done
            .iter()
            .filter(|done| done.runs.iter().any(|run| matches!(run["verdict"].as_str(), Some("patch" | "replace"))))
            .count();
        let runs: Vec<&Value> = self.done.iter().flat_map(|done| &done.runs).collect();
        let fuel = sorted(runs.iter().filter_map(|run| run["fuel"].as_f64()));
        let filter_us = sorted(runs.iter().filter_map(|run| run["elapsed_us"].as_f64()));
        let end_to_end = sorted(self.done.iter().filter_map(|done| done.end_to_end_ms));
        let types: BTreeSet<_> = self.done.iter().flat_map(|done| &done.types).collect();
        let (arrivals, strangers) = self.receiver.totals();
        let failed_signatures = arrivals.iter().filter(|arrival| !arrival.verified).count() as u64 + strangers;
        json!({
            "events_accepted": self.sent.iter().filter(|sent| sent.event.is_some()).count(),
            "event_types": types.len(),
            "by_seed": by_seed,
            "deliveries": self.done.len(),
            "delivered": count(|end| matches!(end, End::Arrived { .. })),
            "dropped_by_filter": count(|end| *end == End::Dropped),
            "held": count(|end| *end == End::Held),
            "failed": count(|end| *end == End::Dead),
            "transformed": transformed,
            "signatures_verified": arrivals.iter().filter(|arrival| arrival.verified).count(),
            "signatures_failed": failed_signatures,
            "lost": count(|end| *end == End::Lost),
            "reproduced": self.reproduced.1,
            "fuel_p50": quantile(&fuel, 0.5) as u64,
            "fuel_max": quantile(&fuel, 1.0) as u64,
            "filter_us_p50": quantile(&filter_us, 0.5) as u64,
            "filter_us_p99": quantile(&filter_us, 0.99) as u64,
            "end_to_end_ms_p50": (quantile(&end_to_end, 0.5) * 10.0).round() / 10.0,
            "end_to_end_ms_p99": (quantile(&end_to_end, 0.99) * 10.0).round() / 10.0,
        })
    }
}

/// Number of different products among the samples.
pub(super) fn seeds(events: &[Sample]) -> usize {
    events.iter().map(|sample| sample.product).collect::<BTreeSet<_>>().len()
}

fn short_name(uri: &str) -> String {
    catalogue::short_name(uri).map_or_else(|| uri.to_owned(), |name| name.into_owned())
}

fn sum(runs: &[Value], member: &str) -> u64 {
    runs.iter().filter_map(|run| run[member].as_u64()).sum()
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Quantile by nearest rank.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
