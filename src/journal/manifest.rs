//! What an archive says of a segment: one TOML file a segment, checked by its own last line.
//!
//! ```text
//! format = 1 … chain = ["batch …", "window …"]     what is in the archive, and its links of the chain
//! manifest_blake3 = "…"                            BLAKE3 of every byte before this line
//! ```
//! It is written last, when the compressed segment has been read back and found right: a segment without a manifest does
//! not count.

use std::fs;
use std::path::{Path, PathBuf};

use blake3::Hash;
use serde::{Deserialize, Serialize};

use super::archive_error::ArchiveError;
use super::chain::{Chain, ChainLink, ChainStart, hex};
use super::digest::SegmentFacts;
use crate::domain::UtcNanos;

const FORMAT: u32 = 1;
const CHECKSUM_KEY: &str = "manifest_blake3 = \"";

/// What an archive holds of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The journal's identity.
    pub journal_id: [u8; 16],
    /// The segment's number.
    pub segment: u64,
    /// Its length, bytes.
    pub segment_bytes: u64,
    /// What its records say.
    pub facts: SegmentFacts,
    /// BLAKE3 of the segment.
    pub plain: Hash,
    /// The length of the compressed file, bytes.
    pub compressed_bytes: u64,
    /// BLAKE3 of the compressed file.
    pub compressed: Hash,
    /// The chain's value before the segment.
    pub chain_before: Hash,
    /// The segment's links.
    pub links: Vec<ChainLink>,
}

/// The file's keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    journal_id: String,
    segment: u64,
    segment_bytes: u64,
    first_position: u64,
    end_position: u64,
    first_event: u64,
    events: u64,
    first_time_ns: u64,
    last_time_ns: u64,
    plain_blake3: String,
    compressed_bytes: u64,
    compressed_blake3: String,
    chain_before: String,
    chain: Vec<String>,
}

impl Manifest {
    /// The number of the last event in it or before it.
    #[must_use]
    pub const fn last_event(&self) -> u64 {
        self.facts.first_event + self.facts.events - 1
    }

    /// The chain's value behind the segment.
    #[must_use]
    pub fn chain_after(&self) -> Hash {
        self.links.last().map_or(self.chain_before, |link| link.value)
    }

    pub(super) fn to_toml(&self) -> String {
        let written = Written {
            format: FORMAT,
            journal_id: hex(&self.journal_id),
            segment: self.segment,
            segment_bytes: self.segment_bytes,
            first_position: self.segment * self.segment_bytes,
            end_position: (self.segment + 1) * self.segment_bytes,
            first_event: self.facts.first_event,
            events: self.facts.events,
            first_time_ns: self.facts.first_time.0,
            last_time_ns: self.facts.last_time.0,
            plain_blake3: self.plain.to_string(),
            compressed_bytes: self.compressed_bytes,
            compressed_blake3: self.compressed.to_string(),
            chain_before: self.chain_before.to_string(),
            chain: self.links.iter().map(ChainLink::line).collect(),
        };
        let text = toml::to_string_pretty(&written).expect("numbers, texts and a list of texts are TOML");
        let checksum = blake3::hash(text.as_bytes());
        format!("{text}{CHECKSUM_KEY}{checksum}\"\n")
    }

    /// Reads and checks the manifest in `path`, which is to be that of segment `number`.
    pub(super) fn read(path: &Path, number: u64) -> Result<Self, ArchiveError> {
        let text = fs::read_to_string(path).map_err(ArchiveError::system(path, "read the manifest"))?;
        let fault = |reason: &str| ArchiveError::Manifest {
            file: path.to_owned(),
            reason: reason.to_owned(),
        };
        let (content, checksum) = text
            .rsplit_once(CHECKSUM_KEY)
            .ok_or_else(|| fault("it does not end with its checksum"))?;
        let stated = checksum.strip_suffix("\"\n").and_then(|hex| Hash::from_hex(hex).ok());
        if stated != Some(blake3::hash(content.as_bytes())) {
            return Err(fault("its checksum does not match"));
        }
        let written: Written = toml::from_str(content).map_err(|error| fault(&error.to_string()))?;
        if written.format != FORMAT {
            return Err(fault(
                "another version of the archive's format wrote it: use that release",
            ));
        }
        let manifest = Self::from_written(&written).ok_or_else(|| fault("it states what cannot be"))?;
        if manifest.segment != number {
            return Err(fault("it is another segment's"));
        }
        Ok(manifest)
    }

    fn from_written(written: &Written) -> Option<Self> {
        let hash = |hex: &str| Hash::from_hex(hex).ok();
        let mut chain = Chain::new(ChainStart {
            journal_id: u128::from_str_radix(&written.journal_id, 16).ok()?.to_be_bytes(),
            segment_bytes: Some(written.segment_bytes).filter(|bytes| bytes.is_power_of_two())?,
            position: written.segment.checked_mul(written.segment_bytes)?,
            before: Some(hash(&written.chain_before)?),
        });
        for line in &written.chain {
            chain.push_line(line).ok()?;
        }
        let end = chain.start().position + written.segment_bytes;
        let whole = written.first_position == chain.start().position
            && written.end_position == end
            && chain.end() == end
            && written.first_event > 0;
        whole.then_some(Self {
            journal_id: chain.start().journal_id,
            segment: written.segment,
            segment_bytes: written.segment_bytes,
            facts: SegmentFacts {
                first_event: written.first_event,
                events: written.events,
                first_time: UtcNanos(written.first_time_ns),
                last_time: UtcNanos(written.last_time_ns),
            },
            plain: hash(&written.plain_blake3)?,
            compressed_bytes: written.compressed_bytes,
            compressed: hash(&written.compressed_blake3)?,
            chain_before: hash(&written.chain_before)?,
            links: chain.links().to_vec(),
        })
    }
}

/// The manifest of segment `number` in an archive.
pub(super) fn manifest_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:012}.toml"))
}
