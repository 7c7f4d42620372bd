//! Framing: how a frame begins, how it is checked.
//!
//! ```text
//!  0 length u16 (whole frame) │ 2 0xEB50 u16 │ 4 blockLength u16 │ 6 templateId u16 │ 8 schemaId u16 │ 10 version u16
//! 12 crc u32 (CRC-32C of every byte of the frame but these four)   │ 16 the rest of the block
//! ```
//! The first four bytes are the framing header, the next eight the SBE message header (FIX Simple Binary Encoding 1.0,
//! section 3.2); `blockLength` is `length − 12`. Every size is a multiple of 16.

use bytemuck::{Pod, Zeroable};
use thiserror::Error;

/// The encoding type that follows the length: SBE 1.0, little-endian (FIX Simple Open Framing Header registry).
pub const ENCODING: u16 = 0xEB50;
/// The schema's id in `schema/clearway-sbe.xml`.
pub const SCHEMA_ID: u16 = 0x4357;
/// The schema's version.
pub const SCHEMA_VERSION: u16 = 1;
/// Bytes before the CRC.
pub const FRAME_PREFIX_BYTES: usize = 12;
/// The longest frame of this schema.
pub const FRAME_BYTES_MAX: usize = 128;

/// The 16 bytes every frame begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FrameHeader {
    /// Length of the whole frame, bytes.
    pub length: u16,
    /// [`ENCODING`].
    pub encoding: u16,
    /// Length of the block, bytes.
    pub block_length: u16,
    /// [`Template`] as a number.
    pub template: u16,
    /// [`SCHEMA_ID`].
    pub schema: u16,
    /// [`SCHEMA_VERSION`].
    pub version: u16,
    /// CRC-32C of the frame without this field.
    pub crc: u32,
}

const _: () = assert!(size_of::<FrameHeader>() == 16);

impl FrameHeader {
    /// The header of a frame of `length` bytes, CRC still zero.
    #[must_use]
    pub const fn new(template: Template, length: usize) -> Self {
        Self {
            length: length as u16,
            encoding: ENCODING,
            block_length: (length - FRAME_PREFIX_BYTES) as u16,
            template: template as u16,
            schema: SCHEMA_ID,
            version: SCHEMA_VERSION,
            crc: 0,
        }
    }
}

macro_rules! templates {
    ($($name:ident = $number:literal, $length:literal, $doc:literal;)+) => {
        /// What a frame is.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Template { $(#[doc = $doc] $name = $number,)+ }

        impl Template {
            /// Every template, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Reads a template's number.
            #[must_use]
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }

            /// The one length a frame of this template has, bytes.
            #[must_use]
            pub const fn length(self) -> usize {
                match self { $(Self::$name => $length,)+ }
            }
        }
    };
}

templates! {
    Negotiate = 1, 80, "A participant opens a session and says who it is.";
    NegotiationResponse = 2, 48, "The switch accepts it.";
    NegotiationReject = 3, 32, "The switch refuses it and closes.";
    Establish = 4, 64, "The participant starts the flow, states its credit and the last word it has.";
    EstablishmentAck = 5, 64, "The switch starts the flow and states its credit.";
    EstablishmentReject = 6, 32, "The switch refuses it and closes.";
    Sequence = 7, 32, "Heartbeat: the next word's number.";
    RetransmitRequest = 8, 48, "A participant asks for words again.";
    Retransmission = 9, 48, "The switch says which words follow again.";
    Terminate = 10, 32, "Either side ends the session, with a code.";
    Credit = 11, 32, "Either side changes its flow contract.";
    PaymentRequest = 16, 128, "A payment, from its initiator to the switch and from the switch to the bank.";
    Reply = 17, 64, "A bank's word on a payment, a status request or a Reversal.";
    Answer = 18, 96, "The switch's final word to the initiator, or a refusal.";
    StatusRequest = 19, 64, "The switch asks the bank about a payment in doubt.";
    Reversal = 20, 80, "The switch reverses an expired pull at the bank.";
    FinalNotice = 21, 80, "Confirm or final-state notice of a push to the bank.";
    Inquiry = 22, 48, "A participant asks the switch about a payment.";
    InquiryAnswer = 23, 80, "The switch answers an inquiry from its own state.";
}

/// A frame as a struct: its template and its bytes.
pub trait Frame: Pod {
    /// The frame's template; its length is the struct's size.
    const TEMPLATE: Template;

