//! What a participant signs on with: 32 bytes, of which the directory keeps only the hash.

use crate::domain::SchemeCode;

/// Context string of [`demo_credential`] (BLAKE3 `derive_key` mode).
const DEMO_CONTEXT: &str = "clearway 2026 demo credential";

/// The credential that a generated directory gives a participant. Anyone can compute it: good on loopback only.
#[must_use]
pub fn demo_credential(code: &SchemeCode) -> [u8; 32] {
    blake3::derive_key(DEMO_CONTEXT, &code.0)
}

/// What the directory keeps of a credential: its BLAKE3 hash.
#[must_use]
pub fn credential_hash(credential: &[u8; 32]) -> [u8; 32] {
    *blake3::hash(credential).as_bytes()
}

/// 64 lower-case hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}

/// Reads 64 hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(text).ok().map(|hash| *hash.as_bytes())
}
