//! The heap of a filter built for `wasm32-unknown-unknown` (feature `heap`, on by default).
//!
//! The standard library's allocator grows the memory at its first allocation, which in a fresh instance means for every
//! event. Growing a memory, and shrinking it again for the next instance, costs the host about 5 microseconds: a
//! quarter to a third of the time of a filter that passes an event unchanged. So the same allocator starts here with
//! [`ARENA_BYTES`] that belong to the instance from its start. Untouched pages of it cost nothing.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};
use std::ptr::null_mut;

use dlmalloc::{Allocator, Dlmalloc};

/// Initial heap size (bytes), enough to read and write an event of about 20 KB. If it is used up, the memory grows.
const ARENA_BYTES: usize = 256 << 10;
const PAGE_BYTES: usize = 64 << 10;

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(Dlmalloc::new_with_allocator(Source { arena_is_taken: Cell::new(false) })));
static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_BYTES]));

/// Aligned like a page of linear memory.
#[repr(align(65536))]
struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

// SAFETY: a filter has one thread: this target supports others only with the feature `atomics`, which the host does
// not offer.
unsafe impl Sync for Arena {}

struct Heap(UnsafeCell<Dlmalloc<Source>>);

// SAFETY: as above.
unsafe impl Sync for Heap {}

// SAFETY: every call is forwarded to the allocator, which upholds the contract. Nothing in these methods allocates,
// so no two borrows of the allocator overlap.
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

/// The allocator's source of memory: the arena, once, then the end of the linear memory.
struct Source {
    arena_is_taken: Cell<bool>,
}

// SAFETY: every returned block has at least the requested size, is zeroed and unaliased: the arena is returned only
// once, and memory added by `memory.grow` is new.
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
