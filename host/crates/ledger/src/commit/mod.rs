//! The write path: the queue of requests, the writer thread with group commit, and the effects of a commit on memory.

pub(crate) mod checkpoint;
pub(crate) mod effects;
pub(crate) mod group_commit;
pub(crate) mod queue;
pub(crate) mod writer;
