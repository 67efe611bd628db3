//! Limits the size of a page, by number of entries and by their length as JSON.

use std::io;

use serde::Serialize;

/// Maximum length of a page's JSON in bytes. A single entry that is larger gets its own page.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// A page under construction.
#[derive(Debug)]
pub struct PageBuilder<T> {
    items: Vec<T>,
    items_max: usize,
    bytes: usize,
    bytes_max: usize,
}

impl<T: Serialize> PageBuilder<T> {
    /// An empty page for at most `items_max` entries and [`PAGE_BYTES_MAX`] bytes.
    pub fn new(items_max: usize) -> Self {
        Self::with_bytes(items_max, PAGE_BYTES_MAX)
    }

    /// Like [`Self::new`], with another limit in bytes.
    pub fn with_bytes(items_max: usize, bytes_max: usize) -> Self {
        Self { items: Vec::new(), items_max: items_max.max(1), bytes: 0, bytes_max }
    }

    /// Whether no further entry fits, even a small one.
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.items_max || self.bytes >= self.bytes_max
    }

    /// Adds an entry if it fits; the first one always does. Returns whether it was added. If not, the page is complete
    /// and the entry belongs to the next one.
    pub fn push(&mut self, item: T) -> bool {
        if self.is_full() {
            return false;
        }
        let bytes = json_bytes(&item);
        if !self.items.is_empty() && self.bytes.saturating_add(bytes) > self.bytes_max {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push(item);
        true
    }

    /// The entries of the page.
    pub fn into_items(self) -> Vec<T> {
        self.items
    }

    /// The last entry of the page.
    pub fn last(&self) -> Option<&T> {
        self.items.last()
    }
}

/// Length of a value as JSON in bytes, computed without allocation. 0 if the value cannot be serialised.
pub fn json_bytes<T: Serialize + ?Sized>(value: &T) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(items_max: usize, bytes_max: usize, items: &[&str]) -> usize {
        let mut page = PageBuilder::with_bytes(items_max, bytes_max);
        for item in items {
            if !page.push((*item).to_owned()) {
                break;
            }
        }
        page.into_items().len()
    }

    #[test]
    fn page_is_limited_in_bytes_but_never_empty() {
        assert_eq!(json_bytes("abc"), 5);
        assert_eq!(filled(9, 10, &["abc", "abc", "abc"]), 2, "ten bytes hold two entries of five");
        assert_eq!(filled(9, 9, &["abc", "abc"]), 1);
        assert_eq!(filled(9, 4, &["too large by itself", "abc"]), 1);
        assert_eq!(filled(2, 1_000, &["a", "b", "c"]), 2);
        assert_eq!(filled(0, 1_000, &["a", "b"]), 1, "never empty");
    }
}
