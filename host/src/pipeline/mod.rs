//! pipeline

pub mod normalize;
