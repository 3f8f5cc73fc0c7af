//! The allocator of the program: mimalloc, asked for plain memory wherever that is aligned enough, and else with the alignment.
//!
//! Asked with an alignment, mimalloc 3 takes the long way for every size that is no power of two, and a piece of the next
//! larger size, although its pieces are aligned to 16 bytes anyway (`MI_MAX_ALIGN_SIZE`). Most of what a request needs is of such
//! sizes: vectors of members, nodes of trees. Asked so, creates, GETs and deletes of pods take 2 to 4 % less CPU (`bench`, beside the
//! load generator's own, five rounds in turn).

use libmimalloc_sys as mi;
use std::alloc::{GlobalAlloc, Layout};

/// mimalloc, as `#[global_allocator]`.
#[derive(Debug)]
pub struct Mimalloc;

/// Whether any piece of so many bytes is aligned so: those from 16 bytes up to 16, smaller ones to 8.
const fn is_plain(size: usize, align: usize) -> bool {
    align <= 8 || (align <= 16 && size >= 16)
}

// SAFETY: pieces are mimalloc's, of the size and the alignment that were asked for; whichever function made them, `mi_free` and
// both ways to change their size take them. It does not unwind.
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        let piece = match is_plain(size, align) {
            // SAFETY: any size may be asked for.
            true => unsafe { mi::mi_malloc(size) },
            // SAFETY: and any power of two as alignment, which a layout's is.
            false => unsafe { mi::mi_malloc_aligned(size, align) },
        };
        piece.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        let piece = match is_plain(size, align) {
            // SAFETY: as above.
            true => unsafe { mi::mi_zalloc(size) },
            // SAFETY: as above.
            false => unsafe { mi::mi_zalloc_aligned(size, align) },
        };
        piece.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, _: Layout) {
        // SAFETY: the piece is one of ours, and its owner's no more.
        unsafe { mi::mi_free(piece.cast()) };
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        let piece = match is_plain(size, align) {
            // SAFETY: the piece is one of ours.
            true => unsafe { mi::mi_realloc(piece.cast(), size) },
            // SAFETY: the same, and the alignment is the layout's.
            false => unsafe { mi::mi_realloc_aligned(piece.cast(), size, align) },
        };
        piece.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Mimalloc = Mimalloc;

    /// Pieces of every size and alignment, grown and shrunk: aligned as they were asked for, their bytes kept, zeros where
    /// zeros were asked for.
    #[test]
    fn pieces_are_aligned_and_keep_their_bytes() {
        const SIZES: &[usize] =
            &[1, 2, 4, 7, 8, 9, 15, 16, 17, 24, 40, 48, 56, 112, 200, 1000, 1025, 5000, 70_000];
        let mut live = Vec::new();
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for (size, next) in SIZES.iter().flat_map(|size| SIZES.iter().map(move |next| (*size, *next))) {
                let layout = Layout::from_size_align(size, align).unwrap();
                let grown = Layout::from_size_align(next, align).unwrap();
                // SAFETY: no size is zero; every piece is used as large as it is, and given back once, as what it is.
                unsafe {
                    let piece = ALLOCATOR.alloc_zeroed(layout);
                    assert!(piece.addr().is_multiple_of(align), "{layout:?}");
                    let bytes = std::slice::from_raw_parts_mut(piece, size);
                    assert!(bytes.iter().all(|byte| *byte == 0), "{layout:?}");
                    bytes.fill(7);
                    let piece = ALLOCATOR.realloc(piece, layout, next);
                    assert!(piece.addr().is_multiple_of(align), "{layout:?} to {next}");
                    let kept = std::slice::from_raw_parts(piece, size.min(next));
                    assert!(kept.iter().all(|byte| *byte == 7), "{layout:?} to {next}");
                    let other = ALLOCATOR.alloc(layout);
                    assert!(other.addr().is_multiple_of(align), "{layout:?}");
                    other.write_bytes(9, size);
                    live.push((piece, grown));
                    live.push((other, layout));
                }
                // Some stay, so that pages are full, and some come from the middle of others.
                if live.len() > 3000 {
                    for (piece, layout) in live.drain(..).step_by(2).collect::<Vec<_>>() {
                        // SAFETY: as above.
                        unsafe { ALLOCATOR.dealloc(piece, layout) };
                    }
                }
            }
        }
        for (piece, layout) in live {
            // SAFETY: as above.
            unsafe { ALLOCATOR.dealloc(piece, layout) };
        }
    }
}
