//! The heap of a filter built for `wasm32-unknown-unknown` (feature `heap`, on by default).
//!
//! The standard library's allocator asks the host for memory with its first allocation, and in a fresh instance every event
//! begins with one. Growing a memory, and shrinking it again for the next instance, costs the host some 5 microseconds,
//! between a quarter and a third of what a filter takes that lets an event pass. So the same allocator begins here with [`ARENA_BYTES`] that the
//! instance has from its start. Pages of it that nobody touches cost nothing.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr::null_mut;

use dlmalloc::{Allocator, Dlmalloc};

/// Bytes that an instance begins with; beyond, its memory grows. Enough to read and write an event of some 20 KB.
const ARENA_BYTES: usize = 256 << 10;
const PAGE_BYTES: usize = 64 << 10;

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(Dlmalloc::new_with_allocator(Source { arena_is_taken: Cell::new(false) })));
static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_BYTES]));

/// As a page of memory is aligned.
#[repr(align(65536))]
struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

// SAFETY: a filter has one thread: this target has no others without the feature `atomics`, which the host does not offer.
unsafe impl Sync for Arena {}

struct Heap(UnsafeCell<Dlmalloc<Source>>);

// SAFETY: as above.
unsafe impl Sync for Heap {}

// SAFETY: all is passed on to the allocator, which upholds what is asked for; nothing here allocates by itself, so no two
// borrows of it are alive at once.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see the implementation.
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see the implementation.
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: see the implementation.
        unsafe { (*self.0.get()).free(at, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: see the implementation.
        unsafe { (*self.0.get()).realloc(at, layout.size(), layout.align(), size) }
    }
}

/// Where the allocator gets its memory: the arena, once, then the end of the linear memory.
struct Source {
    arena_is_taken: Cell<bool>,
}

// SAFETY: what is handed out is as large as was asked for, zeroed, and nobody else's: the arena is handed out once, and what
// `memory.grow` added is new.
unsafe impl Allocator for Source {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if size <= ARENA_BYTES && !self.arena_is_taken.replace(true) {
            return (ARENA.0.get().cast(), ARENA_BYTES, 0);
        }
        let pages = size.div_ceil(PAGE_BYTES);
        let before = std::arch::wasm32::memory_grow(0, pages);
        if before == usize::MAX {
            return (null_mut(), 0, 0);
        }
        let (at, mut bytes) = (before * PAGE_BYTES, pages * PAGE_BYTES);
        if at.wrapping_add(bytes) == 0 {
            // No object may end at the very end of the address space.
            bytes -= 16;
        }
        (at as *mut u8, bytes, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}
