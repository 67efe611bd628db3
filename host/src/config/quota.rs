//! `[quota]`: of a tenant's quota, only the members of [`DefaultQuota`] are settings.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use setgate_domain::tenant::{DefaultQuota, Quota};

pub(super) fn serialize<S: Serializer>(quota: &Quota, to: S) -> Result<S::Ok, S::Error> {
    DefaultQuota::from(quota).serialize(to)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Quota, D::Error> {
    DefaultQuota::deserialize(from).map(Quota::from)
}
