//! The participants' detail files, all of them at once: bounded buffers in front of streamed files.

use super::error::SettlementError;
use super::facts::WindowFacts;
use super::files::{Draft, Stream};
use super::merkle::{Digest, hex};
use super::row::{DETAIL_HEADER, Side};
use super::statement::PartyStatement;
use crate::domain::Position;

/// What all buffers together may take.
const BUFFERS_BYTES_MAX: usize = 96 << 20;
/// A buffer is written when it is this full, or less where there are very many participants.
const BUFFER_BYTES_MAX: usize = 128 << 10;
const BUFFER_BYTES_MIN: usize = 1 << 10;

/// The detail files of a window, being written.
#[derive(Debug)]
pub struct DetailFiles {
    parties: Vec<PartyFile>,
    buffer_bytes: usize,
}

#[derive(Debug)]
struct PartyFile {
    statement: PartyStatement,
    /// None of a participant that took part in nothing so far.
    stream: Option<Stream>,
    buffer: Vec<u8>,
}

impl DetailFiles {
    /// For the window's participants.
    #[must_use]
    pub fn new(facts: &WindowFacts) -> Self {
        let party = |party: &super::facts::Party| PartyFile {
            statement: PartyStatement {
                index: party.index,
                code: party.code,
                role: party.role,
                records: 0,
                debits: 0,
                credits: 0,
                debits_minor: 0,
                credits_minor: 0,
                detail_sha256: None,
            },
            stream: None,
            buffer: Vec::new(),
        };
        let share = BUFFERS_BYTES_MAX / facts.parties.len().max(1);
        Self {
            parties: facts.parties.iter().map(party).collect(),
            buffer_bytes: share.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX),
        }
    }

    /// Adds a payment's line to a participant's file, and its amount to the participant's sums.
    ///
    /// # Errors
    /// The system refuses something.
    ///
    /// # Panics
    /// There is no such participant: rows of payments are made first, and refuse it.
    #[inline]
    pub fn add(
        &mut self,
        party: usize,
        side: Side,
        amount: Position,
        line: &[u8],
        draft: &mut Draft,
    ) -> Result<(), SettlementError> {
        let file = &mut self.parties[party];
        let statement = &mut file.statement;
        statement.records += 1;
        match side {
            Side::Debit => {
                statement.debits += 1;
                statement.debits_minor += amount;
            }
            Side::Credit => {
                statement.credits += 1;
                statement.credits_minor += amount;
            }
            Side::None => {}
        }
        let end = side.line_end().as_bytes();
        if file.buffer.len() + line.len() + end.len() > file.buffer.capacity() {
            file.make_room(self.buffer_bytes, draft)?;
        }
        file.buffer.extend_from_slice(line);
        file.buffer.extend_from_slice(end);
        Ok(())
    }

    /// Ends the files and gives what each participant came to; `draft` has the `.csv` files then.
    ///
    /// # Errors
    /// The system refuses something.
    pub fn finish(self, draft: &mut Draft) -> Result<Vec<PartyStatement>, SettlementError> {
        let finished = self.parties.into_iter().map(|mut file| {
            if file.statement.records > 0 {
                file.write_out(draft)?;
            }
            if let Some(stream) = file.stream {
                file.statement.detail_sha256 = Some(draft.finish(stream)?);
            }
            Ok(file.statement)
        });
        finished.collect()
    }
}

impl PartyFile {
    /// Makes the buffer larger, up to `bytes`, or writes it out.
    #[cold]
    fn make_room(&mut self, bytes: usize, draft: &mut Draft) -> Result<(), SettlementError> {
        if self.buffer.capacity() == 0 {
            // A participant that takes part in little needs little: most buffers stay at the first step.
            self.buffer = Vec::with_capacity(BUFFER_BYTES_MIN.max(bytes / 16));
            self.buffer.extend_from_slice(DETAIL_HEADER.as_bytes());
        } else if self.buffer.capacity() < bytes {
            let mut larger = Vec::with_capacity((self.buffer.capacity() * 4).min(bytes));
            larger.extend_from_slice(&self.buffer);
            self.buffer = larger;
        } else {
            self.write_out(draft)?;
        }
        Ok(())
    }

    fn write_out(&mut self, draft: &mut Draft) -> Result<(), SettlementError> {
        if self.stream.is_none() {
            let name = format!("detail/{}.csv", self.statement.code);
            self.stream = Some(draft.stream(&name)?);
        }
        if let Some(stream) = &mut self.stream {
            draft.append(stream, &self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

/// `detail/CODE.json`: what stands in the `.csv` beside it.
#[must_use]
pub fn to_json(facts: &WindowFacts, root: &Digest, party: &PartyStatement, csv: &Digest) -> Vec<u8> {
    let text = format!(
        "{{\"window\": \"{}\", \"participant\": \"{}\", \"currency\": \"{}\", \"records\": {}, \"debits\": {}, \
         \"debits_minor\": {}, \"credits\": {}, \"credits_minor\": {}, \"net_minor\": {}, \"sha256\": \"{}\", \
         \"root\": \"{}\"}}\n",
        facts.window,
        party.code,
        facts.currency.alphabetic(),
        party.records,
        party.debits,
        party.debits_minor,
        party.credits,
        party.credits_minor,
        party.net_minor(),
        hex(csv),
        hex(root)
    );
    text.into_bytes()
}
