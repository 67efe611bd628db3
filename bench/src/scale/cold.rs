//! The first call of a filter after a start, which loads its machine code from the cache on disk, compared with its
//! second call.

use anyhow::{Context as _, ensure};

use super::crowd::{Crowd, Member};
use super::{DRAIN, EVENT_BYTES};
use crate::events::Template;
use crate::load::{Receiver, Record};

/// Microseconds for each filter, from requesting it to its verdict.
pub(super) struct Cold {
    pub(super) first_us: Vec<f64>,
    pub(super) second_us: Vec<f64>,
}

/// Sends two events to each of the first `active` tenants, one at a time.
pub(super) async fn measure(crowd: &Crowd, active: usize, receiver: &Receiver) -> anyhow::Result<Cold> {
    let template = Template::of(EVENT_BYTES);
    let mut times = [Vec::new(), Vec::new()];
    for times in &mut times {
        let record = Record::new(active);
        receiver.record(&record);
        for (number, member) in crowd.members()[..active].iter().enumerate() {
            let event = template.event(record.number(number));
            times.push(run_us(member, event).await.with_context(|| format!("an event of {}", member.tenant.name))?);
        }
        record.all_arrived(active, DRAIN).await?;
    }
    let [first_us, second_us] = times;
    Ok(Cold { first_us, second_us })
}

/// Sends an event, and returns the duration of its filter run from the delivery's history.
async fn run_us(member: &Member, event: String) -> anyhow::Result<f64> {
    let accepted = member.source.accept(event).await;
    let delivery = member.subscription.delivery_of(&accepted);
    let shown = member.tenant.delivery_in("delivered", &delivery).await;
    let runs = shown["runs"].as_array().with_context(|| format!("the runs of {shown}"))?;
    ensure!(runs.len() == 1, "one filter ran: {shown}");
    runs[0]["elapsed_us"].as_f64().with_context(|| format!("how long it took: {shown}"))
}
