//! What an operator does with a host: backing it up, and looking through its data.

mod backup;
