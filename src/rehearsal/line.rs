//! Lines: what the network does to the bytes between a participant and the switch.

use super::events::Due;
use super::world::World;
use crate::domain::{MILLISECOND, SECOND};
use crate::io::Connection;
use crate::wire::{Frame, PaymentRequest, Reply, Template, decode};

/// One line of a participant.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) party: usize,
    /// Counts its connections.
    pub(super) epoch: u32,
    /// The link agent and the connection, while the switch and the network have it.
    pub(super) connection: Option<(usize, Connection)>,
    /// The reader does not read until then.
    pub(super) stalled_until: u64,
    /// A frame that is not whole yet, to tell the witness when it has arrived.
    carry: Vec<u8>,
    /// When the last bytes of either direction arrive: none overtakes another.
    to_switch_at: u64,
    to_party_at: u64,
}

impl Line {
    pub(super) fn new(party: usize) -> Self {
        Self {
            party,
            epoch: 0,
            connection: None,
            stalled_until: 0,
            carry: Vec::new(),
            to_switch_at: 0,
            to_party_at: 0,
        }
    }
}

impl World {
    fn latency(&mut self) -> u64 {
        let mean = if self.healing {
            MILLISECOND
        } else {
            self.plan.network.latency_ns
        };
        1 + self.random.below(2 * mean)
    }

