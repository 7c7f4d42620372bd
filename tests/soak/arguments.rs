//! What the soak is told on its command line.

use std::time::{SystemTime, UNIX_EPOCH};

/// Rounds that a test run makes.
const ROUNDS: u64 = 50;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments {
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
}

impl Arguments {
    /// Reads `--rounds N` and `--seed N`. None where the words are for other tests: a filter that does not mean this one, a
    /// wish for a list.
    pub(crate) fn read() -> Option<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let mut read = Self {
            rounds: ROUNDS,
            seed: u64::from(since.subsec_nanos()) ^ since.as_secs() << 20,
        };
        let words: Vec<String> = std::env::args().skip(1).collect();
        let mut words = words.iter().flat_map(|word| word.split('='));
        while let Some(word) = words.next() {
            let mut number = || {
                let number = words.next().and_then(|word| word.parse().ok());
                number.unwrap_or_else(|| panic!("{word} takes a number"))
            };
            match word {
                "--rounds" => read.rounds = number(),
                "--seed" => read.seed = number(),
                "--list" | "--ignored" => return None,
                // Those of the tests' usual harness that say how to run, not what.
                "--test-threads" | "--skip" | "--format" | "--color" | "-Z" | "--report-time" => drop(words.next()),
                flag if flag.starts_with('-') => {}
                filter if !"soak".contains(filter) => return None,
                _ => {}
            }
        }
        Some(read)
    }
}
