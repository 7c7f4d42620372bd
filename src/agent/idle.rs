//! What a thread does when its agents had nothing to do.

use std::time::Duration;

/// An idle strategy, chosen by the hardware profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleStrategy {
    /// Never sleeps: for a core of its own.
    Spin,
    /// Looks again `spins` times, then sleeps in short steps that double up to `longest`, without being woken.
    Backoff {
        /// Looks before the first sleep.
        spins: u32,
        /// The longest sleep.
        longest: Duration,
    },
    /// Looks again `spins` times, then sleeps until woken: an idle switch costs nothing.
    Park {
        /// Looks before sleeping.
        spins: u32,
    },
}

/// Where a thread is in its idle strategy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IdleStep {
    Again,
    Sleep(Duration),
    Park,
}

impl IdleStrategy {
    /// What to do after `idle_rounds` rounds without work (from 1).
    pub(super) fn step(self, idle_rounds: u32) -> IdleStep {
        match self {
            Self::Spin => IdleStep::Again,
            Self::Backoff { spins, longest } => {
                if idle_rounds <= spins {
                    IdleStep::Again
                } else {
                    let doublings = (idle_rounds - spins - 1).min(20);
                    IdleStep::Sleep(Duration::from_micros(1 << doublings).min(longest))
                }
            }
            Self::Park { spins } => {
                if idle_rounds <= spins {
                    IdleStep::Again
                } else {
                    IdleStep::Park
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_longest_sleep() {
        let strategy = IdleStrategy::Backoff {
            spins: 2,
            longest: Duration::from_micros(100),
        };
        assert_eq!(strategy.step(2), IdleStep::Again);
        assert_eq!(strategy.step(3), IdleStep::Sleep(Duration::from_micros(1)));
        assert_eq!(strategy.step(5), IdleStep::Sleep(Duration::from_micros(4)));
        assert_eq!(strategy.step(1_000), IdleStep::Sleep(Duration::from_micros(100)));
    }

    #[test]
    fn park_looks_a_few_times_first() {
        assert_eq!(IdleStrategy::Park { spins: 1 }.step(1), IdleStep::Again);
        assert_eq!(IdleStrategy::Park { spins: 1 }.step(2), IdleStep::Park);
    }
}