    /// The frame with a fresh header and CRC.
    #[must_use]
    fn sealed(mut self) -> Self {
        seal(bytemuck::bytes_of_mut(&mut self), Self::TEMPLATE);
        self
    }

    /// Reads the frame from its bytes, at any offset; the bytes have passed [`decode`].
    ///
    /// # Panics
    /// When `bytes` is shorter than the frame.
    #[must_use]
    fn read(bytes: &[u8]) -> Self {
        bytemuck::pod_read_unaligned(&bytes[..size_of::<Self>()])
    }
}

/// Writes header and CRC of a frame that fills `bytes`.
pub fn seal(bytes: &mut [u8], template: Template) {
    debug_assert_eq!(bytes.len(), template.length());
    let header = FrameHeader::new(template, bytes.len());
    bytes[..16].copy_from_slice(bytemuck::bytes_of(&header));
    let crc = frame_crc(bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// Why bytes are not a frame. Each costs the sender its link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FrameError {
    /// The framing or message header is not of this schema.
    #[error("frame header is not of schema {SCHEMA_ID:#06x} version {SCHEMA_VERSION}")]
    Header,
    /// No such template.
    #[error("template {0} is unknown")]
    Template(u16),
    /// The length is not the template's.
    #[error("template {template} has {expected} bytes, not {length}")]
    Length {
        /// The template's number.
        template: u16,
        /// What it should have been.
        expected: u16,
        /// What the frame says.
        length: u16,
    },
    /// The CRC does not match.
    #[error("frame CRC does not match")]
    Crc,
}

/// Looks at the first bytes of a stream: the frame's length when the whole frame is there, `None` when more must come.
///
/// The length and header are checked as soon as their bytes are there, so that a sender of nonsense is not waited for.
///
/// # Errors
/// [`FrameError`] when the bytes can't become a frame.
#[inline]
pub fn frame_length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    if bytes.len() < FRAME_PREFIX_BYTES {
        if bytes.len() >= 4 && bytes[2..4] != ENCODING.to_le_bytes() {
            return Err(FrameError::Header);
        }
        return Ok(None);
    }
    let at = |i: usize| u16::from_le_bytes([bytes[i], bytes[i + 1]]);
    if at(2) != ENCODING || at(8) != SCHEMA_ID || at(10) != SCHEMA_VERSION {
        return Err(FrameError::Header);
    }
    let Some(template) = Template::from_u16(at(6)) else {
        return Err(FrameError::Template(at(6)));
    };
    let expected = template.length();
    if at(0) as usize != expected || at(4) as usize != expected - FRAME_PREFIX_BYTES {
        return Err(FrameError::Length {
            template: at(6),
            expected: expected as u16,
            length: at(0),
        });
    }
    Ok((bytes.len() >= expected).then_some(expected))
}

/// Checks the next frame of a stream: its template and length, or `None` when more bytes must come.
///
/// # Errors
/// [`FrameError`] when the bytes are not a frame.
#[inline]
pub fn decode(bytes: &[u8]) -> Result<Option<(Template, usize)>, FrameError> {
    let Some(length) = frame_length(bytes)? else {
        return Ok(None);
    };
    let frame = &bytes[..length];
    if frame_crc(frame).to_le_bytes() != frame[12..16] {
        return Err(FrameError::Crc);
    }
    let number = u16::from_le_bytes([frame[6], frame[7]]);
    Ok(Template::from_u16(number).map(|template| (template, length)))
}

#[inline]
fn frame_crc(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..12]), &frame[16..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_a_multiple_of_sixteen_and_fits() {
        for &template in Template::ALL {
            assert_eq!(template.length() % 16, 0, "{template:?}");
            assert!(template.length() <= FRAME_BYTES_MAX);
            assert_eq!(Template::from_u16(template as u16), Some(template));
        }
    }

    #[test]
    fn a_sealed_frame_decodes_and_any_flipped_bit_is_found() {
        for &template in Template::ALL {
            let mut bytes: Vec<u8> = (0..template.length()).map(|i| i as u8).collect();
            seal(&mut bytes, template);
            assert_eq!(decode(&bytes), Ok(Some((template, template.length()))));
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    !matches!(decode(&bytes), Ok(Some(_))),
                    "{template:?}: bit {bit} went unnoticed"
                );
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_part_of_a_frame_asks_for_more() {
        let mut bytes = vec![0; 128];
        seal(&mut bytes, Template::PaymentRequest);
        for end in 0..128 {
            assert_eq!(decode(&bytes[..end]), Ok(None), "{end} bytes");
        }
    }
}
