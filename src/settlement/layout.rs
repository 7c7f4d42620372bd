//! The spool's files, byte by byte; all numbers little-endian.
//!
//! ```text
//! spool/W202611230001.finals     header, then a record a payment that became final while the window was its currency's open one
//! spool/W202611230001.facts      header, then a record a participant: there whole or not at all, once the window is closed
//! spool/movements                header, then a record a change of cover, since Genesis
//!
//! header     0 magic [u8;8] │ 8 kind u32 │ 12 record bytes u32 │ 16 journal id [u8;16] │ 32 window u64 │ 40 currency u16
//!           42 scheme code [u8;14] │ 56 finals before u64 │ 64 opened u64 │ 72 closed u64 │ 80 close event u64 │ 88 finals u64
//!           96 committed u64 │ 104 gross [u8;16] │ 120 records u32 │ 124 CRC u32
//! final      0 event u64 │ 8 register entry, 96 bytes │ 104 number u32 │ 108 CRC u32
//! movement   0 event u64 │ 8 time u64 │ 16 window u64 │ 24 change [u8;16] │ 40 cover [u8;16] │ 56 participant u16
//!           58 currency u16 │ 60 reason u8 │ 61 role u8 │ 62 code [u8;14] │ 76 zero │ 80 number u32 │ 84 CRC u32
//! party      0 index u16 │ 2 code [u8;14] │ 16 net [u8;16] │ 32 role u8 │ 33 zero │ 36 number u32 │ 40 zero │ 44 CRC u32
//! ```
//! A CRC is CRC-32C over all that stands before it in its header or record; of a record it goes on from that of its file's
//! header, so that a record of another journal or window never parses. `number` counts a file's records from 0.

use bytemuck::{Pod, Zeroable};

use super::facts::Party;
use crate::domain::{Currency, ParticipantIndex, Position, Role, SchemeCode, UtcNanos, WindowId};
use crate::wire::{CoverMovement, CoverReason, RegisterEntry};

/// What a file of the spool holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum SpoolKind {
    Finals = 1,
    Facts = 2,
    Movements = 3,
}

/// The header of each file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SpoolHeader {
    pub(super) magic: [u8; 8],
    pub(super) kind: u32,
    pub(super) record_bytes: u32,
    pub(super) journal_id: [u8; 16],
    pub(super) window: WindowId,
    pub(super) currency: u16,
    pub(super) scheme: SchemeCode,
    /// Payments filed in earlier windows of the currency since Genesis.
    pub(super) before: u64,
    /// Of facts from here on; zero in the others, whose header is written before it is known.
    pub(super) opened: UtcNanos,
    pub(super) closed: UtcNanos,
    pub(super) close_event: u64,
    pub(super) finals: u64,
    pub(super) committed: u64,
    pub(super) gross: [u8; 16],
    pub(super) records: u32,
    pub(super) crc: u32,
}

pub(super) const HEADER_BYTES: usize = size_of::<SpoolHeader>();
const _: () = assert!(HEADER_BYTES == 128);

impl SpoolHeader {
    pub(super) const MAGIC: [u8; 8] = *b"CWSPOOL1";

    pub(super) fn new(kind: SpoolKind, journal_id: [u8; 16], scheme: SchemeCode) -> Self {
        Self {
            magic: Self::MAGIC,
            kind: kind as u32,
            record_bytes: match kind {
                SpoolKind::Finals => size_of::<FinalRecord>(),
                SpoolKind::Facts => size_of::<PartyRecord>(),
                SpoolKind::Movements => size_of::<MovementRecord>(),
            } as u32,
            journal_id,
            scheme,
            ..Self::zeroed()
        }
    }

    pub(super) fn sealed(mut self) -> Self {
        self.crc = crc(0, bytemuck::bytes_of(&self));
        self
    }

    /// What is wrong with a header, in words.
    pub(super) fn fault(&self, kind: SpoolKind, journal_id: [u8; 16]) -> Option<&'static str> {
        let expected = Self::new(kind, journal_id, self.scheme);
        if self.magic != Self::MAGIC {
            return Some("it is no file of a spool of this version");
        }
        if self.crc != crc(0, bytemuck::bytes_of(self)) {
            return Some("its header is damaged");
        }
        if self.kind != expected.kind || self.record_bytes != expected.record_bytes {
            return Some("it is a spool file of another kind");
        }
        (self.journal_id != journal_id).then_some("it belongs to another journal")
    }
}

