//! How far the journal reaches, and up to where its events have their deliveries.
//!
//! Most events are appended together with their deliveries, and the cursor goes with them. Where that cannot be done the
//! event is left to the loop, and the cursor stays before it until the loop has been there. What is appended meanwhile
//! has its deliveries all the same: once nothing is left, the cursor is at the end again at once.

use crate::domain::event::EventSeq;

/// A copy goes with each request of a batch, and is taken back only where the request went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The last event of the journal.
    last: EventSeq,
    /// The last event that was left to the loop; at the begin the last one there is, if the cursor is not there.
    left: EventSeq,
    /// Every event up to here has its deliveries.
    cursor: EventSeq,
}

impl Reach {
    /// As the file says: whether those behind the cursor have deliveries is not known.
    pub(super) fn new(last: EventSeq, cursor: EventSeq) -> Self {
        Self { last: last.max(cursor), left: last, cursor }
    }

    /// An event was appended without its deliveries.
    pub(super) fn append_left(&mut self, seq: EventSeq) {
        (self.last, self.left) = (seq, seq);
    }

    /// An event was appended with all of its deliveries.
    pub(super) fn append_whole(&mut self, seq: EventSeq) {
        self.last = seq;
        if !self.is_behind() {
            self.cursor = seq;
        }
    }

    /// All events up to this one have their deliveries, or never will.
    pub(super) fn through(&mut self, seq: EventSeq) {
        self.cursor = self.cursor.max(seq);
        if !self.is_behind() {
            self.cursor = self.last.max(seq);
        }
    }

    /// Whether there is something for the loop to do.
    pub fn is_behind(&self) -> bool {
        self.cursor < self.left
    }

    /// The last event that was left to the loop; those behind it have their deliveries.
    pub fn left(&self) -> EventSeq {
        self.left
    }

    /// The last event of the journal.
    pub fn last(&self) -> EventSeq {
        self.last
    }

    /// See [`Ledger::cursor`](super::Ledger::cursor).
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
        // All that was appended last is gone again.
        assert_eq!(Reach::new(EventSeq(0), EventSeq(3)).last(), EventSeq(3));
    }
}
