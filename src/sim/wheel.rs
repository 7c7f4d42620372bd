//! When a bank replies and an institution repeats itself: a timing wheel of 65.5 µs steps.

const STEP_BITS: u32 = 16;
const SLOTS: u64 = 32_768;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// The bank says its word on the payment with this number.
    Reply(u32),
    /// The institution sends the request with this number again, on purpose.
    Repeat(u32),
    /// The institution sends the request with this number again, because it was not taken.
    Retry(u32),
}

/// Timers up to two seconds ahead, longer ones are cut to that; setting and firing one costs a few nanoseconds.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<Due>>,
    /// The last step that was fired.
    step: u64,
    waiting: usize,
}

impl Wheel {
    /// An empty wheel that stands at `now_ns`.
    #[must_use]
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS as usize],
            step: now_ns >> STEP_BITS,
            waiting: 0,
        }
    }

    /// How many timers wait.
    #[must_use]
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Sets a timer; it fires at the first step after `due_ns`.
    #[inline]
    pub(super) fn set(&mut self, due_ns: u64, due: Due) {
        let step = ((due_ns >> STEP_BITS) + 1).clamp(self.step + 1, self.step + SLOTS - 1);
        self.slots[(step % SLOTS) as usize].push(due);
        self.waiting += 1;
    }

    /// Moves what is due at `now_ns` to `fired`.
    #[inline]
    pub(super) fn fire(&mut self, now_ns: u64, fired: &mut Vec<Due>) {
        let now = now_ns >> STEP_BITS;
        while self.step < now {
            if self.waiting == 0 {
                self.step = now;
                return;
            }
            self.step += 1;
            let slot = &mut self.slots[(self.step % SLOTS) as usize];
            self.waiting -= slot.len();
            fired.append(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_fires_early_and_all_fires_within_a_step() {
        let mut wheel = Wheel::new(5_000_000);
        let dues: Vec<u64> = (0..1_000).map(|n| 5_000_000 + n * 997_003).collect();
        for (number, &due) in dues.iter().enumerate() {
            wheel.set(due, Due::Reply(number as u32));
        }
        let mut now = 5_000_000;
        let mut count = 0;
        while wheel.waiting() > 0 {
            now += 30_000;
            let mut fired = Vec::new();
            wheel.fire(now, &mut fired);
            for due in fired {
                let Due::Reply(number) = due else { panic!("{due:?}") };
                let due = dues[number as usize];
                assert!(due <= now && now - due < 2 * 65_536 + 30_000, "{due} fired at {now}");
                count += 1;
            }
        }
        assert_eq!(count, 1_000);
    }

    #[test]
    fn a_wheel_that_slept_long_fires_all_it_holds() {
        let mut wheel = Wheel::new(0);
        wheel.set(60_000_000_000, Due::Repeat(1));
        wheel.set(1, Due::Reply(2));
        let mut fired = Vec::new();
        wheel.fire(u64::MAX / 2, &mut fired);
        assert_eq!(fired.len(), 2);
    }
}
