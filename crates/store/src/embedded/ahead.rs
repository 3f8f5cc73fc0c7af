//! Files read from beginning to end by a thread of its own, ahead of who decodes them: the disk and the processor work
//! at the same time when a large store is opened.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::disk::File;

/// The size of a piece, and how many lie ready at most.
const PIECE: u64 = 4 << 20;
const READY: usize = 2;

/// The bytes of one file, in order.
pub(super) struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    /// How much of the piece has been taken.
    at: usize,
    /// What lay in more than one piece.
    joined: Vec<u8>,
}

impl Ahead {
    /// Begins to read `size` bytes from `offset`.
    pub(super) fn of<'scope>(
        scope: &'scope Scope<'scope, '_>,
        file: &'scope dyn File,
        offset: u64,
        size: u64,
    ) -> Self {
        let (sender, pieces) = sync_channel(READY);
        scope.spawn(move || read(file, offset, size, &sender));
        Self { pieces, piece: Vec::new(), at: 0, joined: Vec::new() }
    }

    /// The next `count` bytes without taking them, or as many as there are.
    pub(super) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        self.gather(count)?;
        Ok(match self.joined.is_empty() {
            true => &self.piece[self.at..self.piece.len().min(self.at + count)],
            false => &self.joined[..self.joined.len().min(count)],
        })
    }

    /// Takes what was peeked at.
    pub(super) fn skip(&mut self, count: usize) {
        match self.joined.is_empty() {
            true => self.at += count,
            false => drop(self.joined.drain(..count)),
        }
    }

    /// Has `count` bytes in one place.
    fn gather(&mut self, count: usize) -> io::Result<()> {
        loop {
            if self.joined.is_empty() && self.piece.len() - self.at >= count {
                return Ok(());
            }
            // What was begun in an earlier piece goes on in this one.
            let missing = count.saturating_sub(self.joined.len()).min(self.piece.len() - self.at);
            if missing > 0 || self.joined.len() < count {
                self.joined.extend_from_slice(&self.piece[self.at..self.at + missing]);
                self.at += missing;
            }
            if self.joined.len() >= count {
                return Ok(());
            }
            match self.pieces.recv() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                // The file ends.
                Err(_) => return Ok(()),
            }
        }
    }
}

fn read(file: &dyn File, mut offset: u64, size: u64, sender: &SyncSender<io::Result<Vec<u8>>>) {
    while offset < size {
        let mut piece = vec![0; PIECE.min(size - offset) as usize];
        let read = file.read_at(&mut piece, offset);
        offset += piece.len() as u64;
        let failed = read.is_err();
        // Who has seen enough reads no more.
        if sender.send(read.map(|()| piece)).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u64);

    impl File for Counting {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0)
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            for (byte, at) in buffer.iter_mut().zip(offset..) {
                *byte = (at % 251) as u8;
            }
            Ok(())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!()
        }
        fn allocate(&self, _: u64) -> io::Result<()> {
            unreachable!()
        }
        fn sync(&self) -> io::Result<()> {
            unreachable!()
        }
    }

    #[test]
    fn what_is_taken_is_the_file_in_order() {
        let size = 2 * PIECE + 12_345;
        for step in [1 << 20, 700_001, PIECE as usize + 3, 9 << 20] {
            std::thread::scope(|scope| {
                let file = Counting(size);
                let file: &'static Counting = Box::leak(Box::new(file));
                let mut ahead = Ahead::of(scope, file, 64, size);
                let mut at = 64;
                loop {
                    // A look at a little first, as at a frame's header.
                    let little = ahead.peek(40).unwrap().to_vec();
                    let bytes = ahead.peek(step).unwrap();
                    assert!(bytes.starts_with(&little[..little.len().min(bytes.len())]));
                    if bytes.is_empty() {
                        break;
                    }
                    assert!(
                        bytes.iter().zip(at..).all(|(byte, at)| *byte == (at % 251) as u8),
                        "{step} at {at}"
                    );
                    let taken = bytes.len();
                    at += taken as u64;
                    ahead.skip(taken);
                }
                assert_eq!(at, size, "{step}");
            });
        }
    }
}
