//! Fuzzes uploads. Also measures memory: inspecting an upload must not take much more than the upload itself.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of memory for an inspection, in addition to the proportional part.
const MEMORY_BYTES_MAX: usize = 64 << 10;
/// Bytes of memory per byte of the upload: a declaration of 2 bytes becomes a value of about 100 bytes, in a list that
/// doubles.
const MEMORY_PER_BYTE_MAX: usize = 200;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let taken_in = setgate::fuzzing::look(bytes);
    let taken = PEAK.load(Relaxed).saturating_sub(before);
    let limit = MEMORY_BYTES_MAX + MEMORY_PER_BYTE_MAX * bytes.len();
    assert!(taken <= limit, "{taken} bytes of memory for an upload of {} bytes", bytes.len());
    std::hint::black_box(taken_in);
    setgate::fuzzing::upload(bytes);
});
