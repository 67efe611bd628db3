//! What all parts of Setgate stand on: the clock, cryptography, fair scheduling between tenants, and telemetry.

pub mod clock;
pub mod crypto;
pub mod fair;
pub mod telemetry;
pub mod trust;
