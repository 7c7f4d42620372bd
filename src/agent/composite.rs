//! Several agents on one thread.

use std::time::Duration;

use super::{Agent, AgentError, Wakeup};

/// Runs its agents' duty cycles one after the other, in the order of the data path.
pub struct CompositeAgent {
    name: String,
    agents: Vec<Box<dyn Agent>>,
}

impl CompositeAgent {
    /// Puts agents on one duty cycle.
    #[must_use]
    pub fn new(agents: Vec<Box<dyn Agent>>) -> Self {
        let name = agents.iter().map(|a| a.role_name()).collect::<Vec<_>>().join("+");
        Self { name, agents }
    }
}

impl Agent for CompositeAgent {
    fn on_start(&mut self) -> Result<(), AgentError> {
        self.agents.iter_mut().try_for_each(|agent| agent.on_start())
    }

    fn do_work(&mut self) -> Result<usize, AgentError> {
        let mut work = 0;
        for agent in &mut self.agents {
            work += agent.do_work()?;
        }
        Ok(work)
    }

    fn on_close(&mut self) {
        for agent in &mut self.agents {
            agent.on_close();
        }
    }

    fn role_name(&self) -> &str {
        &self.name
    }

    fn park_limit(&mut self) -> Option<Duration> {
        self.agents.iter_mut().filter_map(|agent| agent.park_limit()).min()
    }

    fn park(&mut self, wakeup: &Wakeup, limit: Option<Duration>) {
        match self.agents.iter_mut().find(|agent| agent.parks_in_driver()) {
            Some(agent) => agent.park(wakeup, limit),
            None => wakeup.sleep(limit),
        }
    }

    fn parks_in_driver(&self) -> bool {
        self.agents.iter().any(|agent| agent.parks_in_driver())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Countdown(usize);

    impl Agent for Countdown {
        fn do_work(&mut self) -> Result<usize, AgentError> {
            let work = usize::from(self.0 > 0);
            self.0 -= work;
            Ok(work)
        }
        fn role_name(&self) -> &str {
            "countdown"
        }
        fn park_limit(&mut self) -> Option<Duration> {
            Some(Duration::from_millis(self.0 as u64 + 1))
        }
    }

    #[test]
    fn a_composite_does_the_work_of_all_and_nothing_when_there_is_none() {
        let mut composite = CompositeAgent::new(vec![Box::new(Countdown(1)), Box::new(Countdown(2))]);
        assert_eq!(composite.park_limit(), Some(Duration::from_millis(2)));
        assert_eq!(composite.do_work().unwrap(), 2);
        assert_eq!(composite.do_work().unwrap(), 1);
        assert_eq!(composite.do_work().unwrap(), 0);
        assert_eq!(composite.role_name(), "countdown+countdown");
    }
}
