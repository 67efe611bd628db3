//! Setgate: an edge worker for identity events.

pub mod domain;
