//! The journal's files while no switch runs: what is done to them, and that a refused start leaves them alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use clearway::journal::JournalFiles;
use clearway::sim::Random;
use clearway::wire::RecordKind;

use crate::support::daemon::Installation;

const SEGMENT_HEADER_BYTES: u64 = 4096;

fn segment_path(journal: &Path, number: u64) -> PathBuf {
    journal.join(format!("{number:012}.seg"))
}

/// All segments and what they hold.
fn segments(journal: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    let segments = entries.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Where the journal ends, what its Group records state as durable, and how long a segment is.
fn facts(journal: &Path) -> (u64, u64, u64) {
    let files = JournalFiles::open(journal).unwrap();
    let (mut walk, mut stated) = (files.walk(), 0);
    for walked in walk.by_ref() {
        let record = walked.unwrap().record;
        if record.kind == RecordKind::Group {
            // A write may carry several; but for its first one they state what was durable when they were appended.
            stated = stated.max(u64::from_le_bytes(record.payload[..8].try_into().unwrap()));
        }
    }
    (walk.position(), stated, files.segment_bytes())
}

/// Where the newest snapshot goes on in the journal: a start reads nothing before it. 0 = there is none.
fn snapshot_position(installation: &Installation) -> u64 {
    const POSITION_AT: std::ops::Range<usize> = 48..56;
    let Ok(entries) = fs::read_dir(installation.path("data/snapshots")) else {
        return 0;
    };
    let snapshots = entries.map(|entry| entry.unwrap().path());
    let newest = snapshots
        .filter(|path| path.extension().is_some_and(|extension| extension == "snap"))
        .max();
    newest.map_or(0, |path| {
        u64::from_le_bytes(fs::read(path).unwrap()[POSITION_AT].try_into().unwrap())
    })
}

/// Does `work` while there are no snapshots, so that a start reads the whole journal.
fn without_snapshots<R>(installation: &Installation, work: impl FnOnce() -> R) -> R {
    let (here, away) = (installation.path("data/snapshots"), installation.path("data/put-away"));
    let there = here.exists();
    if there {
        fs::rename(&here, &away).unwrap();
    }
    let done = work();
    if there {
        let _made_anew = fs::remove_dir_all(&here);
        fs::rename(&away, &here).unwrap();
    }
    done
}

/// A start is refused with exit code 1 and one error that has `parts`; the segments stay as they are.
fn is_refused(installation: &Installation, parts: &[String]) {
    let journal = installation.path("data/journal");
    let before = segments(&journal);
    let output = installation.fails();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let error = told.lines().find(|line| line.starts_with("error: "));
    let error = error.unwrap_or_else(|| panic!("no error: {told}"));
    for part in parts {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert!(
        segments(&journal) == before,
        "a refused start changed a segment: {error}"
    );
}

/// Garbage behind the journal's end, from any byte of the end's own segment on. Gives what the next start must say.
pub(crate) fn garbage_behind(installation: &Installation, random: &mut Random) -> String {
    let journal = installation.path("data/journal");
    let (end, _, segment_bytes) = facts(&journal);
    let (number, offset) = (end / segment_bytes, end % segment_bytes);
    let from = offset + random.below(2 * SEGMENT_HEADER_BYTES).min(segment_bytes - offset - 1);
    let count = (1 + random.below(3 * SEGMENT_HEADER_BYTES)).min(segment_bytes - from);
    let mut garbage: Vec<u8> = (0..count).map(|_| random.below(256) as u8).collect();
    *garbage.last_mut().unwrap() = 0xEE;
    let file = fs::File::options()
        .write(true)
        .open(segment_path(&journal, number))
        .unwrap();
    file.write_all_at(&garbage, from).unwrap();
    format!(" bytes behind journal position {end}: a write that was under way")
}

/// Flips one bit of what had been durable: the readers name the place, and a start that reads it refuses and names it, too;
/// then the copy is put back.
pub(crate) fn flip(installation: &Installation, random: &mut Random) -> String {
    let journal = installation.path("data/journal");
    let (_, stated, segment_bytes) = facts(&journal);
    let begins_at = snapshot_position(installation);
    let at = random.below(stated);
    let (path, offset) = (segment_path(&journal, at / segment_bytes), at % segment_bytes);
    let copy = fs::read(&path).unwrap();
    let mut harmed = copy.clone();
    harmed[offset as usize] ^= 1 << random.below(8);
    fs::write(&path, &harmed).unwrap();
    let named = path.display().to_string();
    let parts = if offset < SEGMENT_HEADER_BYTES {
        vec![named, "segment".to_owned()]
    } else {
        let files = JournalFiles::open(&journal).unwrap();
        let mut walk = files.walk();
        let damage = walk.by_ref().find_map(Result::err).expect("the readers find it");
        let begins = walk.position() % segment_bytes;
        assert!(begins <= offset && offset < begins + SEGMENT_HEADER_BYTES, "{damage}");
        vec![
            named,
            format!(" at offset {begins}: "),
            format!("position {stated} had been durable"),
        ]
    };
    without_snapshots(installation, || is_refused(installation, &parts));
    if at >= begins_at {
        is_refused(installation, &parts);
    }
    fs::write(&path, &copy).unwrap();
    format!("at byte {at} of {stated}, a start reads from {begins_at} on")
}

/// Cuts, empties or removes a segment with records in it: a start that reads it refuses and names it; then the copy is put
/// back.
pub(crate) fn cut_file(installation: &Installation, random: &mut Random) -> String {
    let journal = installation.path("data/journal");
    let (end, _, segment_bytes) = facts(&journal);
    let number = random.below(end / segment_bytes + 1);
    let path = segment_path(&journal, number);
    let copy = fs::read(&path).unwrap();
    let how = match random.below(3) {
        0 => {
            let length = random.below(segment_bytes);
            fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(length)
                .unwrap();
            format!("segment {number} cut to {length} bytes")
        }
        1 => {
            fs::write(&path, vec![0; segment_bytes as usize]).unwrap();
            format!("segment {number} emptied")
        }
        // One that is lost shows by those on both sides of it.
        _ if number > 0 && segment_path(&journal, number + 1).exists() => {
            fs::remove_file(&path).unwrap();
            format!("segment {number} lost")
        }
        _ => {
            fs::write(&path, b"").unwrap();
            format!("segment {number} cut to nothing")
        }
    };
    let named = [path.display().to_string()];
    without_snapshots(installation, || is_refused(installation, &named));
    if number >= snapshot_position(installation) / segment_bytes {
        is_refused(installation, &named);
    }
    fs::write(&path, &copy).unwrap();
    how
}
