//! The payments that the engine holds: a ring of R records, each of them one cache line.
//!
//! A new payment takes the first slot from the cursor on whose payment is final; open ones are passed over and stay
//! where they are. What is final never changes again, and all that may still happen to it (a Reversal, refunds, exception
//! items) is kept by its id elsewhere, so that nothing is lost with the record. A slot is taken by one payment after
//! another: its generation tells them apart.

use std::io;
use std::ops::{Index, IndexMut};

use bytemuck::{Pod, Zeroable};

use super::payment::PaymentRecord;
use crate::domain::{BusinessDate, PaymentSlot};
use crate::memory::ChunkedTable;

/// Slots looked at for one payment: nobody waits for a pass over a table full of open payments.
const LOOKED_AT_MAX: u32 = 4_096;

/// What few events need to know of a payment: 24 bytes, beside its record.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Place {
    /// Where the payload of its request lies in the journal.
    pub(super) position: u64,
    /// When it was accepted or rejected, UTC nanoseconds.
    pub(super) accepted_ns: u64,
    /// How many payments have had the slot.
    pub(super) generation: u32,
    /// How many payments had been put in before, modulo 2^32: their order.
    pub(super) sequence: u32,
}

/// The table.
#[derive(Debug)]
pub(super) struct Residents {
    records: ChunkedTable<PaymentRecord>,
    places: ChunkedTable<Place>,
    /// R; a power of two, 0 before Genesis.
    bound: u32,
    /// The slot to be looked at next.
    cursor: u32,
    /// How many payments have been put in.
    taken: u64,
}

impl Default for Residents {
    fn default() -> Self {
        Self {
            records: ChunkedTable::new(false),
            places: ChunkedTable::new(false),
            bound: 0,
            cursor: 0,
            taken: 0,
        }
    }
}

impl Residents {
    /// An empty table of `bound` payments, a power of two; `set_aside` maps and faults in all of its memory now.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub(super) fn new(bound: u32, set_aside: bool) -> io::Result<Self> {
        assert!(bound.is_power_of_two(), "a table of {bound} payments");
        let capacity = if set_aside { bound as usize } else { 0 };
        Ok(Self {
            records: ChunkedTable::with_capacity(capacity, false)?,
            places: ChunkedTable::with_capacity(capacity, false)?,
            bound,
            cursor: 0,
            taken: 0,
        })
    }

    /// Maps and faults in all of the table's memory.
    ///
    /// # Errors
    /// The host has no such memory to give.
    pub(super) fn set_aside(&mut self) -> io::Result<()> {
        self.records.set_aside(self.bound as usize)?;
        self.places.set_aside(self.bound as usize)
    }

    /// A table as a snapshot has it; `None` where its parts do not fit each other.
    pub(super) fn restored(
        bound: u32,
        cursor: u32,
        taken: u64,
        records: ChunkedTable<PaymentRecord>,
        places: ChunkedTable<Place>,
    ) -> Option<Self> {
        let length = records.len();
        let fits = length == places.len()
            && length <= bound as usize
            && (cursor < bound || bound == 0)
            && (length == bound as usize || cursor as usize == length);
        fits.then_some(Self {
            records,
            places,
            bound,
            cursor,
            taken,
        })
    }

    /// The slot for a new payment, from which a final one may have to go; `None` where no slot near the cursor is free.
    #[inline]
    pub(super) fn next_free(&mut self) -> Option<PaymentSlot> {
        for _ in 0..self.bound.min(LOOKED_AT_MAX) {
            let slot = self.cursor;
            let free = self.records.get(slot as usize).is_none_or(|record| !record.is_open());
            if free {
                return Some(PaymentSlot(slot));
            }
            self.cursor = (slot + 1) & (self.bound - 1);
        }
        None
    }

    /// Puts a payment into the slot that [`Residents::next_free`] gave.
    #[inline]
    pub(super) fn put(&mut self, slot: PaymentSlot, record: PaymentRecord, position: u64) {
        assert_eq!(slot.0, self.cursor, "payments are put where the cursor stands");
        let mut place = Place {
            position,
            accepted_ns: record.time_ns,
            generation: 1,
            sequence: self.taken as u32,
        };
        if let (Some(kept), Some(before)) = (self.records.get_mut(slot.index()), self.places.get_mut(slot.index())) {
            place.generation = before.generation.wrapping_add(1);
            (*kept, *before) = (record, place);
        } else {
            self.records.push(record);
            self.places.push(place);
        }
        self.cursor = (slot.0 + 1) & (self.bound - 1);
        self.taken += 1;
    }

    #[inline]
    pub(super) fn get(&self, slot: PaymentSlot) -> Option<&PaymentRecord> {
        self.records.get(slot.index())
    }

    #[inline]
    pub(super) fn place(&self, slot: PaymentSlot) -> &Place {
        &self.places[slot.index()]
    }

    #[inline]
    pub(super) fn generation(&self, slot: PaymentSlot) -> u32 {
        self.place(slot).generation
    }

    /// How many slots have ever been used.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn bound(&self) -> u32 {
        self.bound
    }

    pub(super) fn cursor(&self) -> u32 {
        self.cursor
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn records(&self) -> &ChunkedTable<PaymentRecord> {
        &self.records
    }

    pub(super) fn places(&self) -> &ChunkedTable<Place> {
        &self.places
    }

    /// The open payments, in the order in which they were accepted.
    pub(super) fn open(&self) -> Vec<PaymentSlot> {
        let all = (0u32..).zip(self.records.iter());
        let mut open: Vec<_> = all
            .filter(|(_, record)| record.is_open())
            .map(|(slot, _)| PaymentSlot(slot))
            .collect();
        let now = self.taken as u32;
        open.sort_unstable_by_key(|slot| std::cmp::Reverse(now.wrapping_sub(self.place(*slot).sequence)));
        open
    }
}

