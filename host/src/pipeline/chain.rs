//! Runs the steps of a chain in the sandbox. It decides nothing about a delivery and stores nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use setgate_base::crypto::MasterKey;
use setgate_domain::chain::{self, Chain, ChainEnd, ChainResult};
use setgate_domain::event::Event;
use setgate_domain::filter::{Grant, Plan, PlanStep};
use setgate_domain::id::{DeliveryId, TenantId};
use setgate_domain::secret::binding_context;
use setgate_domain::set::SetToken;
use setgate_domain::tenant::Quota;
use setgate_domain::trace::TraceContext;
use setgate_domain::verdict::{Fault, FilterRun};
use setgate_sandbox::{Call, CallResult, EventView, ReuseSettings, Sandbox};

use super::apply::Applier;
use super::quotas::Quotas;
use super::reuse::Reusing;
use super::spans::{self, Spans};
use super::suspension::Suspensions;
use super::tables::{PinnedTables, TableCache};
use super::witness::Witness;

/// Context of a chain run apart from its event.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) suspensions: &'a Suspensions,
    pub(super) reusing: &'a Reusing,
    /// Parent of the chain's spans.
    pub(super) under: Option<&'a TraceContext>,
}

/// Input shared by all calls of one chain.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) event: &'a Event,
    pub(super) delivery: DeliveryId,
    pub(super) tables: &'a Arc<PinnedTables>,
    pub(super) quota: &'a Quota,
}

/// Runs chains.
pub(crate) struct ChainRunner {
    sandbox: Sandbox,
    /// Decrypts the secrets of bindings.
    master: Arc<MasterKey>,
    quotas: Quotas,
    tables: Arc<TableCache>,
    applier: Applier,
    spans: Spans,
}

impl ChainRunner {
    pub(super) fn new(
        sandbox: Sandbox,
        master: Arc<MasterKey>,
        quotas: Quotas,
        tables: Arc<TableCache>,
        applier: Applier,
        spans: Spans,
    ) -> Self {
        Self { sandbox, master, quotas, tables, applier, spans }
    }

    /// The time until the tenant's fuel budget allows the next call. `None` if it allows one now.
    pub(super) fn fuel_wait(&self, tenant: &TenantId) -> Option<Duration> {
        self.sandbox.fuel_wait(tenant, &self.quotas.of(tenant))
    }

    /// Runs a plan over an event within the limits pinned with the plan, including suspended versions, with a fresh
    /// instance for each filter. It decides nothing about the delivery and stores nothing, so a chain can be run again
    /// at any time.
    pub(crate) async fn run_alone(&self, plan: &Plan, event: &Event, delivery: DeliveryId) -> ChainResult {
        let around = Around { suspensions: &Suspensions::ignored(), reusing: &Reusing::never(), under: None };
        self.run(plan, event, delivery, around, &mut Witness::default()).await
    }

    /// Runs a plan over an event. `witness` records the steps that a shadow runs again.
    pub(super) async fn run(
        &self,
        plan: &Plan,
        event: &Event,
        delivery: DeliveryId,
        around: Around<'_>,
        witness: &mut Witness,
    ) -> ChainResult {
        let mut chain = Chain::new(&event.set);
        let tables = match self.tables.of_plan(plan, &event.tenant).await {
            Ok(tables) => tables,
            Err(detail) => return chain.end_with(ChainEnd::Retry(detail)),
        };
        let quota = self.quotas.of_plan(plan, &event.tenant);
        let given = Given { event, delivery, tables: &tables, quota: &quota };
        for (place, step) in plan.steps.iter().enumerate() {
            let span = self.spans.filtering(around.under, &event.tenant, delivery, step);
            let mut reuse = around.reusing.settings(place, step);
            let (applied, run) = loop {
                let CallResult { verdict: decided, run, redactor, used } = match around.suspensions.fault(step) {
                    Some(fault) => not_run(step, fault),
                    None => self.run_step(step, chain.claims(), given, reuse).await,
                };
                witness.see(place, chain.claims(), &decided, &run);
                let applied = match decided {
                    Ok(verdict) => {
                        self.applier
                            .apply(&event.tenant, chain.claims(), verdict, quota.output_bytes_max, redactor)
                            .await
                    }
                    Err(fault) => Err(fault),
                };
                // If the verdict could not be applied, the instance is dropped instead of returned to the idle pool.
                if let (Some(used), Ok(_)) = (used, &applied) {
                    used.release();
                }
                // State left by earlier events in a reused instance may have caused the fault, so the call is repeated
                // in a fresh instance.
                if applied.is_err() && run.is_reused() && reuse.take().is_some() {
                    continue;
                }
                break (applied, run);
            };
            let of = chain::ChainStep::from(&step.binding);
            let end = chain.step(of, applied, run);
            spans::filtered(span, chain.last());
            if let Some(end) = end {
                return chain.end_with(end);
            }
        }
        chain.complete()
    }

    /// Runs one step over the claims `before`.
    pub(super) async fn run_step(
        &self,
        step: &PlanStep,
        before: &SetToken,
        given: Given<'_>,
        reuse: Option<ReuseSettings>,
    ) -> CallResult {
        let Given { event, delivery, tables, quota } = given;
        let binding = &step.binding;
        let context = binding_context(&event.tenant, &delivery.subscription);
        let mut secrets = BTreeMap::new();
        if binding.grants.contains(&Grant::Config) {
            for (name, sealed) in &binding.secrets {
                match self.master.open(&context, sealed) {
                    Ok(secret) => drop(secrets.insert(name.clone(), secret)),
                    Err(_) => {
                        let detail = format!("its secret `{name}` cannot be opened with the host's master key");
                        return not_run(step, Fault::Unavailable { detail });
                    }
                }
            }
        }
        self.sandbox
            .run(Call {
                digest: step.digest,
                filter: binding.filter.clone(),
                event: EventView {
                    id: event.id,
                    issuer: before.issuer.clone(),
                    issued_at: before.issued_at,
                    accepted_at: event.accepted_at,
                    types: before.types.clone(),
                    subject: event.subject.clone(),
                    tenant: event.tenant.clone(),
                    source: event.source.clone(),
                    subscription: delivery.subscription,
                    delivery,
                    claims: before.text.clone(),
                },
                config: binding.config.get().into(),
                secrets,
                grants: binding.grants.clone(),
                tables: tables.clone(),
                quota: quota.clone(),
                reuse,
            })
            .await
    }
}

fn not_run(step: &PlanStep, fault: Fault) -> CallResult {
    let run = FilterRun::not_called(step.binding.filter.clone(), step.digest);
    CallResult { verdict: Err(fault), run, redactor: Arc::default(), used: None }
}
