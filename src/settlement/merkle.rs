//! The root over a window's payments: a Merkle tree as in RFC 9162, section 2.1, with SHA-256, built as leaves come.
//!
//! A tree of n leaves needs log₂ n hashes of memory: those of the full subtrees that stand side by side so far.

use sha2::{Digest as _, Sha256};

use crate::domain::{Currency, WindowId};

/// A SHA-256 hash.
pub type Digest = [u8; 32];

/// Full subtrees that can stand side by side: one for each bit of the number of leaves.
const SUBTREES_MAX: usize = u64::BITS as usize;

/// The hash of a leaf: a canonical row.
#[must_use]
pub fn leaf_hash(row: &[u8]) -> Digest {
    hash_of(&[&[0], row].concat())
}

/// The hash of a node.
#[inline]
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    hash_of(&bytes)
}

/// SHA-256.
#[inline]
#[must_use]
pub fn hash_of(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// The root of a window whose payments have this tree.
#[must_use]
pub fn root_hash(window: WindowId, currency: Currency, leaves: u64, tree: &Digest) -> Digest {
    root_of_text(&window.to_string(), currency.alphabetic(), leaves, tree)
}

/// As [`root_hash`], of window and currency as they are written.
#[must_use]
pub fn root_of_text(window: &str, currency: &str, leaves: u64, tree: &Digest) -> Digest {
    let named = Sha256::new()
        .chain_update([2])
        .chain_update(format!("{window},{currency},{leaves},"));
    named.chain_update(tree).finalize().into()
}

/// A hash as files and people write it: 64 hexadecimal digits.
#[must_use]
pub fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a hash as it is written.
#[must_use]
pub fn from_hex(text: &str) -> Option<Digest> {
    let text = text.as_bytes();
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *byte = (nibble(digits[0])? << 4 | nibble(digits[1])?) as u8;
    }
    Some(digest)
}

/// A tree that grows by one leaf at a time.
#[derive(Clone, Debug)]
pub struct MerkleTree {
    /// The full subtrees, the largest first; as many as `leaves` has ones.
    subtrees: [Digest; SUBTREES_MAX],
    standing: usize,
    leaves: u64,
}

impl Default for MerkleTree {
    fn default() -> Self {
        Self {
            subtrees: [[0; 32]; SUBTREES_MAX],
            standing: 0,
            leaves: 0,
        }
    }
}

impl MerkleTree {
    /// Adds the next leaf's hash.
    #[inline]
    pub fn push(&mut self, leaf: Digest) {
        self.push_with(leaf, |_, _, _| {});
    }

    /// As [`MerkleTree::push`]; `joined` hears of each two subtrees that become one: which subtree the left one is, and both.
    #[inline]
    fn push_with(&mut self, leaf: Digest, mut joined: impl FnMut(usize, &Digest, &Digest)) {
        let mut node = leaf;
        for _ in 0..self.leaves.trailing_ones() {
            self.standing -= 1;
            let left = &self.subtrees[self.standing];
            joined(self.standing, left, &node);
            node = node_hash(left, &node);
        }
        self.subtrees[self.standing] = node;
        self.standing += 1;
        self.leaves += 1;
    }

    /// How many leaves it has.
    #[must_use]
    pub const fn leaves(&self) -> u64 {
        self.leaves
    }

    /// The hash of the topmost node; of no leaves SHA-256 of nothing.
    #[must_use]
    pub fn tree_hash(&self) -> Digest {
        self.tree_hash_with(|_, _, _| {})
    }

    fn tree_hash_with(&self, mut joined: impl FnMut(usize, &Digest, &Digest)) -> Digest {
        let Some((last, before)) = self.subtrees[..self.standing].split_last() else {
            return Sha256::digest([]).into();
        };
        let mut node = *last;
        for (number, left) in before.iter().enumerate().rev() {
            joined(number, left, &node);
            node = node_hash(left, &node);
        }
        node
    }
}

/// A tree that remembers the way from one of its leaves to the top.
#[derive(Clone, Debug)]
pub struct PathFinder {
    tree: MerkleTree,
    leaf: u64,
    path: Vec<Digest>,
    /// Which subtree holds the leaf, once it came.
    holder: usize,
}

