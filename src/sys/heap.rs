//! The memory of the program.
//!
//! A run lives for milliseconds: musl's own allocator would spend a hundred system calls in it on getting and
//! giving back pages, and each page that is touched for the first time costs a fault, which under a hypervisor
//! takes as long as three system calls. So memory comes from dlmalloc, and the pages of usual runs come all
//! at once.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};

use dlmalloc::{Allocator, Dlmalloc};

/// What a usual run needs in all, in bytes; a power of two.
const AT_ONCE: usize = 64 << 10;

/// The allocator of the program. One thread is the rule; others wait for each other.
#[derive(Debug)]
pub struct Heap {
    taken: AtomicBool,
    inner: UnsafeCell<Inner>,
}

struct Inner(Dlmalloc<Pages>);

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inner")
    }
}

// SAFETY: `inner` is reached through `Heap::with` alone, by one thread at a time.
unsafe impl Sync for Heap {}

impl Heap {
    /// An empty heap.
    #[expect(clippy::new_without_default, reason = "a static needs a const function")]
    pub const fn new() -> Self {
        let mut inner = Dlmalloc::new_with_allocator(Pages);
        assert!(inner.set_granularity(AT_ONCE));
        Self { taken: AtomicBool::new(false), inner: UnsafeCell::new(Inner(inner)) }
    }

    fn with<T>(&self, job: impl FnOnce(&mut Dlmalloc<Pages>) -> T) -> T {
        while self.taken.swap(true, Ordering::Acquire) {
            spin_loop();
        }
        // SAFETY: `taken` was false, so nobody else has a reference, until it is false again. `job` does not
        // allocate by this heap, or it would wait for itself: dlmalloc does not.
        let answer = job(unsafe { &mut (*self.inner.get()).0 });
        self.taken.store(false, Ordering::Release);
        answer
    }
}

// Never inline: in every destructor they would make the program half as large again.
// SAFETY: dlmalloc keeps the contract of malloc and friends, and gets the layout that a block was made with.
unsafe impl GlobalAlloc for Heap {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: size and alignment are those of a layout.
        self.with(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        self.with(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by the contract of the caller the block is ours and was made with this layout.
        self.with(|heap| unsafe { heap.free(block, layout.size(), layout.align()) });
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`.
        self.with(|heap| unsafe { heap.realloc(block, layout.size(), layout.align(), size) })
    }
}

/// Where dlmalloc gets its memory: mmap(2).
struct Pages;

// SAFETY: what `alloc` gives is memory of the size that it says, zeroed, and nobody else's.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let mut flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;
        if size <= AT_ONCE {
            flags |= libc::MAP_POPULATE;
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            (std::ptr::null_mut(), 0, 0)
        } else {
            (start.cast(), size, 0)
        }
    }

    fn remap(&self, start: *mut u8, old: usize, new: usize, can_move: bool) -> *mut u8 {
        let flags = if can_move { libc::MREMAP_MAYMOVE } else { 0 };
        // SAFETY: dlmalloc gives a mapping that it got from `alloc` and knows what it holds.
        let moved = unsafe { libc::mremap(start.cast(), old, new, flags) };
        if moved == libc::MAP_FAILED { std::ptr::null_mut() } else { moved.cast() }
    }

    fn free_part(&self, start: *mut u8, old: usize, new: usize) -> bool {
        // SAFETY: the end of a mapping of ours, in which dlmalloc has nothing any more.
        unsafe { libc::munmap(start.add(new).cast(), old - new) == 0 }
    }

    fn free(&self, start: *mut u8, size: usize) -> bool {
        // SAFETY: a mapping of ours, in which dlmalloc has nothing any more.
        unsafe { libc::munmap(start.cast(), size) == 0 }
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        // Only what mappings are rounded to: right wherever pages are not larger.
        4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).expect("layout")
    }

    #[test]
    fn blocks_hold_what_is_written_and_threads_do_not_meet() {
        static HEAP: Heap = Heap::new();
        let work = |byte: u8| {
            for size in [1, 100, 5_000, 300_000] {
                // SAFETY: the layouts are not empty; each block is freed once, with the layout it had last.
                unsafe {
                    let block = HEAP.alloc(layout(size));
                    assert!(!block.is_null());
                    block.write_bytes(byte, size);
                    let grown = HEAP.realloc(block, layout(size), 2 * size);
                    let kept = std::slice::from_raw_parts(grown, size);
                    assert!(kept.iter().all(|kept| *kept == byte), "{size}");
                    HEAP.dealloc(grown, layout(2 * size));
                    let zeroed = HEAP.alloc_zeroed(layout(size));
                    assert_eq!(zeroed.read(), 0);
                    HEAP.dealloc(zeroed, layout(size));
                }
            }
        };
        std::thread::scope(|scope| {
            for byte in 1..=4 {
                scope.spawn(move || work(byte));
            }
        });
    }
}
