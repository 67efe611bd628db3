//! Fairness: what a quiet tenant notices of a loud one, and an endpoint of a dead one beside it.

mod endpoints;
mod neighbours;

use std::time::Duration;

use crate::Mode;
use crate::report::Sheet;

/// Bytes of an event: a login with its user, as a product sends it.
const EVENT_BYTES: usize = 900;
/// The filter of every chain: it looks at the type and passes what it gets.
const FILTER: &str = "drop-by-type";
/// How long deliveries may take to arrive.
const DRAIN: Duration = Duration::from_secs(120);

/// Measures the section.
pub(crate) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    neighbours::measure(sheet, mode).await?;
    endpoints::measure(sheet, mode).await
}
