//! In-memory state that follows the commits: what the writer publishes after each of them.

pub(crate) mod content;
pub(crate) mod counters;
pub(crate) mod disk;
pub(crate) mod document_usage;
pub(crate) mod fanout_cursor;
pub(crate) mod new_deliveries;
pub(crate) mod recent_writes;
pub(crate) mod settlements;
pub(crate) mod snapshot;
pub(crate) mod space;
pub(crate) mod stored;
