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
const NAME: &str = "uptime";
/// Maximum number of gaps stored. Beyond it the oldest is dropped, and its time counts again.
const GAPS_MAX: usize = 64;

/// The last record and the gaps, in milliseconds since the epoch. Gaps are ordered, disjoint, and lie before `recorded_at`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Uptime {
    recorded_at: Option<i64>,
    gaps: Vec<(i64, i64)>,
}

impl Uptime {
    /// Records that the host is running at `now`.
    pub(crate) fn record(conn: &Connection, now: Timestamp, downtime_ms_min: i64) -> Result<Self, Error> {
        let stored: Option<Vec<u8>> = conn
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
            .query_row([NAME], |row| row.get(0))
            .optional()?;
        let mut uptime: Self = match stored {
            Some(stored) => serde_json::from_slice(&stored)
                .map_err(|e| Error::corrupt(format!("the value `{NAME}` in `meta` cannot be decoded: {e}")))?,
            None => Self::default(),
        };
        uptime.advance(now.as_millis(), downtime_ms_min);
        let stored = serde_json::to_vec(&uptime).map_err(|e| Error::corrupt(e.to_string()))?;
        conn.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?
            .execute(params![NAME, stored])?;
        Ok(uptime)
    }

    /// When the host was last recorded as running.
    pub(crate) fn last_recorded(conn: &Connection) -> Result<Option<Timestamp>, Error> {
        let stored: Option<Vec<u8>> =
            conn.query_row("SELECT value FROM meta WHERE name = ?1", [NAME], |row| row.get(0)).optional()?;
        let uptime = stored.and_then(|stored| serde_json::from_slice::<Self>(&stored).ok());
        Ok(uptime.and_then(|uptime| uptime.recorded_at).map(Timestamp::from_millis))
    }

    fn advance(&mut self, now: i64, downtime_ms_min: i64) {
        if let Some(recorded_at) = self.recorded_at {
            if now < recorded_at {
                // The clock went back: gaps after `now` lie in the future again.
                self.gaps.retain(|(from, _)| *from < now);
                if let Some(last) = self.gaps.last_mut() {
                    last.1 = last.1.min(now);
                }
            } else if now - recorded_at >= downtime_ms_min {
                tracing::warn!(
                    from = %Timestamp::from_millis(recorded_at), to = %Timestamp::from_millis(now),
                    "the host was down or its clock jumped: this time does not count towards retention"
                );
                self.gaps.push((recorded_at, now));
                let over = self.gaps.len().saturating_sub(GAPS_MAX);
                self.gaps.drain(..over);
            }
        }
        self.recorded_at = Some(now);
    }

    /// The instant `ms` milliseconds of uptime before `now`.
    pub(crate) fn cutoff(&self, now: Timestamp, ms: i64) -> Timestamp {
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
    fn record_each_minute(uptime: &mut Uptime, from: i64, to: i64) {
        for now in (from..=to).step_by(60_000) {
            uptime.advance(now, HOUR);
        }
    }

    #[test]
    fn without_gaps_uptime_is_clock_time() {
        let mut uptime = Uptime::default();
        record_each_minute(&mut uptime, 0, DAY);
        assert_eq!((uptime.cutoff(at(DAY), HOUR), uptime.gaps.len()), (at(DAY - HOUR), 0));
    }

    #[test]
    fn clock_jump_is_not_counted() {
        let (mut uptime, year) = (Uptime::default(), 365 * DAY);
        record_each_minute(&mut uptime, 0, DAY);
        let now = year + DAY;
        record_each_minute(&mut uptime, now, now);
        assert_eq!(uptime.cutoff(at(now), HOUR), at(DAY - HOUR), "an hour of uptime ago lies before the jump");
        record_each_minute(&mut uptime, now, now + 2 * HOUR);
        assert_eq!(uptime.cutoff(at(now + 2 * HOUR), HOUR), at(now + HOUR), "uptime since the jump counts");
        assert_eq!(uptime.cutoff(at(now + 2 * HOUR), 3 * HOUR), at(DAY - HOUR));
        // The clock went back: the year is in the future again, and will count once it passes.
        record_each_minute(&mut uptime, DAY + 2 * HOUR, DAY + 3 * HOUR);
        assert_eq!(uptime.gaps, [(DAY, DAY + 2 * HOUR)]);
        assert_eq!(uptime.cutoff(at(DAY + 3 * HOUR), 2 * HOUR), at(DAY - HOUR));
    }

    #[test]
    fn gaps_add_up_and_oldest_is_dropped() {
        let mut uptime = Uptime::default();
        for n in 0..=(GAPS_MAX as i64 + 5) {
            uptime.advance(n * DAY, HOUR);
        }
        let now = GAPS_MAX as i64 + 5;
        assert_eq!(uptime.gaps.len(), GAPS_MAX);
        assert_eq!(uptime.cutoff(at(now * DAY), 1), at(5 * DAY - 1), "no uptime between the gaps");
    }
}
