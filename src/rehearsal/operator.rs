//! The operator: looks now and then whether the follower is well, and does what docs/register.md says where it is not.

use super::events::Due;
use super::world::World;
use crate::domain::SECOND;

/// How often he looks.
const ROUND_NS: u64 = 5 * SECOND;
/// How long he lets pass what may be over by itself.
const PATIENCE_NS: u64 = 12 * SECOND;

/// What the operator knows.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// Something was done to the files since they were made anew.
    spoiled: bool,
    trouble_since: Option<u64>,
    /// Register and snapshots are to be moved away when the switch is down.
    moves_away: bool,
    /// All was asked for and told: what is found bad now is left as it is.
    pub(super) has_gone: bool,
}

impl Operator {
    pub(super) const fn has_spoiled_files(&self) -> bool {
        self.spoiled
    }

    pub(super) fn files_spoiled(&mut self) {
        self.spoiled = true;
    }
}

impl World {
    /// Looks, and stops the switch in order when the follower can't go on by itself.
    pub(super) fn operator_looks(&mut self) -> Result<(), String> {
        self.agenda.put(self.now + ROUND_NS, Due::OperatorLooks);
        let trouble = self.switch.as_ref().and_then(|switch| switch.trouble());
        let Some(trouble) = trouble else {
            self.operator.trouble_since = None;
            return Ok(());
        };
        let is_full = trouble.contains("no storage space");
        if is_full || self.stops_due > 0 || self.operator.has_gone {
            return Ok(());
        }
        if !self.operator.spoiled {
            return Err(format!(
                "the follower can't go on, and nothing was done to its files: {trouble}"
            ));
        }
        let now = self.now;
        let since = *self.operator.trouble_since.get_or_insert(now);
        if now - since < PATIENCE_NS {
            return Ok(());
        }
        self.note(|| format!("the operator stops the switch: {trouble}"));
        // A snapshot that is not used is no reason to make everything anew: the start falls back.
        self.operator.moves_away = !trouble.contains("it is not used");
        if let Some(switch) = &self.switch {
            switch.stop_intake();
            self.stops_due += 1;
            self.agenda.put(now + SECOND, Due::StopInOrder);
        }
        Ok(())
    }

    /// The switch is down.
    pub(super) fn operator_sees_to_files(&mut self) -> Result<(), String> {
        self.operator.trouble_since = None;
        if std::mem::take(&mut self.operator.moves_away) {
            self.files.move_away().map_err(|error| format!("the files: {error}"))?;
            self.counts.registers_moved_away += 1;
            self.operator.spoiled = false;
            self.note(|| "the operator moved register and snapshots away".to_owned());
        }
        Ok(())
    }
}
