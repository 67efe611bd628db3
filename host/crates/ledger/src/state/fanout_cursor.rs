//! End of the journal and the fan-out cursor.
//!
//! Most events are appended together with their deliveries, and the cursor advances with them. If that is not possible,
//! the event is left to the fan-out loop, and the cursor stays before it until the loop has processed it. Events
//! appended meanwhile still get their deliveries at once, so when nothing is left the cursor jumps to the end.

use setgate_domain::event::EventSeq;

/// Positions in the journal. Each request of a batch gets a copy, which replaces the original only if the request succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FanoutCursor {
    last: EventSeq,
    /// Last event left to the fan-out loop. After the start it is the last event of the journal, since events after the
    /// cursor may lack deliveries.
    last_pending: EventSeq,
    /// Every event up to here has its deliveries.
    position: EventSeq,
}

impl FanoutCursor {
    /// Restores the positions from the file, which does not record whether events after the cursor have deliveries.
    pub(crate) fn new(last: EventSeq, cursor: EventSeq) -> Self {
        Self { last: last.max(cursor), last_pending: last, position: cursor }
    }

    /// An event was appended without its deliveries.
    pub(crate) fn append_pending(&mut self, seq: EventSeq) {
        (self.last, self.last_pending) = (seq, seq);
    }

    /// An event was appended with all of its deliveries.
    pub(crate) fn append_complete(&mut self, seq: EventSeq) {
        self.last = seq;
        if !self.has_pending() {
            self.position = seq;
        }
    }

    /// Advances the cursor: all events up to `seq` have their deliveries, or will never have any.
    pub(crate) fn advance_to(&mut self, seq: EventSeq) {
        self.position = self.position.max(seq);
        if !self.has_pending() {
            self.position = self.last.max(seq);
        }
    }

    /// Whether events are left for the fan-out loop.
    pub fn has_pending(&self) -> bool {
        self.position < self.last_pending
    }

    /// Last event left to the fan-out loop; later events have their deliveries.
    pub fn last_pending(&self) -> EventSeq {
        self.last_pending
    }

    /// Last event of the journal.
    pub fn last(&self) -> EventSeq {
        self.last
    }

    /// See [`Events::cursor`](crate::Events::cursor).
    pub fn position(&self) -> EventSeq {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_waits_for_what_was_left_and_then_is_at_the_end() {
        let mut fanout_cursor = FanoutCursor::new(EventSeq(4), EventSeq(4));
        assert!(!fanout_cursor.has_pending());
        fanout_cursor.append_complete(EventSeq(5));
        assert_eq!(fanout_cursor.position(), EventSeq(5));
        fanout_cursor.append_pending(EventSeq(6));
        fanout_cursor.append_complete(EventSeq(7));
        assert_eq!((fanout_cursor.position(), fanout_cursor.has_pending()), (EventSeq(5), true));
        fanout_cursor.advance_to(EventSeq(6));
        assert_eq!(
            (fanout_cursor.position(), fanout_cursor.last(), fanout_cursor.has_pending()),
            (EventSeq(7), EventSeq(7), false)
        );
    }

    #[test]
    fn what_was_there_at_the_begin_may_have_been_left() {
        let mut fanout_cursor = FanoutCursor::new(EventSeq(9), EventSeq(3));
        fanout_cursor.append_complete(EventSeq(10));
        assert_eq!(fanout_cursor.position(), EventSeq(3));
        fanout_cursor.advance_to(EventSeq(8));
        assert!(fanout_cursor.has_pending());
        fanout_cursor.advance_to(EventSeq(9));
        assert_eq!(fanout_cursor.position(), EventSeq(10));
        // The last appended events have been deleted again.
        assert_eq!(FanoutCursor::new(EventSeq(0), EventSeq(3)).last(), EventSeq(3));
    }
}