/// A record with a number and a CRC at its end.
pub(super) trait SpoolRecord: Pod {
    fn number(&self) -> u32;
    fn stated_crc(&self) -> u32;
    fn event(&self) -> u64;

    /// True when it is record `number` of the file with this header's CRC.
    fn is_whole(&self, header_crc: u32, number: u64) -> bool {
        self.number() == number as u32 && self.stated_crc() == crc(header_crc, bytemuck::bytes_of(self))
    }
}

#[inline]
fn crc(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, &bytes[..bytes.len() - size_of::<u32>()])
}

/// A payment that became final.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct FinalRecord {
    pub(super) event: u64,
    pub(super) entry: RegisterEntry,
    number: u32,
    crc: u32,
}

const _: () = assert!(size_of::<FinalRecord>() == 112);

impl FinalRecord {
    #[inline]
    pub(super) fn new(event: u64, entry: &RegisterEntry, number: u64, header_crc: u32) -> Self {
        let mut record = Self {
            event,
            entry: *entry,
            number: number as u32,
            crc: 0,
        };
        record.crc = crc(header_crc, bytemuck::bytes_of(&record));
        record
    }
}

impl SpoolRecord for FinalRecord {
    fn number(&self) -> u32 {
        self.number
    }
    fn stated_crc(&self) -> u32 {
        self.crc
    }
    fn event(&self) -> u64 {
        self.event
    }
}

/// A change of cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct MovementRecord {
    event: u64,
    time: UtcNanos,
    window: WindowId,
    change: [u8; 16],
    cover: [u8; 16],
    participant: ParticipantIndex,
    currency: u16,
    reason: u8,
    pub(super) role: u8,
    pub(super) code: SchemeCode,
    reserved: u32,
    number: u32,
    crc: u32,
}

const _: () = assert!(size_of::<MovementRecord>() == 88);

impl MovementRecord {
    pub(super) fn new(movement: &CoverMovement, code: SchemeCode, role: u8, number: u64, header_crc: u32) -> Self {
        let mut record = Self {
            event: movement.event,
            time: movement.time,
            window: movement.window,
            change: movement.change_minor.to_le_bytes(),
            cover: movement.cover_minor.to_le_bytes(),
            participant: movement.participant,
            currency: movement.currency.0,
            reason: movement.reason as u8,
            role,
            code,
            reserved: 0,
            number: number as u32,
            crc: 0,
        };
        record.crc = crc(header_crc, bytemuck::bytes_of(&record));
        record
    }

    /// The movement; `None` where a number is none that can be.
    pub(super) fn movement(&self) -> Option<(CoverMovement, SchemeCode, Role)> {
        let movement = CoverMovement {
            event: self.event,
            time: self.time,
            participant: self.participant,
            currency: Currency(self.currency),
            reason: CoverReason::from_u8(self.reason)?,
            window: self.window,
            change_minor: Position::from_le_bytes(self.change),
            cover_minor: Position::from_le_bytes(self.cover),
        };
        Some((movement, self.code, Role::from_u8(self.role)?))
    }
}

impl SpoolRecord for MovementRecord {
    fn number(&self) -> u32 {
        self.number
    }
    fn stated_crc(&self) -> u32 {
        self.crc
    }
    fn event(&self) -> u64 {
        self.event
    }
}

/// A participant of a closed window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PartyRecord {
    index: ParticipantIndex,
    code: SchemeCode,
    net: [u8; 16],
    role: u8,
    reserved: [u8; 3],
    number: u32,
    zero: u32,
    crc: u32,
}

const _: () = assert!(size_of::<PartyRecord>() == 48);

impl PartyRecord {
    pub(super) fn new(party: &Party, number: u64, header_crc: u32) -> Self {
        let mut record = Self {
            index: party.index,
            code: party.code,
            net: party.net_minor.to_le_bytes(),
            role: party.role as u8,
            reserved: [0; 3],
            number: number as u32,
            zero: 0,
            crc: 0,
        };
        record.crc = crc(header_crc, bytemuck::bytes_of(&record));
        record
    }

    pub(super) fn party(&self) -> Option<Party> {
        Some(Party {
            index: self.index,
            code: self.code,
            role: Role::from_u8(self.role)?,
            net_minor: Position::from_le_bytes(self.net),
        })
    }
}

impl SpoolRecord for PartyRecord {
    fn number(&self) -> u32 {
        self.number
    }
    fn stated_crc(&self) -> u32 {
        self.crc
    }
    fn event(&self) -> u64 {
        0
    }
}
