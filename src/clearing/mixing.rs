//! Where a serial lies in a partition: mixed by a step that can be undone and that only this process can foresee.

const FIRST_FACTOR: u64 = 0xBF58_476D_1CE4_E5B9;
const SECOND_FACTOR: u64 = 0x94D0_49BB_1331_11EB;

/// Spreads serials over 64 bits, two serials never to the same number: the finaliser of SplitMix64 with two numbers in it that
/// only this process knows. Serials are the participants' own choice; nobody may choose such as all lie in one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixing {
    pub(super) secret: u64,
    added: u64,
    flipped: u64,
}

impl Mixing {
    pub(super) fn new(key: u64, secret: u64) -> Self {
        let spread = |x: u64| {
            let x = (x ^ x >> 32).wrapping_mul(FIRST_FACTOR);
            (x ^ x >> 29).wrapping_mul(SECOND_FACTOR)
        };
        let added = spread(key ^ secret);
        Self {
            secret,
            added,
            flipped: spread(added ^ secret.rotate_left(32)),
        }
    }

    #[inline]
    pub(super) fn mix(self, serial: u64) -> u64 {
        let mut x = serial.wrapping_add(self.added);
        x = (x ^ x >> 30).wrapping_mul(FIRST_FACTOR) ^ self.flipped;
        x = (x ^ x >> 27).wrapping_mul(SECOND_FACTOR);
        x ^ x >> 31
    }

    /// The serial that was mixed.
    pub(super) fn unmix(self, mixed: u64) -> u64 {
        let mut x = mixed ^ mixed >> 31 ^ mixed >> 62;
        x = x.wrapping_mul(inverse(SECOND_FACTOR));
        x = x ^ x >> 27 ^ x >> 54;
        x = (x ^ self.flipped).wrapping_mul(inverse(FIRST_FACTOR));
        x = x ^ x >> 30 ^ x >> 60;
        x.wrapping_sub(self.added)
    }
}

/// The number that undoes a multiplication by an odd one, by Newton's method: each step doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut guess = odd;
    let mut step = 0;
    while step < 5 {
        guess = guess.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(guess)));
        step += 1;
    }
    guess
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_is_undone_for_every_kind_of_serial() {
        for (key, secret) in [(0, 0), (0x0135_2A5C_0007_0002, 7), (u64::MAX, u64::MAX), (1, 1 << 63)] {
            let mixing = Mixing::new(key, secret);
            for bit in 0..64 {
                for serial in [1 << bit, u64::MAX << bit, u64::MAX >> bit, 3u64.rotate_left(bit)] {
                    assert_eq!(mixing.unmix(mixing.mix(serial)), serial);
                }
            }
            assert_eq!(mixing.unmix(mixing.mix(0)), 0);
        }
    }
}
