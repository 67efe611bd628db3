//! The environment of the attacks: a host, and attackers with a tenant each.

use serde_json::{Value, json};

use super::guest::Guest;
use super::lift::Lift;
use super::{Options, trial};
use crate::receiver::Receiver;
use crate::source::{Seed, Source};
use crate::tenant::Tenant;
use crate::{Host, event};

/// Concurrent calls on the main host, and one tenant's share of them. Small enough to be filled by a laptop.
pub const INSTANCES_MAX: u32 = 16;
/// See [`INSTANCES_MAX`].
pub const INSTANCES_PER_TENANT_MAX: u32 = 4;
/// Deliveries of one tenant in flight to one receiver: enough to fill the pool if there were no share.
pub const IN_FLIGHT_MAX: u32 = 32;

/// The host under attack, and its settings.
pub struct Arena {
    /// The host.
    pub host: Host,
    /// The receiver of the attackers' deliveries.
    pub receiver: Receiver,
    /// Number of events that a hostile filter processes.
    pub events: usize,
    /// Whether this is a short run.
    pub short: bool,
    lift: Option<&'static Lift>,
}

impl Arena {
    /// Starts the host, with one limit lifted if the options say so.
    pub async fn start(options: &Options) -> Self {
        let config = format!(
            "[sandbox]\ninstances_max = {INSTANCES_MAX}\n{}\n\
             [delivery]\nin_flight_per_endpoint_max = {IN_FLIGHT_MAX}\n{}{}",
            options.lift.map_or_else(own_share, |lift| lift.sandbox_over(&own_share())),
            super::flood::SETTINGS,
            super::responses::SETTINGS,
        );
        let host = Host::with().config(&config).start().await;
        super::cores::free(host.pid());
        Self {
            host,
            receiver: Receiver::start().await,
            events: if options.short { 2 } else { 40 },
            short: options.short,
            lift: options.lift,
        }
    }

    /// Another host, for attacks that need a restart or other settings. `sandbox` contains lines of its `[sandbox]`.
    pub async fn another_host(&self, sandbox: &str) -> Host {
        let sandbox = self.lift.map_or_else(|| sandbox.to_owned(), |lift| lift.sandbox_over(sandbox));
        let host = Host::with().config(&format!("[sandbox]\n{sandbox}\n")).start().await;
        super::cores::free(host.pid());
        host
    }

    /// A tenant of the main host. Settings that `quota` does not contain have the host's defaults, except for the time
    /// limit of a call: on a busy machine it could trigger before the limit under test.
    pub async fn attacker(&self, class: &'static str, quota: &Value) -> Attacker {
        Attacker::new(&self.host, class, &self.quota(quota)).await
    }

    /// The quota of an attacker: a long time limit, its own members, and the lifted limit.
    pub fn quota(&self, own: &Value) -> Value {
        let mut quota = json!({"wall_ms_max": 60_000});
        let lifted = self.lift.map(Lift::quota).unwrap_or_default();
        for part in [own, &lifted] {
            for (key, value) in part.as_object().into_iter().flatten() {
                quota[key] = value.clone();
            }
        }
        quota
    }

    /// Checks that the host answers.
    pub async fn answers(&self) -> Result<(), String> {
        let health = self.host.operator().try_send(http::Method::GET, "/healthz", &[], "").await;
        match health {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("afterwards the host is not healthy: {}", answer.text())),
            Err(why) => Err(format!("afterwards the host does not answer: {why}")),
        }
    }

    /// Uses every slot of the pool and starts every thread, so that later measurements show only growth.
    pub async fn warm_up(&self) {
        let tenant = self.attacker("warm-up", &Value::Null).await;
        let large = Guest::new(format!(
            "(memory.fill (i32.const {}) (i32.const 1) (i32.const 262144)) {}",
            super::guest::GIVEN,
            super::guest::PASS
        ));
        let trial = trial::Trial::of(&large);
        let seen = trial::run_events(self, &tenant, &trial, 64).await;
        assert!(seen.wrong.is_empty(), "a good filter works: {:?}", seen.wrong);
    }

    /// Memory of the host's process in bytes, including swap.
    pub fn rss_bytes(&self) -> u64 {
        self.host.rss_bytes()
    }
}

fn own_share() -> String {
    format!("instances_per_tenant_max = {INSTANCES_PER_TENANT_MAX}")
}

/// A hostile tenant. It has two sources, so that a hostile filter and a good one do not share events.
#[derive(Clone)]
pub struct Attacker {
    /// The tenant.
    pub tenant: Tenant,
    /// The source of the hostile filter.
    pub source: Source,
    good: Source,
}

impl Attacker {
    /// Creates a tenant with that name.
    pub async fn new(host: &Host, name: &str, quota: &Value) -> Self {
        let tenant = host.tenant_with(name, json!({"quota": quota})).await;
        let source = tenant.source("hostile", Seed::Set).await;
        let good = tenant.source("good", Seed::Set).await;
        Self { tenant, source, good }
    }

    /// Checks that a good filter of this tenant works.
    ///
    /// # Errors
    /// If it does not, with the observed behaviour.
    pub async fn works(&self, arena: &Arena) -> Result<(), String> {
        let answer = self.tenant.upload("good", Guest::patches(r#"{"good":true}"#).wasm()).await;
        if !matches!(answer.status, 200 | 201) {
            return Err(format!("its upload is answered {}: {}", answer.status, answer.text()));
        }
        let chain = json!([{"filter": "good"}]);
        let subscription =
            self.tenant.subscribe(&arena.receiver).chain(chain).with("sources", json!(["good"])).create().await;
        let accepted = self.good.accept(event::set("good")).await;
        let id = subscription.delivery_of(&accepted);
        let delivery = trial::at_rest(&self.tenant, &id).await?;
        if delivery["state"] != "delivered" || delivery["runs"][0]["verdict"] != "patch" {
            return Err(format!("its delivery ended so: {delivery}"));
        }
        let received = arena.receiver.all().into_iter().find(|received| received.id() == id);
        let received = received.ok_or("it is delivered, but did not arrive")?;
        subscription.verify(&received)?;
        if received.json()["good"] != true {
            return Err(format!("the received body is not the filter's result: {}", received.text()));
        }
        Ok(())
    }
}