    /// Cuts bytes into the pieces in which they arrive.
    fn chunks(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let most = self.plan.network.chunk_bytes_max;
        if most == 0 || self.healing {
            return vec![bytes.to_vec()];
        }
        let mut chunks = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            // Tiny pieces now and then, so that a run of them does not take all the time there is.
            let span = if self.random.chance(70_000) { 40 * most } else { most };
            let length = (1 + self.random.below(span) as usize).min(rest.len());
            chunks.push(rest[..length].to_vec());
            rest = &rest[length..];
        }
        chunks
    }

    /// A participant connects.
    pub(super) fn connect(&mut self, line: usize) {
        if self.lines[line].connection.is_some() {
            return;
        }
        let again = self.now + 50 * MILLISECOND + self.random.below(2 * SECOND);
        let Some(switch) = &self.switch else {
            self.agenda.put(again, Due::Connect { line });
            return;
        };
        let agent = self.random.below(switch.wires.len() as u64) as usize;
        let Some(connection) = switch.wires[agent].connect() else {
            self.agenda.put(again, Due::Connect { line });
            return;
        };
        self.counts.connections += 1;
        let now = self.now;
        let here = &mut self.lines[line];
        here.epoch += 1;
        here.connection = Some((agent, connection));
        here.carry.clear();
        (here.to_switch_at, here.to_party_at) = (now, now);
        let (epoch, party) = (here.epoch, here.party);
        self.holders[agent][connection.0 as usize] = Some((line, epoch));
        self.note(|| format!("line {line} connects, epoch {epoch}"));
        // A participant that signs on has nothing to find fault with.
        self.with_party(party, |party, turn| party.connected(line, epoch, turn));
    }

    /// A participant's bytes leave for the switch.
    pub(super) fn party_sends(&mut self, line: usize, bytes: &[u8]) {
        if self.lines[line].connection.is_none() {
            return;
        }
        let epoch = self.lines[line].epoch;
        let bytes = match self.plan.plant {
            Some(plant) => plant.on_reply(bytes.to_vec()),
            None => bytes.to_vec(),
        };
        for chunk in self.chunks(&bytes) {
            let at = (self.now + self.latency()).max(self.lines[line].to_switch_at);
            self.lines[line].to_switch_at = at;
            self.agenda.put(
                at,
                Due::ToSwitch {
                    line,
                    epoch,
                    bytes: chunk,
                },
            );
        }
    }

    /// Bytes reach the switch.
    pub(super) fn arrive_at_switch(&mut self, line: usize, epoch: u32, bytes: Vec<u8>) {
        let here = &mut self.lines[line];
        let Some((agent, connection)) = here.connection.filter(|_| here.epoch == epoch) else {
            return;
        };
        let Some(switch) = &self.switch else { return };
        self.digest.update(b">");
        self.digest.update(&(line as u64).to_le_bytes());
        self.digest.update(&bytes);
        switch.wires[agent].deliver(connection, bytes.clone());
        here.carry.extend_from_slice(&bytes);
        let carry = std::mem::take(&mut here.carry);
        let mut rest = carry.as_slice();
        while let Ok(Some((template, length))) = decode(rest) {
            match template {
                Template::Reply => self.witness.reply_arrived(Reply::read(rest).body.id),
                Template::PaymentRequest => self.witness.request_arrived(PaymentRequest::read(rest).body.id),
                _ => {}
            }
            rest = &rest[length..];
        }
        self.lines[line].carry = rest.to_vec();
    }

    /// What the switch handed to its drivers is shown to the witness and taken over by the lines.
    pub(super) fn collect_from_switch(&mut self) -> Result<(), String> {
        let Some(switch) = &self.switch else { return Ok(()) };
        let mut sends = Vec::new();
        let mut closed = Vec::new();
        for (agent, wires) in switch.wires.iter().enumerate() {
            sends.extend(
                wires
                    .sends()
                    .into_iter()
                    .map(|(connection, bytes)| (agent, connection, bytes)),
            );
            closed.extend(wires.closed().into_iter().map(|wire| (agent, wire)));
        }
        for (agent, connection, bytes) in sends {
            let Some((line, epoch)) = self.holders[agent][connection.0 as usize] else {
                if self.strangers.contains(&(agent, connection.0)) {
                    self.stranger_is_told(agent, connection, &bytes)?;
                    continue;
                }
                return Err(format!(
                    "the switch sends on connection {}, which nobody made",
                    connection.0
                ));
            };
            self.witness_send(line, epoch, &bytes)?;
            if self.lines[line].epoch == epoch {
                self.take(line, epoch);
            }
        }
        for (agent, wire) in closed {
            let Some((line, epoch)) = self.holders[agent][wire.connection.0 as usize] else {
                continue;
            };
            if self.lines[line].epoch != epoch || self.lines[line].connection.is_none() {
                continue;
            }
            // As far as the kernel takes it at once.
            let taken = match self.random.below(4) {
                0 if self.plan.plant.is_none() => self.random.below(wire.unsent.len() as u64 + 1) as usize,
                _ => wire.unsent.len(),
            };
            self.note(|| format!("the switch closes line {line}"));
            self.carry_to_party(line, epoch, &wire.unsent[..taken]);
            self.line_is_gone(line);
        }
        Ok(())
    }

    /// A stranger is told why, and nothing else.
    fn stranger_is_told(&mut self, agent: usize, connection: Connection, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        while let Ok(Some((template, length))) = decode(rest) {
            if !matches!(template, Template::NegotiationReject | Template::Terminate) {
                return Err(format!("a stranger is sent {template:?}"));
            }
            rest = &rest[length..];
        }
        if let Some(switch) = &self.switch {
            let _gone = switch.wires[agent].take(connection, usize::MAX);
        }
        Ok(())
    }

    fn witness_send(&mut self, line: usize, epoch: u32, bytes: &[u8]) -> Result<(), String> {
        self.digest.update(b"<");
        self.digest.update(&(line as u64).to_le_bytes());
        self.digest.update(bytes);
        let party = self.lines[line].party;
        let place = self.place(line, epoch);
        let shown = match self.plan.plant {
            Some(plant) => plant.on_send(bytes.to_vec()),
            None => bytes.to_vec(),
        };
        let told = self.witness.sent(place, &shown);
        match told {
            Ok(told) => {
                let index = self.parties[party].index;
                self.note(|| format!("→ {index} by line {line}: {}", told.join("; ")));
                Ok(())
            }
            Err(what) => {
                self.note(|| format!("→ line {line}: {what}"));
                Err(what)
            }
        }
    }

    /// The network and the reader take what they take of the send under way.
    pub(super) fn take(&mut self, line: usize, epoch: u32) {
        let here = &self.lines[line];
        let Some((agent, connection)) = here.connection.filter(|_| here.epoch == epoch) else {
            return;
        };
        if here.stalled_until > self.now {
            let at = here.stalled_until;
            self.agenda.put(at, Due::Take { line, epoch });
            return;
        }
        let slow = !self.healing && self.random.chance(self.plan.network.slow_reader);
        let most = if slow {
            1 + self.random.below(300) as usize
        } else {
            usize::MAX
        };
        let Some(switch) = &self.switch else { return };
        let bytes = switch.wires[agent].take(connection, most);
        if bytes.is_empty() {
            return;
        }
        self.carry_to_party(line, epoch, &bytes);
        if slow {
            let at = self.now + 1 + self.random.below(20 * MILLISECOND);
            self.agenda.put(at, Due::Take { line, epoch });
        }
    }

    fn carry_to_party(&mut self, line: usize, epoch: u32, bytes: &[u8]) {
        // A planted fault changes whole sends only, so lines are not slow then.
        let bytes = match self.plan.plant {
            Some(plant) => plant.on_send(bytes.to_vec()),
            None => bytes.to_vec(),
        };
        for chunk in self.chunks(&bytes) {
            let at = (self.now + self.latency()).max(self.lines[line].to_party_at);
            self.lines[line].to_party_at = at;
            self.agenda.put(
                at,
                Due::ToParty {
                    line,
                    epoch,
                    bytes: chunk,
                },
            );
        }
    }

    /// The connection is no more: the participant notices behind what is still on its way.
    pub(super) fn line_is_gone(&mut self, line: usize) {
        let here = &mut self.lines[line];
        here.connection = None;
        let (epoch, last) = (here.epoch, here.to_party_at);
        let at = (self.now + self.latency()).max(last);
        self.agenda.put(at, Due::GoneAtParty { line, epoch });
    }

    /// The network breaks a connection: both ends notice, and what is on its way is lost.
    pub(super) fn cut_line(&mut self, line: usize, reset: bool) {
        let Some((agent, connection)) = self.lines[line].connection else {
            return;
        };
        self.note(|| format!("line {line} breaks"));
        if let Some(switch) = &self.switch {
            if reset {
                switch.wires[agent].reset(connection);
            } else {
                switch.wires[agent].end(connection);
            }
        }
        self.line_is_gone(line);
        // What was on its way to the participant is lost too, half of the times.
        if self.random.chance(50_000) {
            self.lines[line].epoch += 1;
            let epoch = self.lines[line].epoch;
            let at = self.now + self.latency();
            self.agenda.put(at, Due::GoneAtParty { line, epoch });
        }
    }
}