impl PathFinder {
    /// For leaf number `leaf`.
    #[must_use]
    pub fn new(leaf: u64) -> Self {
        Self {
            tree: MerkleTree::default(),
            leaf,
            path: Vec::new(),
            holder: usize::MAX,
        }
    }

    /// Adds the next leaf's hash.
    pub fn push(&mut self, leaf: Digest) {
        let Self { tree, path, holder, .. } = self;
        if tree.leaves == self.leaf {
            *holder = tree.standing;
        }
        tree.push_with(leaf, |number, left, right| step(holder, path, number, left, right));
    }

    /// The hash of the topmost node, and the path from the leaf upwards; `None` where the leaf never came.
    #[must_use]
    pub fn finish(mut self) -> Option<(Digest, Vec<Digest>)> {
        let Self { tree, path, holder, .. } = &mut self;
        let top = tree.tree_hash_with(|number, left, right| step(holder, path, number, left, right));
        (self.leaf < self.tree.leaves).then_some((top, self.path))
    }

    /// The leaf whose way it remembers.
    #[must_use]
    pub const fn leaf(&self) -> u64 {
        self.leaf
    }

    /// How many leaves came.
    #[must_use]
    pub const fn leaves(&self) -> u64 {
        self.tree.leaves
    }
}

/// Subtree `number` and the one to its right become one: the other one of the two is the next step of the path.
fn step(holder: &mut usize, path: &mut Vec<Digest>, number: usize, left: &Digest, right: &Digest) {
    if *holder == number {
        path.push(*right);
    } else if *holder == number + 1 {
        path.push(*left);
        *holder = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 9162, section 2.1.1, word by word.
    fn naive_tree(leaves: &[Vec<u8>]) -> Digest {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => leaf_hash(one),
            more => {
                let (left, right) = more.split_at(split(more.len()));
                node_hash(&naive_tree(left), &naive_tree(right))
            }
        }
    }

    /// RFC 9162, section 2.1.3.1, word by word.
    fn naive_path(leaf: usize, leaves: &[Vec<u8>]) -> Vec<Digest> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let k = split(leaves.len());
        let (left, right) = leaves.split_at(k);
        let (mut path, other) = if leaf < k {
            (naive_path(leaf, left), naive_tree(right))
        } else {
            (naive_path(leaf - k, right), naive_tree(left))
        };
        path.push(other);
        path
    }

    /// The largest power of two smaller than n.
    fn split(n: usize) -> usize {
        n.next_power_of_two() / 2
    }

    fn streamed(leaves: &[Vec<u8>]) -> Digest {
        let mut tree = MerkleTree::default();
        leaves.iter().for_each(|leaf| tree.push(leaf_hash(leaf)));
        tree.tree_hash()
    }

    /// The test vectors of the certificate-transparency code base (Google, `merkle_tree_test`).
    #[test]
    fn the_tree_is_that_of_known_vectors() {
        let leaves: Vec<Vec<u8>> = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ]
        .iter()
        .map(|text| {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                .collect()
        })
        .collect();
        for (count, root) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            (5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(hex(&streamed(&leaves[..count])), root, "{count} leaves");
        }
    }

    #[test]
    fn a_hash_reads_back_from_its_digits() {
        let digest = leaf_hash(b"row");
        assert_eq!(from_hex(&hex(&digest)), Some(digest));
        assert_eq!(from_hex("00"), None);
        assert_eq!(from_hex(&"g".repeat(64)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_tree_and_a_path_made_in_one_pass_are_those_of_the_definition(count in 1_usize..300, seed: u64) {
            let leaves: Vec<Vec<u8>> = (0..count).map(|n| (seed ^ n as u64).to_le_bytes().to_vec()).collect();
            prop_assert_eq!(streamed(&leaves), naive_tree(&leaves));
            let leaf = (seed % count as u64) as usize;
            let mut finder = PathFinder::new(leaf as u64);
            leaves.iter().for_each(|row| finder.push(leaf_hash(row)));
            let (tree, path) = finder.finish().expect("the leaf came");
            prop_assert_eq!(tree, naive_tree(&leaves));
            prop_assert_eq!(path, naive_path(leaf, &leaves));
        }
    }
}
