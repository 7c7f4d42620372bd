//! A proof that a payment is one of a window's committed ones; its bytes stand in docs/settlement.md.

use thiserror::Error;

use super::merkle::{Digest, PathFinder, leaf_hash, node_hash, root_of_text};

const MAGIC: &[u8; 8] = b"CWPROOF1";
const HEADER_BYTES: usize = 32;
/// Fields of a canonical row.
const ROW_FIELDS: usize = 10;

/// Why a proof does not prove.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ProofError {
    /// The bytes are no proof.
    #[error("this is no proof: {0}")]
    Malformed(&'static str),
    /// The path does not lead from such a leaf to the top of such a tree.
    #[error("the path does not lead from leaf {leaf} to the top of a tree of {leaves} leaves")]
    Path {
        /// The leaf.
        leaf: u64,
        /// The leaves.
        leaves: u64,
    },
    /// It leads to another root.
    #[error("the proof leads to root {}, not to {}", super::merkle::hex(.computed), super::merkle::hex(.published))]
    OtherRoot {
        /// Where it leads.
        computed: Box<Digest>,
        /// What was published.
        published: Box<Digest>,
    },
}

/// A proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// The payment's number among the committed ones.
    pub leaf: u64,
    /// How many there are.
    pub leaves: u64,
    /// The canonical row.
    pub row: String,
    /// Hashes from the leaf upwards.
    pub path: Vec<Digest>,
}

impl Proof {
    /// The proof of a leaf, from all the leaves; `None` where it is none of them.
    #[must_use]
    pub fn new(row: String, finder: PathFinder) -> Option<Self> {
        let (leaf, leaves) = (finder.leaf(), finder.leaves());
        let (_, path) = finder.finish()?;
        Some(Self {
            leaf,
            leaves,
            row,
            path,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let row_length = u16::try_from(self.row.len()).expect("a canonical row has under 300 bytes");
        let path_length = u8::try_from(self.path.len()).expect("a path has at most 64 hashes");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.row.len() + 32 * self.path.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.leaf.to_le_bytes());
        bytes.extend_from_slice(&self.leaves.to_le_bytes());
        bytes.extend_from_slice(&row_length.to_le_bytes());
        bytes.push(path_length);
        bytes.extend_from_slice(&[0; 5]);
        bytes.extend_from_slice(self.row.as_bytes());
        bytes.extend_from_slice(self.path.as_flattened());
        bytes
    }

    /// Reads the bytes; every one of them is looked at.
    ///
    /// # Errors
    /// [`ProofError::Malformed`] where they are no proof.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let malformed = |what| Err(ProofError::Malformed(what));
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return malformed("it is shorter than a proof's header");
        };
        if header[..8] != *MAGIC {
            return malformed("it does not begin with CWPROOF1");
        }
        if header[27..] != [0; 5] {
            return malformed("bytes 27 to 31 are not zero");
        }
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let row_length = usize::from(u16::from_le_bytes([header[24], header[25]]));
        let path_length = usize::from(header[26]);
        if rest.len() != row_length + 32 * path_length {
            return malformed("its length is not that of its row and path");
        }
        let (row, path) = rest.split_at(row_length);
        let Ok(row) = std::str::from_utf8(row) else {
            return malformed("its row is no text");
        };
        if row.split(',').count() != ROW_FIELDS {
            return malformed("its row has not ten fields");
        }
        let (leaf, leaves) = (number(8), number(16));
        if leaf >= leaves {
            return malformed("its leaf is not among its leaves");
        }
        let (path, _) = path.as_chunks::<32>();
        Ok(Self {
            leaf,
            leaves,
            row: row.to_owned(),
            path: path.to_vec(),
        })
    }

    /// The row's fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.row.split(',')
    }

    /// The root that it leads to: RFC 9162, section 2.1.3.2.
    ///
    /// # Errors
    /// [`ProofError::Path`] where the path is too short or too long.
    pub fn root(&self) -> Result<Digest, ProofError> {
        let wrong = ProofError::Path {
            leaf: self.leaf,
            leaves: self.leaves,
        };
        let (mut from, mut last) = (self.leaf, self.leaves.saturating_sub(1));
        let mut node = leaf_hash(self.row.as_bytes());
        for other in &self.path {
            if last == 0 {
                return Err(wrong);
            }
            if from & 1 == 1 || from == last {
                node = node_hash(other, &node);
                while from & 1 == 0 && from != 0 {
                    (from, last) = (from >> 1, last >> 1);
                }
            } else {
                node = node_hash(&node, other);
            }
            (from, last) = (from >> 1, last >> 1);
        }
        let mut fields = self.fields();
        let (currency, window) = (fields.nth(3), fields.nth(5));
        match (last, currency, window) {
            (0, Some(currency), Some(window)) => Ok(root_of_text(window, currency, self.leaves, &node)),
            _ => Err(wrong),
        }
    }

    /// Holds it against the published root.
    ///
    /// # Errors
    /// What does not fit.
    pub fn verify(&self, published: &Digest) -> Result<(), ProofError> {
        let computed = self.root()?;
        if computed == *published {
            return Ok(());
        }
        Err(ProofError::OtherRoot {
            computed: Box::new(computed),
            published: Box::new(*published),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(serial: u64) -> String {
        format!(
            "20261123-12-0-{serial},debit,shopping,CNY,1999,Z2100033000005,C1100033000013,2026-11-23T11:05:00.123456789Z,\
             2026-11-23T11:05:00.130000001Z,W202611230001"
        )
    }

    fn prove(leaf: u64, leaves: u64) -> Proof {
        let mut finder = PathFinder::new(leaf);
        (0..leaves).for_each(|serial| finder.push(leaf_hash(row(serial).as_bytes())));
        Proof::new(row(leaf), finder).expect("the leaf is there")
    }

    #[test]
    fn every_payment_of_a_window_of_one_to_seventy_proves() {
        for leaves in 1..=70 {
            let root = prove(0, leaves).root().unwrap();
            for leaf in 0..leaves {
                let proof = Proof::decode(&prove(leaf, leaves).encode()).unwrap();
                assert_eq!(proof.verify(&root), Ok(()), "leaf {leaf} of {leaves}");
                assert!(proof.encode().len() < 700, "a few hundred bytes");
            }
        }
    }

    #[test]
    fn a_proof_with_any_byte_changed_proves_nothing() {
        for (leaf, leaves) in [(0, 1), (0, 2), (6, 7), (4, 7), (36, 70)] {
            let proof = prove(leaf, leaves);
            let root = proof.root().unwrap();
            let bytes = proof.encode();
            let holds = |bytes: &[u8]| Proof::decode(bytes).and_then(|proof| proof.verify(&root)).is_ok();
            assert!(holds(&bytes));
            for at in 0..bytes.len() {
                for flip in [1, 0x10, 0x80, 0xff] {
                    let mut spoiled = bytes.clone();
                    spoiled[at] ^= flip;
                    assert!(
                        !holds(&spoiled),
                        "leaf {leaf} of {leaves}, byte {at} changed by {flip:#x}"
                    );
                }
            }
            assert!(!holds(&bytes[..bytes.len() - 1]), "cut");
            assert!(!holds(&[bytes.as_slice(), &[0]].concat()), "longer");
        }
    }

    #[test]
    fn a_payment_that_is_not_in_the_window_has_no_proof() {
        let mut finder = PathFinder::new(3);
        (0..3).for_each(|serial| finder.push(leaf_hash(row(serial).as_bytes())));
        assert_eq!(Proof::new(row(3), finder), None);
    }
}
