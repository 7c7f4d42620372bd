//! The faults, as the plan weighs them, drawn one after the other.

use super::Plant;
use super::disk::NextWrite;
use super::events::Due;
use super::world::World;
use crate::domain::{MILLISECOND, SECOND};
use crate::wire::{Frame, Negotiate, PaymentRequest};

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The machine stops between two duty cycles.
    Crash,
    /// The machine stops inside a durable write.
    CrashInWrite,
    /// The disk refuses a durable write.
    WriteRefused,
    /// The network breaks a connection.
    Cut,
    /// A reader does not read.
    Stall,
    /// A thread gets no time.
    Hold,
    /// There are no receive buffers.
    Shortage,
    /// Time jumps.
    Jump,
    /// The wall clock steps.
    WallStep,
    /// An operator closes the windows.
    CloseWindow,
    /// An operator stops the switch in order.
    Stop,
    /// No segment can be made.
    DiskFull,
    /// Somebody connects who has no business here.
    Stranger,
    /// The machine stops while a run or a snapshot is written, named or removed.
    CrashInFile,
    /// There is no room for the register and snapshots.
    FilesFull,
    /// A run or a snapshot goes bad, is cut or lost.
    FileSpoiled,
    /// The follower gets no time, so that what waits for the register does.
    FollowerLags,
}

impl Fault {
    pub(super) const ALL: [(Self, u64); 17] = [
        (Self::Crash, 10),
        (Self::CrashInWrite, 10),
        (Self::WriteRefused, 3),
        (Self::Cut, 20),
        (Self::Stall, 10),
        (Self::Hold, 20),
        (Self::Shortage, 8),
        (Self::Jump, 6),
        (Self::WallStep, 4),
        (Self::CloseWindow, 6),
        (Self::Stop, 4),
        (Self::DiskFull, 4),
        (Self::Stranger, 10),
        (Self::CrashInFile, 10),
        (Self::FilesFull, 5),
        (Self::FileSpoiled, 8),
        (Self::FollowerLags, 15),
    ];
}

impl World {
    pub(super) fn plan_next_fault(&mut self) {
        let every = self.plan.faults.every_ns;
        if every > 0 {
            let at = self.now + 1 + self.random.below(2 * every);
            self.agenda.put(at, Due::Fault);
        }
    }

    fn draw_fault(&mut self) -> Option<Fault> {
        let total: u64 = self.plan.faults.weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.below(total.max(1));
        for &(fault, weight) in &self.plan.faults.weights {
            if drawn < weight {
                return Some(fault);
            }
            drawn -= weight;
        }
        None
    }

    pub(super) fn fault(&mut self) -> Result<(), String> {
        let Some(fault) = self.draw_fault() else { return Ok(()) };
        let line = self.random.below(self.lines.len() as u64) as usize;
        let (now, while_ns) = (
            self.now,
            1 + (SECOND >> self.random.below(12)) * (1 + self.random.below(10)),
        );
        match fault {
            Fault::Crash => self.plan_crash(),
            Fault::CrashInWrite => self.disk.set_next(NextWrite::StopsMachine),
            Fault::WriteRefused => {
                let late = self.random.chance(50_000);
                let next = if late {
                    NextWrite::RefusedLate
                } else {
                    NextWrite::Refused
                };
                self.disk.set_next(next);
            }
            Fault::Cut => {
                self.counts.cuts += 1;
                let reset = self.random.chance(50_000);
                self.cut_line(line, reset);
            }
            Fault::Stall => {
                self.lines[line].stalled_until = now + while_ns * 4;
                self.note(|| format!("line {line} is not read for {} ms", while_ns / 250_000));
            }
            Fault::Hold => {
                if let Some(switch) = &mut self.switch {
                    let role = switch.hold(&mut self.random, now + while_ns);
                    self.agenda.put(now + while_ns, Due::GoOn);
                    self.note(|| format!("{role} is held for {} ms", while_ns / MILLISECOND));
                }
            }
            Fault::FollowerLags => {
                let until = now + 4 * while_ns;
                if let Some(switch) = &mut self.switch
                    && switch.hold_follower(until)
                {
                    self.agenda.put(until, Due::GoOn);
                    self.note(|| format!("the follower is held for {} ms", 4 * while_ns / MILLISECOND));
                    // What waits then is in no snapshot and in no finding.
                    if self.random.chance(30_000) {
                        self.agenda.put(now + self.random.below(4 * while_ns), Due::Crash);
                    }
                }
            }
            Fault::Shortage => {
                self.set_dry(true);
                self.note(|| format!("no receive buffers for {} ms", while_ns / MILLISECOND));
                self.agenda.put(now + while_ns, Due::Refill);
            }
            Fault::Jump => {
                self.counts.jumps += 1;
                // Days, too: what is over is sealed, and what is long over forgotten.
                let spans = [10, 100, 3_600, 25 * 3_600, 60 * 3_600, 60 * 3_600];
                let span = spans[self.random.below(6) as usize] * SECOND;
                let nanos = self.random.below(span);
                // Two jumps may make a day.
                self.a_day_passed |= nanos > 12 * 3_600 * SECOND;
                self.note(|| format!("time jumps by {} ms", nanos / MILLISECOND));
                self.pass(nanos);
            }
            Fault::WallStep => {
                self.counts.wall_steps += 1;
                let span = [SECOND / 2, 4 * SECOND, 60 * SECOND][self.random.below(3) as usize];
                let nanos = self.random.below(2 * span) as i64 - span as i64;
                self.note(|| format!("the wall clock steps by {} ms", nanos / MILLISECOND as i64));
                self.time.step_wall(nanos);
            }
            Fault::CloseWindow => {
                if let Some(switch) = &self.switch {
                    switch.close_windows();
                }
            }
            Fault::Stop => {
                if let Some(switch) = &self.switch {
                    switch.stop_intake();
                    let drain = self.random.below(3 * SECOND);
                    self.stops_due += 1;
                    self.agenda.put(now + drain, Due::StopInOrder);
                }
            }
            Fault::DiskFull => {
                self.disk.set_full(true).map_err(|error| format!("the disk: {error}"))?;
                self.note(|| format!("no segment can be made for {} ms", while_ns / MILLISECOND));
                self.agenda.put(now + while_ns, Due::SpaceAgain);
            }
            Fault::Stranger => self.stranger(),
            Fault::CrashInFile => {
                let most = 1 << self.random.below(6);
                self.files.stop_in(self.random.below(most));
            }
            Fault::FilesFull => {
                self.counts.files_full += 1;
                self.note(|| format!("no room for the register for {} ms", while_ns / MILLISECOND));
                self.files.set_full(true);
                self.agenda.put(now + while_ns, Due::FilesHaveRoom);
            }
            Fault::FileSpoiled => {
                let spoiled = self.files.spoil(&mut self.random);
                if let Some(what) = spoiled.map_err(|error| format!("the files: {error}"))? {
                    self.counts.files_spoiled += 1;
                    self.operator.files_spoiled();
                    self.note(|| what);
                }
            }
        }
        Ok(())
    }

