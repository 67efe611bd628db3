//! End of the journal and the fan-out cursor.
//!
//! Most events are appended together with their deliveries, and the cursor advances with them. If that is not possible,
//! the event is left to the fan-out loop, and the cursor stays before it until the loop has processed it. Events
//! appended meanwhile still get their deliveries at once, so when nothing is left the cursor jumps to the end.

use setgate_domain::event::EventSeq;

/// Each request of a batch gets a copy, which replaces the original only if the request succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    last: EventSeq,
    /// Last event left to the fan-out loop. After the start it is the last event of the journal, since events after the
    /// cursor may lack deliveries.
    left: EventSeq,
    /// Every event up to here has its deliveries.
    cursor: EventSeq,
}

impl Reach {
    /// Restores the positions from the file, which does not record whether events after the cursor have deliveries.
    pub(crate) fn new(last: EventSeq, cursor: EventSeq) -> Self {
        Self { last: last.max(cursor), left: last, cursor }
    }

    /// An event was appended without its deliveries.
    pub(crate) fn append_left(&mut self, seq: EventSeq) {
        (self.last, self.left) = (seq, seq);
    }

    /// An event was appended with all of its deliveries.
    pub(crate) fn append_whole(&mut self, seq: EventSeq) {
        self.last = seq;
        if !self.is_behind() {
            self.cursor = seq;
        }
    }

    /// Advances the cursor: all events up to `seq` have their deliveries, or will never have any.
    pub(crate) fn through(&mut self, seq: EventSeq) {
        self.cursor = self.cursor.max(seq);
        if !self.is_behind() {
            self.cursor = self.last.max(seq);
        }
    }

    /// Whether events are left for the fan-out loop.
    pub fn is_behind(&self) -> bool {
        self.cursor < self.left
    }

    /// Last event left to the fan-out loop; later events have their deliveries.
    pub fn left(&self) -> EventSeq {
        self.left
    }

    /// Last event of the journal.
    pub fn last(&self) -> EventSeq {
        self.last
    }

    /// See [`Events::cursor`](crate::Events::cursor).
    pub fn cursor(&self) -> EventSeq {
        self.cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_waits_for_what_was_left_and_then_is_at_the_end() {
        let mut reach = Reach::new(EventSeq(4), EventSeq(4));
        assert!(!reach.is_behind());
        reach.append_whole(EventSeq(5));
        assert_eq!(reach.cursor(), EventSeq(5));
        reach.append_left(EventSeq(6));
        reach.append_whole(EventSeq(7));
        assert_eq!((reach.cursor(), reach.is_behind()), (EventSeq(5), true));
        reach.through(EventSeq(6));
        assert_eq!((reach.cursor(), reach.last(), reach.is_behind()), (EventSeq(7), EventSeq(7), false));
    }

    #[test]
    fn what_was_there_at_the_begin_may_have_been_left() {
        let mut reach = Reach::new(EventSeq(9), EventSeq(3));
        reach.append_whole(EventSeq(10));
        assert_eq!(reach.cursor(), EventSeq(3));
        reach.through(EventSeq(8));
        assert!(reach.is_behind());
        reach.through(EventSeq(9));
        assert_eq!(reach.cursor(), EventSeq(10));
        // The last appended events have been deleted again.
        assert_eq!(Reach::new(EventSeq(0), EventSeq(3)).last(), EventSeq(3));
    }
}
