//! The ledger, in this process and in a host's: what a durable append costs against a bare write and sync, whether the cost
//! of an event stays flat as history grows, and how soon a host goes on that was killed with deliveries pending.

mod appends;
mod bare;
mod history;
mod lives;
mod recovery;

use crate::Mode;
use crate::report::Sheet;

/// Bytes of an event as it came: a login with its user, as a product sends it.
const EVENT_BYTES: usize = 900;

/// Measures the section.
pub(crate) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    appends::measure(sheet, mode).await?;
    history::measure(sheet, mode).await?;
    recovery::measure(sheet, mode).await
}
