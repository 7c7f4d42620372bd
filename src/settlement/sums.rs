//! `SHA256SUMS`: the hash of every other file of a directory, as `sha256sum` writes and reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::SettlementError;
use super::merkle::{Digest, from_hex};

/// Its name.
pub const FILE: &str = "SHA256SUMS";
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
/// So many names are told.
const NAMES_MAX: usize = 8;

/// The file's text, of names in their order and hexadecimal hashes.
pub(super) fn text<'a>(files: impl Iterator<Item = (&'a str, String)>) -> String {
    files.fold(String::new(), |mut text, (name, hash)| {
        let _ = writeln!(text, "{hash}  {name}");
        text
    })
}

/// Holds a directory against its own `SHA256SUMS`. Returns the names of files that differ, are missing or are too many.
///
/// # Errors
/// There is no such file, it is no such file, or something can't be read.
pub fn check(directory: &Path) -> Result<Vec<String>, SettlementError> {
    let path = directory.join(FILE);
    let text = fs::read_to_string(&path).map_err(SettlementError::system(&path, "read the file"))?;
    let mut stated = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let parsed = line
            .split_once("  ")
            .and_then(|(hash, name)| Some((name.to_owned(), from_hex(hash)?)));
        let (name, digest) = parsed
            .ok_or_else(|| SettlementError::damaged(&path, format!("line {} is none of sha256sum's", number + 1)))?;
        stated.insert(name, digest);
    }
    Ok(differing(&stated, &of_files(directory)?))
}

/// The hash of every file under `directory` but `SHA256SUMS`.
pub(super) fn of_files(directory: &Path) -> Result<BTreeMap<String, Digest>, SettlementError> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(at) = directories.pop() {
        let refused = |action| SettlementError::system(&at, action);
        for entry in fs::read_dir(&at).map_err(refused("list the directory"))? {
            let path = entry.map_err(refused("list the directory"))?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path
                .strip_prefix(directory)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            if name != FILE {
                found.insert(name, of_file(&path)?);
            }
        }
    }
    Ok(found)
}

/// The hash of a file.
///
/// # Errors
/// It can't be read.
pub fn of_file(path: &Path) -> Result<Digest, SettlementError> {
    let mut file = File::open(path).map_err(SettlementError::system(path, "open the file"))?;
    let mut hash = Sha256::new();
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let read = file
            .read(&mut bytes)
            .map_err(SettlementError::system(path, "read the file"))?;
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&bytes[..read]);
    }
}

/// The names of files that are in one of the two only, or not the same; `SHA256SUMS` is not one of them.
pub(super) fn differing(wanted: &BTreeMap<String, Digest>, there: &BTreeMap<String, Digest>) -> Vec<String> {
    let wrong = wanted.iter().filter(|(name, digest)| there.get(*name) != Some(digest));
    let extra = there.iter().filter(|(name, _)| !wanted.contains_key(*name));
    let names = wrong.chain(extra).map(|(name, _)| name.clone());
    names.filter(|name| name != FILE).collect()
}

/// A list of names that fits into a message.
pub(super) fn shortened(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMES_MAX)].join(", ");
    if names.len() > NAMES_MAX {
        let _ = write!(text, " and {} more", names.len() - NAMES_MAX);
    }
    text
}

/// Directories of windows under a settlement directory, in the order of their names.
///
/// # Errors
/// It can't be listed.
pub fn windows_in(settlement: &Path) -> Result<Vec<PathBuf>, SettlementError> {
    let refused = |action| SettlementError::system(settlement, action);
    let mut found = Vec::new();
    for entry in fs::read_dir(settlement).map_err(refused("list the directory"))? {
        let path = entry.map_err(refused("list the directory"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let digits = name.strip_prefix('W').unwrap_or_default();
        if path.is_dir() && digits.len() == 12 && digits.bytes().all(|digit| digit.is_ascii_digit()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
