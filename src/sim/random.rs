//! Random numbers that repeat: one seed, one run.

/// SplitMix64's output function: spreads a number over all 64 bits.
#[must_use]
#[inline]
pub const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and good enough for a load.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    #[inline]
    pub const fn bits(&mut self) -> u64 {
        let value = mix(self.0);
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        value
    }

    /// A number from 0 to `end` − 1.
    #[inline]
    pub const fn below(&mut self, end: u64) -> u64 {
        ((self.bits() as u128 * end as u128) >> 64) as u64
    }

    /// A number from 0.0 to under 1.0.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True `per_hundred_thousand` times in 100,000.
    #[inline]
    pub const fn chance(&mut self, per_hundred_thousand: u32) -> bool {
        self.below(100_000) < per_hundred_thousand as u64
    }

    /// A standard normal deviate (Box–Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Draws among weighted items in one look: 65,536 places, shared out by weight; every item has at least one.
#[derive(Clone, Debug)]
pub struct Picker {
    places: Vec<u16>,
}

impl Picker {
    const PLACES: usize = 65_536;

    /// A picker of item numbers 0.. by their weights.
    ///
    /// # Panics
    /// When there are no items, or more than there are places.
    #[must_use]
    pub fn new(weights: &[f64]) -> Self {
        assert!(
            !weights.is_empty() && weights.len() <= Self::PLACES,
            "{} items",
            weights.len()
        );
        let spare = (Self::PLACES - weights.len()) as f64;
        let total: f64 = weights.iter().sum();
        let mut places = Vec::with_capacity(Self::PLACES);
        let mut carried = 0.0;
        for (item, weight) in weights.iter().enumerate() {
            carried += weight / total * spare;
            let whole = carried.floor();
            carried -= whole;
            places.extend(std::iter::repeat_n(item as u16, 1 + whole as usize));
        }
        // Rounding may leave a place or two; they are the first item's.
        places.resize(Self::PLACES, 0);
        Self { places }
    }

    /// All items alike.
    #[must_use]
    pub fn uniform(items: usize) -> Self {
        Self::new(&vec![1.0; items])
    }

    /// Zipf's law: the n-th item has weight 1/n^exponent.
    #[must_use]
    pub fn zipf(items: usize, exponent: f64) -> Self {
        let weights: Vec<f64> = (1..=items).map(|rank| (rank as f64).powf(-exponent)).collect();
        Self::new(&weights)
    }

    /// Draws an item.
    #[inline]
    #[must_use]
    pub fn pick(&self, bits: u64) -> usize {
        usize::from(self.places[(bits & 0xffff) as usize])
    }
}

/// A log-normal factor in 1/1024, drawn in one look from a table made at the start.
#[derive(Clone, Debug)]
pub struct LogNormal {
    factors: Vec<u32>,
}

impl LogNormal {
    const FACTORS: usize = 8_192;

    /// Median 1, and `sigma` the standard deviation of the logarithm.
    #[must_use]
    pub fn new(sigma: f64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let factors = (0..Self::FACTORS)
            .map(|_| ((sigma * random.normal()).exp() * 1024.0).clamp(1.0, 4e9) as u32)
            .collect();
        Self { factors }
    }

    /// `median` times a factor drawn by `bits`, at least 1.
    #[inline]
    #[must_use]
    pub fn around(&self, median: u64, bits: u64) -> u64 {
        let factor = u128::from(self.factors[(bits as usize) % Self::FACTORS]);
        ((u128::from(median) * factor) >> 10).max(1) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..4).map(|_| random.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_picker_shares_by_weight_and_forgets_nobody() {
        let picker = Picker::zipf(424, 1.0);
        let mut counts = vec![0u32; 424];
        for bits in 0..65_536 {
            counts[picker.pick(bits)] += 1;
        }
        assert!(counts.iter().all(|&count| count > 0));
        assert!(counts[0] > 65_536 / 8, "{}", counts[0]);
        assert!(counts[0] > 5 * counts[9]);
    }

    #[test]
    fn half_of_a_log_normal_lies_below_its_median() {
        let factors = LogNormal::new(1.0, 3);
        let below = (0..8_192)
            .filter(|&bits| factors.around(1_000_000, bits) < 1_000_000)
            .count();
        assert!((3_900..4_300).contains(&below), "{below}");
    }
}