    pub(super) fn set_dry(&self, dry: bool) {
        if let Some(switch) = &self.switch {
            switch.wires.iter().for_each(|wires| wires.set_dry(dry));
        }
    }

    pub(super) fn plan_crash(&mut self) {
        let plant = self.plan.plant;
        if plant == Some(Plant::DiskDropsAcknowledgedWrites) {
            self.disk.set_next(NextWrite::Dropped);
        }
        // A disk that goes back does so by what was written while many events passed.
        let most = if plant.is_some() {
            4_000
        } else {
            1 << self.random.below(10)
        };
        let steps = self.random.below(most);
        if plant == Some(Plant::DiskGoesBack) && self.copy.is_none() {
            self.copy = self.disk.copy().ok();
        }
        if let Some(switch) = &mut self.switch {
            switch.stops_in = Some(steps);
        }
    }

    /// A machine that stops may stop again while its switch is starting.
    pub(super) fn crash_soon_after_start(&mut self) {
        let may = !self.healing && self.plan.plant.is_none() && self.plan.faults.every_ns > 0;
        if may && self.random.chance(10_000) {
            let steps = self.random.below(40);
            if let Some(switch) = &mut self.switch {
                switch.stops_in = Some(steps);
            }
        }
    }

    /// The disk may be full from the start on: two segments stand ready, which is less than what is kept free for open
    /// payments, so that everything waits, back to the participants' sockets.
    pub(super) fn start_on_a_full_disk(&mut self) -> Result<(), String> {
        let may = !self.healing
            && self
                .plan
                .faults
                .weights
                .iter()
                .any(|(fault, _)| *fault == Fault::DiskFull);
        if may && self.random.chance(30_000) {
            self.disk.set_full(true).map_err(|error| format!("the disk: {error}"))?;
            let at = self.now + self.random.below(20 * SECOND);
            self.agenda.put(at, Due::SpaceAgain);
        }
        Ok(())
    }

    /// Somebody connects and says nothing, or what he should not.
    fn stranger(&mut self) {
        let Some(switch) = &self.switch else { return };
        let agent = self.random.below(switch.wires.len() as u64) as usize;
        let wires = switch.wires[agent].clone();
        let Some(connection) = wires.connect() else { return };
        self.holders[agent][connection.0 as usize] = None;
        self.strangers.insert((agent, connection.0));
        self.counts.strangers += 1;
        let code = self.directory.participants[0].terms.code;
        let negotiate = Negotiate {
            session_id: 7,
            code,
            credential: [7; 32],
            ..bytemuck::Zeroable::zeroed()
        };
        let request: PaymentRequest = bytemuck::Zeroable::zeroed();
        let bytes = match self.random.below(5) {
            0 => Vec::new(),
            1 => bytemuck::bytes_of(&negotiate.sealed()).to_vec(),
            2 => bytemuck::bytes_of(&request.sealed()).to_vec(),
            3 => bytemuck::bytes_of(&negotiate.sealed())[..40].to_vec(),
            _ => (0..300).map(|_| self.random.bits() as u8).collect(),
        };
        wires.deliver(connection, bytes);
        if self.random.chance(50_000) {
            wires.end(connection);
        }
    }
}
