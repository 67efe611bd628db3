//! The event types of Setgate's own events.

use super::id::SourceName;

/// Base of Setgate's own event type URIs.
pub const SETGATE_BASE: &str = "https://schemas.setgate.dev/events/";

/// A test event for one subscription, with the source [`SourceName::setgate`]. Delivered to that subscription only.
pub const PING: &str = "https://schemas.setgate.dev/events/test/event-type/ping";

/// The host paused a subscription because its endpoint is gone, keeps failing, or requested it.
pub const SUBSCRIPTION_DISABLED: &str =
    "https://schemas.setgate.dev/events/operations/event-type/subscription-disabled";

/// Whether an event with this source and these types is a requested test event.
pub fn is_test(source: &SourceName, types: &[String]) -> bool {
    source.is_setgate() && types.iter().any(|uri| uri == PING)
}
