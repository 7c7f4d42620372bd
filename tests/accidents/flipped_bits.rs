//! A bit that flips below what had been durable: the switch does not start, and says in which file and where.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use clearway::config::BackendChoice;
use clearway::journal::JournalFiles;
use clearway::wire::RecordKind;

use crate::books::all_books_agree;
use crate::places::is_refused;
use crate::players::Load;
use crate::support::daemon::Installation;
use crate::support::directory;

const RECORD_HEADER_BYTES: u64 = 32;

/// Where a record of each kind begins, all below what a Group record states as durable; the second of each kind, where there
/// are two, since the first ones stand at the very beginning.
fn records(journal: &Path) -> BTreeMap<RecordKind, u64> {
    let files = JournalFiles::open(journal).unwrap();
    let (mut found, mut seen) = (BTreeMap::new(), BTreeMap::<RecordKind, u64>::new());
    let mut stated = 0;
    for walked in files.walk() {
        let record = walked.unwrap().record;
        let begins = record.position - RECORD_HEADER_BYTES;
        if record.kind == RecordKind::Group {
            stated = stated.max(u64::from_le_bytes(record.payload[..8].try_into().unwrap()));
        }
        let count = seen.entry(record.kind).or_default();
        *count += 1;
        if *count <= 2 {
            found.insert(record.kind, begins);
        }
    }
    found.retain(|_, begins| *begins < stated);
    found
}

#[test]
fn a_flipped_bit_in_a_record_of_any_kind_is_refused_by_file_and_offset_and_mended_by_the_copy() {
    let installation = Installation::of(directory(2, 2), BackendChoice::Auto, |_| {}).with_short_segments();
    let load = Load::new(&installation.directory, 0..2, 2..4, 1);
    let mut daemon = installation.start();
    load.scheme.started(daemon.listen);
    // More than a segment of them: there is a Pad, unless a record ended just where the segment does.
    load.go_on(5_000);
    daemon.signal(libc::SIGKILL);
    assert_eq!(daemon.exit_code(), None);

    let journal = installation.path("data/journal");
    let segment_bytes = JournalFiles::open(&journal).unwrap().segment_bytes();
    let records = records(&journal);
    for kind in [
        RecordKind::Genesis,
        RecordKind::Request,
        RecordKind::Reply,
        RecordKind::Group,
        RecordKind::Pad,
    ] {
        let Some(&begins) = records.get(&kind) else {
            assert_eq!(kind, RecordKind::Pad);
            continue;
        };
        let file = journal.join(format!("{:012}.seg", begins / segment_bytes));
        let copy = fs::read(&file).unwrap();
        let offset = begins % segment_bytes;
        // In the header, and in what follows it (a Pad may be a header only).
        for harmed in [offset + 9, offset + RECORD_HEADER_BYTES - 1] {
            let handle = fs::File::options().write(true).open(&file).unwrap();
            handle.write_all_at(&[copy[harmed as usize] ^ 0x20], harmed).unwrap();
            let told = is_refused(&installation, &mut installation.command());
            let said = format!("{} at offset {offset}: ", file.display());
            assert!(
                told.contains(&said) && told.contains("restore the file from a copy"),
                "{kind:?}: {told}"
            );
            fs::write(&file, &copy).unwrap();
        }
    }
    let daemon = installation.start();
    load.scheme.started(daemon.listen);
    load.go_on(100);
    let known = load.finish();
    assert!(all_books_agree(&installation, daemon, &known) > 5_000);
}
