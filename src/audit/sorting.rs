//! Sorting more lines than memory should hold: in pieces, each sorted and put away in a temporary file, then merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use bytemuck::{Pod, Zeroable};

use crate::domain::PaymentId;

/// Lines sorted at a time: 24 MB of them. Merging holds 64 KiB of each piece, 10 million lines make 21 pieces.
const LINES_AT_A_TIME: usize = 500_000;

/// What a line says of a payment: 48 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BookLine {
    /// The payment.
    pub(super) id: PaymentId,
    /// Minor units.
    pub(super) amount_minor: u64,
    /// Where it stands in its file, the header is line 1.
    pub(super) line: u64,
    /// The window, if the line says one, else 0.
    pub(super) window: u64,
    /// ISO 4217 numeric, if the line says one, else 0.
    pub(super) currency: u16,
    /// 1 debit, 2 credit, 3 none.
    pub(super) side: u8,
    /// Of a line of ours: the kind of the payment; else 0.
    pub(super) kind: u8,
    /// Of a line of ours: 1 where the participant initiated it.
    pub(super) is_initiator: u8,
    /// Zero.
    pub(super) reserved: [u8; 3],
}

const _: () = assert!(size_of::<BookLine>() == 48);

/// Takes lines in any order and gives them sorted by id.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    lines: Vec<BookLine>,
    pieces: Vec<File>,
}

impl Sorter {
    pub(super) fn add(&mut self, line: BookLine) -> io::Result<()> {
        if self.lines.len() == LINES_AT_A_TIME {
            self.put_away()?;
        }
        self.lines.push(line);
        Ok(())
    }

    fn put_away(&mut self) -> io::Result<()> {
        self.lines.sort_unstable_by_key(key);
        let mut file = tempfile::tempfile()?;
        let mut writer = BufWriter::with_capacity(1 << 16, &mut file);
        for line in self.lines.drain(..) {
            writer.write_all(bytemuck::bytes_of(&line))?;
        }
        writer.flush()?;
        drop(writer);
        file.rewind()?;
        self.pieces.push(file);
        Ok(())
    }

    pub(super) fn sorted(mut self) -> io::Result<Sorted> {
        self.lines.sort_unstable_by_key(key);
        let mut sorted = Sorted {
            pieces: self
                .pieces
                .into_iter()
                .map(|file| BufReader::with_capacity(1 << 16, file))
                .collect(),
            in_memory: self.lines.into_iter(),
            heads: BinaryHeap::new(),
            held: Vec::new(),
        };
        for piece in 0..=sorted.pieces.len() {
            sorted.refill(piece)?;
        }
        Ok(sorted)
    }
}

fn key(line: &BookLine) -> (PaymentId, u64) {
    (line.id, line.line)
}

/// Lines in the order of their ids, those of one id in the order of the file.
#[derive(Debug)]
pub(super) struct Sorted {
    pieces: Vec<BufReader<File>>,
    in_memory: std::vec::IntoIter<BookLine>,
    heads: BinaryHeap<Reverse<((PaymentId, u64), usize)>>,
    /// By piece: its first line that is not given yet.
    held: Vec<Option<BookLine>>,
}

impl Sorted {
    fn refill(&mut self, piece: usize) -> io::Result<()> {
        self.held.resize(self.pieces.len() + 1, None);
        let line = match self.pieces.get_mut(piece) {
            None => self.in_memory.next(),
            Some(reader) => {
                let mut line = BookLine::zeroed();
                match reader.read_exact(bytemuck::bytes_of_mut(&mut line)) {
                    Ok(()) => Some(line),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
                    Err(error) => return Err(error),
                }
            }
        };
        self.held[piece] = line;
        if let Some(line) = line {
            self.heads.push(Reverse((key(&line), piece)));
        }
        Ok(())
    }

    /// The next line.
    pub(super) fn next(&mut self) -> io::Result<Option<BookLine>> {
        let Some(Reverse((_, piece))) = self.heads.pop() else {
            return Ok(None);
        };
        let line = self.held[piece].take();
        self.refill(piece)?;
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BusinessDate, ParticipantIndex};

    #[test]
    fn more_lines_than_a_piece_holds_come_out_in_order_and_none_is_lost() {
        let count = 2 * LINES_AT_A_TIME as u64 + 7;
        let mut sorter = Sorter::default();
        for number in 0..count {
            // Every number below the count once: 7,919 is a prime that does not divide it.
            let serial = number * 7_919 % count;
            sorter
                .add(BookLine {
                    id: PaymentId::new(BusinessDate(20_261_123), ParticipantIndex(1), 0, serial),
                    line: number,
                    ..BookLine::zeroed()
                })
                .unwrap();
        }
        let mut sorted = sorter.sorted().unwrap();
        for serial in 0..count {
            assert_eq!(sorted.next().unwrap().map(|line| line.id.serial()), Some(serial));
        }
        assert_eq!(sorted.next().unwrap(), None);
    }
}
