//! The foundations of every part of Setgate: the clock, cryptography, fair scheduling between tenants, telemetry, and
//! trusted certificates.

pub mod clock;
pub mod crypto;
pub mod fair;
pub mod telemetry;
pub mod trust;
