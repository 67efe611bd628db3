//! Fairness: the effect of a busy tenant on a quiet one, and of a dead endpoint on the others.

mod endpoints;
mod neighbours;

use std::time::Duration;

use crate::Mode;
use crate::report::Sheet;

/// Bytes of an event: a login with its user, as a product sends it.
const EVENT_BYTES: usize = 900;
/// The filter of every chain: it checks the type and passes every event.
const FILTER: &str = "drop-by-type";
/// Time limit for deliveries to arrive.
const DRAIN: Duration = Duration::from_secs(120);

/// Measures the section.
pub(crate) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    neighbours::measure(sheet, mode).await?;
    endpoints::measure(sheet, mode).await
}
