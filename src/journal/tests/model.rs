//! The journal against a `Vec`: whatever the sizes, the groups, the readers' pace and the restarts.

use proptest::collection::vec;
use proptest::prelude::*;

use super::options;
use crate::domain::UtcNanos;
use crate::journal::*;
use crate::wire::RecordKind;

#[derive(Clone, Copy, Debug)]
enum Step {
    Append { words: usize },
    Publish,
    Sync,
    Read { at_most: usize },
    Close,
    Prepare,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_usize..=127).prop_map(|words| Step::Append { words }),
        3 => Just(Step::Publish),
        3 => Just(Step::Sync),
        3 => (0_usize..40).prop_map(|at_most| Step::Read { at_most }),
        1 => Just(Step::Close),
        1 => Just(Step::Prepare),
        1 => Just(Step::Restart),
    ]
}

/// An event as the model keeps it.
type Event = (RecordKind, u64, Vec<u8>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_journal_is_a_list_of_what_was_durable(steps in vec(step(), 1..400)) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(options(directory.path())).unwrap();
        let mut model: Vec<Event> = Vec::new();
        let (mut published, mut durable, mut read) = (0, 0, 0);
        for step in steps {
            match step {
                Step::Append { words } => {
                    let number = model.len() as u64 + 1;
                    let kind = if words % 2 == 0 { RecordKind::Reply } else { RecordKind::Request };
                    let bytes = vec![number as u8; 32 * words];
                    let before = journal.appender.position();
                    match journal.appender.append(kind, UtcNanos(number), bytes.len(), |out| out.copy_from_slice(&bytes)) {
                        Ok(_) => model.push((kind, number, bytes)),
                        Err(Full) => prop_assert_eq!(journal.appender.position(), before),
                    }
                }
                Step::Publish => {
                    prop_assert_eq!(journal.appender.publish(), published < model.len());
                    published = model.len();
                }
                Step::Sync => {
                    prop_assert_eq!(journal.syncer.sync().unwrap() > 0, durable < published);
                    durable = published;
                }
                Step::Read { at_most } => {
                    for _ in 0..at_most {
                        let Some(record) = journal.reader.next() else {
                            prop_assert_eq!(read, durable);
                            break;
                        };
                        let (kind, number, bytes) = &model[read];
                        prop_assert_eq!((record.kind, record.number, record.payload), (*kind, *number, &bytes[..]));
                        prop_assert_eq!(record.time, UtcNanos(*number));
                        read += 1;
                    }
                    journal.positions.set_applied(journal.reader.position());
                    journal.positions.set_copied_out(0, journal.reader.position());
                }
                Step::Close => {
                    if journal.appender.close_quiet_group() {
                        prop_assert_eq!(durable, model.len());
                        journal.appender.publish();
                        journal.syncer.sync().unwrap();
                    }
                }
                Step::Prepare => {
                    journal.preparer.prepare().unwrap();
                }
                Step::Restart => {
                    let end = journal.positions.durable();
                    drop(journal);
                    journal = Journal::open(options(directory.path())).unwrap();
                    model.truncate(durable);
                    (published, read) = (durable, durable);
                    prop_assert_eq!(journal.recovery.durable, end);
                    prop_assert_eq!(journal.recovery.last_event, durable as u64);
                    prop_assert_eq!(journal.recovery.cut_bytes, 0);
                    let files = JournalFiles::open(directory.path()).unwrap();
                    prop_assert_eq!(files.durable(), end);
                    let found: Vec<Event> = files
                        .records()
                        .map(|record| record.unwrap())
                        .map(|record| (record.kind, record.number, record.payload.to_vec()))
                        .collect();
                    prop_assert_eq!(&found, &model);
                }
            }
            let positions = &journal.positions;
            prop_assert!(positions.applied() <= positions.durable());
            prop_assert!(positions.durable() <= positions.appended());
            prop_assert!(positions.appended() <= journal.appender.position());
            prop_assert_eq!(journal.appender.next_event_number(), model.len() as u64 + 1);
        }
    }
}
