//! The ledger, in this process and in a host: the cost of a durable append compared with a bare write and sync, whether
//! the cost of an event stays constant as the history grows, and the recovery time of a host that was killed with
//! pending deliveries.

mod appends;
mod bare;
mod history;
mod lives;
mod recovery;

use crate::Mode;
use crate::report::Sheet;

/// Bytes of an incoming event: a login with its user, as a product sends it.
const EVENT_BYTES: usize = 900;

/// Measures the section.
pub(crate) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    appends::measure(sheet, mode).await?;
    history::measure(sheet, mode).await?;
    recovery::measure(sheet, mode).await
}