/// How many payments of each business date are open: of two or three dates as a rule.
#[derive(Debug, Default)]
pub(super) struct OpenDates(Vec<(BusinessDate, u64)>);

impl OpenDates {
    /// Counts a payment that was accepted.
    #[inline]
    pub(super) fn add(&mut self, date: BusinessDate) {
        match self.0.iter_mut().find(|(known, _)| *known == date) {
            Some((_, count)) => *count += 1,
            None => self.0.push((date, 1)),
        }
    }

    /// Counts off a payment that is final.
    #[inline]
    pub(super) fn remove(&mut self, date: BusinessDate) {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == date) {
            *count -= 1;
        }
    }

    /// True when a payment dated `last` or earlier is open.
    pub(super) fn any_through(&self, last: BusinessDate) -> bool {
        self.0.iter().any(|&(date, count)| date <= last && count > 0)
    }

    /// Forgets dates up to `last`, of which none is open.
    pub(super) fn forget_through(&mut self, last: BusinessDate) {
        self.0.retain(|&(date, count)| date > last || count > 0);
    }
}

impl Index<PaymentSlot> for Residents {
    type Output = PaymentRecord;

    #[inline]
    fn index(&self, slot: PaymentSlot) -> &PaymentRecord {
        &self.records[slot.index()]
    }
}

impl IndexMut<PaymentSlot> for Residents {
    #[inline]
    fn index_mut(&mut self, slot: PaymentSlot) -> &mut PaymentRecord {
        &mut self.records[slot.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{BusinessDate, Code, ParticipantIndex, PaymentId, PaymentState, UtcNanos, WindowId};

    fn open(serial: u64) -> PaymentRecord {
        PaymentRecord {
            id: PaymentId::new(BusinessDate(20_190_204), ParticipantIndex(0), 0, serial),
            time_ns: serial,
            state: PaymentState::Reserved as u8,
            ..PaymentRecord::zeroed()
        }
    }

    fn put(table: &mut Residents, serial: u64) -> Option<u32> {
        let slot = table.next_free()?;
        table.put(slot, open(serial), serial * 100);
        Some(slot.0)
    }

    fn finish(table: &mut Residents, slot: u32) {
        table[PaymentSlot(slot)].finish(PaymentState::Declined, Code::BankDeclined, UtcNanos(9), WindowId::NONE);
    }

    #[test]
    fn open_payments_stay_where_they_are_and_final_ones_make_room() {
        let mut table = Residents::new(4, false).unwrap();
        assert_eq!(
            [1, 2, 3, 4].map(|serial| put(&mut table, serial)),
            [Some(0), Some(1), Some(2), Some(3)]
        );
        assert_eq!(put(&mut table, 5), None, "nothing is final");
        finish(&mut table, 2);
        assert_eq!(put(&mut table, 5), Some(2));
        assert_eq!(
            (table.generation(PaymentSlot(2)), table.generation(PaymentSlot(1))),
            (2, 1)
        );
        finish(&mut table, 1);
        finish(&mut table, 3);
        assert_eq!(
            [6, 7, 8].map(|serial| put(&mut table, serial)),
            [Some(3), Some(1), None]
        );
        assert_eq!(table.place(PaymentSlot(1)).position, 700);
        assert_eq!((table.len(), table.taken()), (4, 7));
        let oldest: Vec<u64> = table.open().iter().map(|slot| table[*slot].id.serial()).collect();
        assert_eq!(oldest, [1, 5, 6, 7]);
    }
}
