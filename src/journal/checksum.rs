//! CRC-32C of a record, as fast as the processor can: the same number that any CRC-32C over the same bytes gives.
//!
//! The processor's CRC instruction takes eight bytes in three cycles but can begin one every cycle, so that one chain over
//! a record of 160 bytes waits two cycles in three. Here the record is cut in three lanes whose chains run side by side;
//! a carry-less multiplication then moves the first two results over the bytes behind them (Gopal et al., "Fast CRC
//! Computation for iSCSI Polynomial Using CRC32 Instruction", Intel 2011). `bench/journal.rs` shows what it is worth.
//! Where the processor has no such instructions the `crc32c` crate does it.

use super::layout::RecordHeader;

/// CRC-32C over `header` and `payload`, going on from `seed`. The payload's length is a multiple of 8.
#[inline]
pub(super) fn checksum(seed: u32, header: &RecordHeader, payload: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") && std::arch::is_x86_feature_detected!("pclmulqdq") {
        // SAFETY: the processor has both instructions.
        return unsafe { lanes::checksum(seed, header, payload) };
    }
    chain(seed, header, payload)
}

fn chain(seed: u32, header: &RecordHeader, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, bytemuck::bytes_of(header)), payload)
}

#[cfg(target_arch = "x86_64")]
mod lanes {
    use std::arch::x86_64::{_mm_clmulepi64_si128, _mm_crc32_u64, _mm_cvtsi64_si128, _mm_cvtsi128_si64};

    use super::super::layout::{RECORD_BYTES_MAX, RecordHeader};

    /// The Castagnoli polynomial, bits reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// What moves a CRC over `n` words of 8 bytes: x^(64 n − 33) modulo the polynomial, bits reversed. The 33 are the 32
    /// that the CRC instruction adds when it reduces the product and the one by which a product of reversed numbers
    /// falls short.
    static SHIFTS: [u32; RECORD_BYTES_MAX as usize / 8 + 1] = {
        let mut shifts = [0; RECORD_BYTES_MAX as usize / 8 + 1];
        let mut power: u32 = 1 << 31;
        let mut exponent = 0;
        let mut words = 1;
        while words < shifts.len() {
            while exponent < 64 * words - 33 {
                power = (power >> 1) ^ if power & 1 == 1 { POLYNOMIAL } else { 0 };
                exponent += 1;
            }
            shifts[words] = power;
            words += 1;
        }
        shifts
    };

    /// See [`super::checksum`].
    #[target_feature(enable = "sse4.2,pclmulqdq")]
    pub(super) fn checksum(seed: u32, header: &RecordHeader, payload: &[u8]) -> u32 {
        let head: &[u64; 4] = bytemuck::cast_ref(header);
        let (words, rest) = payload.as_chunks::<8>();
        debug_assert!(rest.is_empty());
        let mut first = u64::from(!seed);
        for &word in head {
            first = _mm_crc32_u64(first, word);
        }
        let lane = ((head.len() + words.len()) / 3).min(words.len() / 2);
        let (begin, lanes) = words.split_at(words.len() - 2 * lane);
        for &word in begin {
            first = _mm_crc32_u64(first, u64::from_le_bytes(word));
        }
        let (left, right) = lanes.split_at(lane);
        let Some((&last, right)) = right.split_last() else {
            return !(first as u32);
        };
        let (mut second, mut third) = (0, 0);
        let (before_last, left_last) = left.split_at(right.len());
        for (&left, &right) in before_last.iter().zip(right) {
            second = _mm_crc32_u64(second, u64::from_le_bytes(left));
            third = _mm_crc32_u64(third, u64::from_le_bytes(right));
        }
        for &left in left_last {
            second = _mm_crc32_u64(second, u64::from_le_bytes(left));
        }
        // The products are reduced with the third lane's last word.
        let moved = product(first, SHIFTS[2 * lane]) ^ product(second, SHIFTS[lane]);
        !(_mm_crc32_u64(third, u64::from_le_bytes(last) ^ moved) as u32)
    }

    #[target_feature(enable = "pclmulqdq")]
    fn product(crc: u64, shift: u32) -> u64 {
        let product = _mm_clmulepi64_si128::<0>(_mm_cvtsi64_si128(crc as i64), _mm_cvtsi64_si128(i64::from(shift)));
        _mm_cvtsi128_si64(product) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_give_the_same_crc_as_one_chain_for_every_length_there_is() {
        let header: RecordHeader = bytemuck::cast([0x0123_4567_89ab_cdef_u64, 42, 1 << 63, 7]);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes: Vec<u8> = (0..4_096)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        for length in (0..=4_064).step_by(8) {
            for seed in [0, u32::MAX, length as u32 | 0x5a5a_0000] {
                let payload = &bytes[..length];
                assert_eq!(
                    checksum(seed, &header, payload),
                    chain(seed, &header, payload),
                    "{length}"
                );
            }
        }
    }
}
