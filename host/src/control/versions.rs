//! Removal of filter and table versions, by request or because there are too many. A version is retained while it is in
//! use: it is active, it is the target of a rollback, it is the candidate of a rollout, or a delivery in the history
//! used it and must stay reproducible.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use setgate_domain::filter::{Filter, Table};
use setgate_domain::id::Digest;
use setgate_domain::time::Timestamp;

use super::Error;

/// Number of versions retained for each filter and table. When a version is added, the oldest unused ones beyond this
/// number are removed.
pub const VERSIONS_KEPT: usize = 20;

/// Number of deliveries in the history that used each version.
pub(super) type InUse = BTreeMap<Digest, u64>;

/// Why a version must be retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Active,
    Previous,
    RolledOut,
    /// The number of deliveries that used it.
    Deliveries(u64),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => f.write_str("it is the active one: activate another first"),
            Self::Previous => f.write_str("it is the one that a roll-back would activate (`previous`)"),
            Self::RolledOut => f.write_str("it is the candidate of the filter's rollout: end that first"),
            Self::Deliveries(1) => f.write_str(
                "a delivery of the history was made with it and has to stay reproducible, until retention removes it",
            ),
            Self::Deliveries(count) => write!(
                f,
                "{count} deliveries of the history were made with it and have to stay reproducible, until retention \
                 removes them"
            ),
        }
    }
}

/// Cursor of the list of versions, which is sorted by upload time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VersionPlace {
    pub(super) at: Timestamp,
    pub(super) digest: Digest,
}

impl fmt::Display for VersionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.at.as_millis(), self.digest)
    }
}

impl FromStr for VersionPlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (at, digest) = text.split_once('-').ok_or(Error::BadCursor)?;
        let at = Timestamp::from_millis(at.parse().map_err(|_| Error::BadCursor)?);
        Ok(Self { at, digest: digest.parse().map_err(|_| Error::BadCursor)? })
    }
}

/// A resource with versions.
pub(super) trait Versions {
    /// Oldest first.
    fn digests(&self) -> Vec<Digest>;
    /// Why a version must be retained. `None` if it may be removed.
    fn need(&self, digest: &Digest, used: &InUse) -> Option<Need>;
    /// Removes a version that is not in use.
    fn take_out(&mut self, digest: &Digest);

    /// Removes a version by request.
    fn remove(&mut self, digest: &Digest, used: &InUse, what: impl fmt::Display) -> Result<(), Error> {
        if !self.digests().contains(digest) {
            return Err(Error::NotFound(format!("version {digest} of {what}")));
        }
        if let Some(need) = self.need(digest, used) {
            return Err(Error::Conflict(format!("the version {digest} of {what} is needed: {need}")));
        }
        self.take_out(digest);
        Ok(())
    }

    /// Removes the oldest unused versions down to [`VERSIONS_KEPT`]. The newest version is always retained.
    fn prune(&mut self, used: &InUse) {
        let digests = self.digests();
        let mut spare = digests.len().saturating_sub(VERSIONS_KEPT);
        for digest in digests.iter().rev().skip(1).rev() {
            if spare == 0 {
                return;
            }
            if self.need(digest, used).is_none() {
                self.take_out(digest);
                spare -= 1;
            }
        }
    }
}

impl Versions for Filter {
    fn digests(&self) -> Vec<Digest> {
        self.versions.iter().map(|version| version.digest).collect()
    }

    fn need(&self, digest: &Digest, used: &InUse) -> Option<Need> {
        if self.active.as_ref() == Some(digest) {
            return Some(Need::Active);
        }
        if self.rollout.as_ref().is_some_and(|rollout| rollout.digest == *digest) {
            return Some(Need::RolledOut);
        }
        of_history(self.previous.last(), digest, used)
    }

    fn take_out(&mut self, digest: &Digest) {
        self.versions.retain(|version| version.digest != *digest);
        self.previous.retain(|previous| previous != digest);
    }
}

impl Versions for Table {
    fn digests(&self) -> Vec<Digest> {
        self.retained_versions().iter().map(|version| version.digest).collect()
    }

    fn need(&self, digest: &Digest, used: &InUse) -> Option<Need> {
        if self.digest == *digest {
            return Some(Need::Active);
        }
        of_history(self.previous.last(), digest, used)
    }

    fn take_out(&mut self, digest: &Digest) {
        self.versions.retain(|version| version.digest != *digest);
        self.previous.retain(|previous| previous != digest);
    }
}

fn of_history(previous: Option<&Digest>, digest: &Digest, used: &InUse) -> Option<Need> {
    if previous == Some(digest) {
        return Some(Need::Previous);
    }
    used.get(digest).filter(|count| **count > 0).map(|count| Need::Deliveries(*count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::filter::{TableFormat, TableVersion};

    fn digest(number: usize) -> Digest {
        Digest([u8::try_from(number).unwrap(); 32])
    }

    /// A table with that many versions, of which the newest is active.
    fn table(versions: usize) -> Table {
        let at = Timestamp::from_millis(0);
        let version = |number| TableVersion {
            digest: digest(number),
            rows: 1,
            bytes: 1,
            format: TableFormat::JsonLines,
            uploaded_at: at,
        };
        Table {
            tenant: "acme".parse().unwrap(),
            name: "apps".parse().unwrap(),
            digest: digest(versions),
            rows: 1,
            uploaded_at: at,
            previous: (1..versions).map(digest).collect(),
            versions: (1..=versions).map(version).collect(),
        }
    }

    #[test]
    fn the_oldest_versions_go_and_none_that_is_needed() {
        let mut few = table(VERSIONS_KEPT);
        few.prune(&InUse::new());
        assert_eq!(few.versions.len(), VERSIONS_KEPT);

        let mut many = table(VERSIONS_KEPT + 3);
        many.prune(&[(digest(2), 1)].into());
        let left: Vec<_> = Versions::digests(&many);
        assert_eq!(left[..3], [digest(2), digest(5), digest(6)], "the second is needed by a delivery");
        assert_eq!(
            (left.len(), many.previous[0]),
            (VERSIONS_KEPT, digest(2)),
            "nothing is rolled back to what is gone"
        );

        // After a rollback, an older version is active.
        let mut back = table(VERSIONS_KEPT + 2);
        (back.digest, back.previous) = (digest(2), vec![digest(1)]);
        back.prune(&InUse::new());
        assert_eq!(Versions::digests(&back)[..3], [digest(1), digest(2), digest(5)]);

        let mut needed = table(VERSIONS_KEPT + 2);
        let all = (1..=VERSIONS_KEPT + 2).map(|number| (digest(number), 1)).collect();
        needed.prune(&all);
        assert_eq!(needed.versions.len(), VERSIONS_KEPT + 2, "more are kept than are kept without a need");
    }

    #[test]
    fn a_needed_version_is_not_removed_and_the_reason_is_given() {
        let used = [(digest(1), 2)].into();
        for (number, words) in [(4, "active"), (3, "roll-back"), (1, "2 deliveries"), (9, "there is no version")] {
            let refused = table(4).remove(&digest(number), &used, "table `apps`").unwrap_err().to_string();
            assert!(refused.contains(words), "{number}: {refused}");
        }
        let mut table = table(4);
        table.remove(&digest(2), &used, "table `apps`").unwrap();
        assert_eq!(Versions::digests(&table), [digest(1), digest(3), digest(4)]);
    }
}
