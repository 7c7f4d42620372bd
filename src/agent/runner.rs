//! A thread that runs an agent: placement on a core, scheduling class, the idle loop, the stop flag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;

use super::idle::IdleStep;
use super::{Agent, AgentError, IdleStrategy, Wakeup};

/// Asks a thread to end; shared with whoever may ask.
#[derive(Clone, Default, Debug)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks; the thread must still be woken.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// True when asked.
    #[must_use]
    #[inline]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The scheduling class a thread asked for or got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ScheduleClass {
    /// The default class.
    Normal = 0,
    /// The default class at nice −10.
    Nice = 1,
    /// `SCHED_FIFO`.
    Fifo = 2,
    /// The default class at nice 19: what the others leave.
    Low = 3,
}

impl ScheduleClass {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Nice, Self::Fifo, Self::Low];

    /// The class's name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Nice => "nice",
            Self::Fifo => "fifo",
            Self::Low => "low",
        }
    }

    /// Moves the calling thread to the best class it may have, at most this one, and says which that is.
    #[must_use]
    pub fn apply_to_current_thread(self) -> Self {
        if self == Self::Low {
            // SAFETY: no memory is involved; on Linux PRIO_PROCESS with 0 is the calling thread.
            let lowered = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } == 0;
            if lowered {
                crate::memory::leave_mapping_to_the_mapper();
                return Self::Low;
            }
            return Self::Normal;
        }
        if self == Self::Fifo {
            let parameter = libc::sched_param { sched_priority: 10 };
            // SAFETY: `parameter` lives across the call; pid 0 is the calling thread.
            if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) } == 0 {
                return Self::Fifo;
            }
        }
        if self != Self::Normal {
            // SAFETY: no memory is involved; on Linux PRIO_PROCESS with 0 is the calling thread.
            if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) } == 0 {
                return Self::Nice;
            }
        }
        Self::Normal
    }
}

/// Where and how a thread runs.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The core it is pinned to; `None` = wherever the kernel likes.
    pub core: Option<usize>,
    /// The scheduling class it asks for.
    pub class: ScheduleClass,
    /// What it does when there is nothing to do.
    pub idle: IdleStrategy,
}

/// A running agent's thread.
#[derive(Debug)]
pub struct AgentThread {
    thread: JoinHandle<Result<(), AgentError>>,
    wakeup: Arc<Wakeup>,
    stop: StopFlag,
    class: Arc<AtomicU8>,
}

impl AgentThread {
    /// Asks the thread to end and waits until it has.
    ///
    /// # Errors
    /// What its agent ended with.
    pub fn stop(self) -> Result<(), AgentError> {
        self.stop.stop();
        self.join()
    }

    /// Waits until the thread has ended.
    ///
    /// # Errors
    /// What its agent ended with.
    pub fn join(self) -> Result<(), AgentError> {
        self.wakeup.wake();
        self.thread
            .join()
            .unwrap_or_else(|_| Err(AgentError::new("agent", "its thread panicked")))
    }

    /// True when the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// The scheduling class the thread got.
    #[must_use]
    pub fn class(&self) -> ScheduleClass {
        match self.class.load(Ordering::Acquire) {
            3 => ScheduleClass::Low,
            2 => ScheduleClass::Fifo,
            1 => ScheduleClass::Nice,
            _ => ScheduleClass::Normal,
        }
    }
}

/// Starts a thread that runs `agent` until `stop` is set or the agent fails. A failing agent sets `stop` for all who
/// share it.
///
/// # Errors
/// When the thread can't be started.
pub fn spawn(
    mut agent: Box<dyn Agent>,
    placement: Placement,
    wakeup: Arc<Wakeup>,
    stop: StopFlag,
) -> std::io::Result<AgentThread> {
    let class = Arc::new(AtomicU8::new(0));
    let (placed, is_placed) = std::sync::mpsc::sync_channel(1);
    // Thread names hold 15 bytes.
    let name: String = agent.role_name().chars().take(15).collect();
    let thread = {
        let (wakeup, stop, class) = (wakeup.clone(), stop.clone(), class.clone());
        std::thread::Builder::new().name(name).spawn(move || {
            if let Some(core) = placement.core {
                core_affinity::set_for_current(core_affinity::CoreId { id: core });
            }
            class.store(placement.class.apply_to_current_thread() as u8, Ordering::Release);
            let _ = placed.send(());
            let result = agent
                .on_start()
                .and_then(|()| duty_cycle(&mut *agent, placement.idle, &wakeup, &stop));
            if result.is_err() {
                stop.stop();
            }
            agent.on_close();
            result
        })?
    };
    // What the thread was given is known when this returns.
    let _ = is_placed.recv();
    Ok(AgentThread {
        thread,
        wakeup,
        stop,
        class,
    })
}

fn duty_cycle(agent: &mut dyn Agent, idle: IdleStrategy, wakeup: &Wakeup, stop: &StopFlag) -> Result<(), AgentError> {
    let mut idle_rounds = 0u32;
    while !stop.is_set() {
        if agent.do_work()? > 0 {
            idle_rounds = 0;
            continue;
        }
        idle_rounds = idle_rounds.saturating_add(1);
        match idle.step(idle_rounds) {
            IdleStep::Again => std::hint::spin_loop(),
            IdleStep::Sleep(time) => {
                let limit = agent.park_limit().map_or(time, |limit| limit.min(time));
                std::thread::sleep(limit);
            }
            IdleStep::Park => {
                wakeup.arm();
                if agent.do_work()? == 0 && !stop.is_set() {
                    let limit = agent.park_limit();
                    agent.park(wakeup, limit);
                } else {
                    idle_rounds = 0;
                }
                wakeup.disarm();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Failing(Arc<AtomicUsize>);

    impl Agent for Failing {
        fn do_work(&mut self) -> Result<usize, AgentError> {
            if self.0.fetch_add(1, Ordering::Relaxed) == 3 {
                return Err(AgentError::new("failing", "on purpose"));
            }
            Ok(1)
        }
        fn on_close(&mut self) {
            self.0.fetch_add(100, Ordering::Relaxed);
        }
        fn role_name(&self) -> &str {
            "failing"
        }
    }

    #[test]
    fn a_failing_agent_is_closed_and_stops_its_peers() {
        let (count, stop) = (Arc::new(AtomicUsize::new(0)), StopFlag::default());
        let placement = Placement {
            core: None,
            class: ScheduleClass::Normal,
            idle: IdleStrategy::Park { spins: 0 },
        };
        let wakeup = Arc::new(Wakeup::new().unwrap());
        let thread = spawn(Box::new(Failing(count.clone())), placement, wakeup, stop.clone()).unwrap();
        assert_eq!(thread.join().unwrap_err().to_string(), "failing: on purpose");
        assert!(stop.is_set());
        assert_eq!(count.load(Ordering::Relaxed), 104);
    }
}
