//! Tracks the host's uptime. Retention counts only time during which the host was running, because only then could
//! somebody look at the data: a month of downtime, or a clock that jumps a year ahead, must not wipe the history and
//! the dead letters.
//!
//! Each round of retention records the time. If two records are much further apart than two rounds, the host was off,
//! the machine slept or the clock jumped. Such a gap is stored and not counted into the age of anything.

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use setgate_domain::time::Timestamp;

use crate::Error;
use crate::schema::sql_types::params;

/// Key in `meta`; the value is JSON.
const NAME: &str = "lived";
/// Maximum number of gaps stored. Beyond it the oldest is dropped, and its time counts again.
const GAPS_MAX: usize = 64;

/// The last record and the gaps, in milliseconds since the epoch. Gaps are ordered, disjoint, and lie before `noted`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lived {
    noted: Option<i64>,
    gaps: Vec<(i64, i64)>,
}

impl Lived {
    /// Records that the host is running at `now`.
    pub(crate) fn note(conn: &Connection, now: Timestamp, gap_ms_min: i64) -> Result<Self, Error> {
        let kept: Option<Vec<u8>> = conn
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
            .query_row([NAME], |row| row.get(0))
            .optional()?;
        let mut lived: Self = match kept {
            Some(kept) => serde_json::from_slice(&kept).map_err(|e| Error::corrupt(format!("meta `{NAME}`: {e}")))?,
            None => Self::default(),
        };
        lived.go_on(now.as_millis(), gap_ms_min);
        let kept = serde_json::to_vec(&lived).map_err(|e| Error::corrupt(e.to_string()))?;
        conn.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
            .execute(params![NAME, kept])?;
        Ok(lived)
    }

    /// When the host was last recorded as running.
    pub(crate) fn last(conn: &Connection) -> Result<Option<Timestamp>, Error> {
        let kept: Option<Vec<u8>> =
            conn.query_row("SELECT value FROM meta WHERE name = ?1", [NAME], |row| row.get(0)).optional()?;
        let lived = kept.and_then(|kept| serde_json::from_slice::<Self>(&kept).ok());
        Ok(lived.and_then(|lived| lived.noted).map(Timestamp::from_millis))
    }

    fn go_on(&mut self, now: i64, gap_ms_min: i64) {
        if let Some(noted) = self.noted {
            if now < noted {
                // The clock went back: gaps after `now` lie in the future again.
                self.gaps.retain(|(from, _)| *from < now);
                if let Some(last) = self.gaps.last_mut() {
                    last.1 = last.1.min(now);
                }
            } else if now - noted >= gap_ms_min {
                tracing::warn!(
                    from = %Timestamp::from_millis(noted), to = %Timestamp::from_millis(now),
                    "the host was off, or its clock jumped: this time is not counted into the age of what is kept"
                );
                self.gaps.push((noted, now));
                let over = self.gaps.len().saturating_sub(GAPS_MAX);
                self.gaps.drain(..over);
            }
        }
        self.noted = Some(now);
    }

    /// The instant `ms` milliseconds of uptime before `now`.
    pub(crate) fn ago(&self, now: Timestamp, ms: i64) -> Timestamp {
        let mut at = now.as_millis().saturating_sub(ms);
        for (from, to) in self.gaps.iter().rev() {
            if *to <= at {
                break;
            }
            at = at.saturating_sub(to - from);
        }
        Timestamp::from_millis(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    /// Records once a minute from `from` to `to`.
    fn live(lived: &mut Lived, from: i64, to: i64) {
        for now in (from..=to).step_by(60_000) {
            lived.go_on(now, HOUR);
        }
    }

    #[test]
    fn a_life_without_gaps_is_the_clocks_own() {
        let mut lived = Lived::default();
        live(&mut lived, 0, DAY);
        assert_eq!((lived.ago(at(DAY), HOUR), lived.gaps.len()), (at(DAY - HOUR), 0));
    }

    #[test]
    fn a_year_that_was_jumped_over_is_not_counted() {
        let (mut lived, year) = (Lived::default(), 365 * DAY);
        live(&mut lived, 0, DAY);
        let now = year + DAY;
        live(&mut lived, now, now);
        assert_eq!(lived.ago(at(now), HOUR), at(DAY - HOUR), "an hour of life ago the year was another");
        live(&mut lived, now, now + 2 * HOUR);
        assert_eq!(lived.ago(at(now + 2 * HOUR), HOUR), at(now + HOUR), "since then it lived on");
        assert_eq!(lived.ago(at(now + 2 * HOUR), 3 * HOUR), at(DAY - HOUR));
        // The clock went back: the year is in the future again, and will count once it passes.
        live(&mut lived, DAY + 2 * HOUR, DAY + 3 * HOUR);
        assert_eq!(lived.gaps, [(DAY, DAY + 2 * HOUR)]);
        assert_eq!(lived.ago(at(DAY + 3 * HOUR), 2 * HOUR), at(DAY - HOUR));
    }

    #[test]
    fn several_gaps_add_up_and_the_oldest_is_forgotten() {
        let mut lived = Lived::default();
        for n in 0..=(GAPS_MAX as i64 + 5) {
            lived.go_on(n * DAY, HOUR);
        }
        let now = GAPS_MAX as i64 + 5;
        assert_eq!(lived.gaps.len(), GAPS_MAX);
        assert_eq!(lived.ago(at(now * DAY), 1), at(5 * DAY - 1), "it lived for no moment between");
    }
}
