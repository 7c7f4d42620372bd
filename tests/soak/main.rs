//! A soak: the shipped binary under load through round after round of accidents, drawn from a seed.
//!
//! `cargo test --test soak -- --rounds 500 --seed 7` runs longer, or again what once failed. Institutions and banks keep
//! books of their own all the time; nothing that was said may change, no request may come twice, and at the end all books,
//! the audit and a replay must agree: nothing lost, nothing invented.

#[path = "../accidents/books.rs"]
mod books;
#[path = "../accidents/players.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod players;
#[path = "../support/mod.rs"]
mod support;

mod accident;
mod arguments;
mod files;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use accident::Accident;
use arguments::Arguments;
use books::all_books_agree;
use clearway::config::BackendChoice;
use clearway::sim::Random;
use players::Load;
use support::daemon::{Daemon, Installation, ask};
use support::disk_calls::{DiskCall, Fate, Wish, supervise};
use support::{BACKENDS, directory, eventually};

/// Between two lines of progress.
const TOLD_EVERY: Duration = Duration::from_secs(3);
const SECTOR_BYTES: usize = 512;

fn main() {
    let Some(arguments) = Arguments::read() else { return };
    let Arguments { rounds, seed } = arguments;
    println!("soak: {rounds} rounds, seed {seed} (again: cargo test --test soak -- --rounds {rounds} --seed {seed})");
    let begun = Instant::now();
    let mut random = Random::new(seed);
    let installation = Installation::of(directory(3, 3), BackendChoice::Auto, |_| {}).with_short_segments();
    let mut soak = Soak {
        load: Load::new(&installation.directory, 0..3, 3..6, 2),
        installation,
        random: Random::new(seed ^ 1),
        must_say: None,
    };
    let mut counts = BTreeMap::<Accident, u64>::new();
    let mut told = begun;
    // The journal is there before the first accident.
    soak.round(Accident::Kill);
    for (round, accident) in (1..).zip(Accident::plan(rounds, &mut random)) {
        let what = soak.round(accident);
        *counts.entry(accident).or_default() += 1;
        if told.elapsed() >= TOLD_EVERY || round == rounds {
            told = Instant::now();
            println!(
                "soak: round {round} of {rounds}, {} payments answered, {} s; last: {}{what}",
                soak.load.scheme.answered(),
                begun.elapsed().as_secs(),
                accident.name(),
            );
        }
    }
    let payments = soak.finish();
    for (accident, count) in counts {
        println!("soak: {count:>5} × {}", accident.name());
    }
    println!(
        "soak: passed; {payments} payments, all books agree, {} s",
        begun.elapsed().as_secs()
    );
}

/// A switch through its accidents.
struct Soak {
    installation: Installation,
    load: Load,
    random: Random,
    /// What the next start must say of what it found.
    must_say: Option<String>,
}

impl Soak {
    /// One start, load, and an accident; gives more about it.
    fn round(&mut self, accident: Accident) -> String {
        let backend = BACKENDS[self.random.below(2) as usize];
        self.installation
            .write_settings("127.0.0.1:0".parse().unwrap(), backend);
        let payments = 20 + self.random.below(600);
        match accident {
            Accident::Kill => self.kill(payments),
            Accident::Stop => {
                let mut daemon = self.start(self.installation.command());
                self.load.go_on(payments);
                daemon.signal(libc::SIGTERM);
                assert_eq!(daemon.exit_code(), Some(0), "{}", self.installation.log());
            }
            Accident::PowerCut => return self.cut_power(),
            Accident::KilledEarly => return self.kill_early(),
            Accident::WriteRefused => return self.fail_write(|_| Fate::Refused(libc::EIO)),
            Accident::WriteShort => {
                return self.fail_write(|call| Fate::Short(call.bytes() / 2 / SECTOR_BYTES * SECTOR_BYTES));
            }
            Accident::DiskFull => self.fill_disk(),
            Accident::GarbageBehind => {
                self.kill(payments);
                let cut = files::garbage_behind(&self.installation, &mut self.random);
                self.must_say = Some(cut);
            }
            Accident::Flip => {
                self.kill(payments);
                return format!(" {}", files::flip(&self.installation, &mut self.random));
            }
            Accident::FileCut => {
                self.kill(payments);
                return format!(": {}", files::cut_file(&self.installation, &mut self.random));
            }
        }
        String::new()
    }

    /// Starts the switch, and has its participants come back.
    fn start(&mut self, mut command: Command) -> Daemon {
        let log_before = self.installation.log_length();
        let daemon = self.installation.start_by(&mut command);
        self.has_said(log_before);
        self.load.scheme.started(daemon.listen);
        daemon
    }

    /// As `start`, where the accident may come first; none if the switch has ended before it took payments.
    fn try_start(&mut self, command: &mut Command) -> Option<Daemon> {
        let daemon = self.installation.try_start_by(command).ok()?;
        self.load.scheme.started(daemon.listen);
        Some(daemon)
    }

    fn has_said(&mut self, log_before: u64) {
        let Some(sentence) = self.must_say.take() else { return };
        let mut log = String::new();
        let mut file = File::open(self.installation.path("switch.log")).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(log_before)).unwrap();
        file.read_to_string(&mut log).unwrap();
        assert!(log.contains(&sentence), "{sentence} is not in: {log}");
    }

    fn kill(&mut self, payments: u64) {
        let mut daemon = self.start(self.installation.command());
        self.load.go_on(payments);
        daemon.signal(libc::SIGKILL);
        assert_eq!(daemon.exit_code(), None, "it was killed");
    }

    /// Waits for the end that an accident brings; the load goes on meanwhile.
    fn ends(&self, daemon: &mut Daemon) -> Option<i32> {
        let code = daemon.exit_code();
        self.load.check();
        code
    }

    /// The power goes in the middle of one of the first durable writes, those of the start included.
    fn cut_power(&mut self) -> String {
        // Nothing is known of what the next start finds.
        self.must_say = None;
        let nth = self.random.below(150);
        let mut random = Random::new(self.random.below(u64::MAX));
        let mut seen = 0;
        let mut command = self.installation.command();
        let supervisor = supervise(&mut command, move |call| {
            if call.wish != Wish::Write || !call.on_segment() {
                return Fate::Done;
            }
            seen += 1;
            if seen <= nth {
                return Fate::Done;
            }
            write_torn(call, &mut random);
            Fate::Killed
        });
        if let Some(mut daemon) = self.try_start(&mut command) {
            assert_eq!(self.ends(&mut daemon), None, "the power was cut");
        }
        drop(command);
        supervisor.join().unwrap();
        format!(" {nth}")
    }

    /// A kill before any of the first calls on the disk.
    fn kill_early(&mut self) -> String {
        self.must_say = None;
        let nth = self.random.below(40);
        let mut seen = 0;
        let mut command = self.installation.command();
        let supervisor = supervise(&mut command, move |_| {
            seen += 1;
            if seen <= nth { Fate::Done } else { Fate::Killed }
        });
        if let Some(mut daemon) = self.try_start(&mut command) {
            assert_eq!(self.ends(&mut daemon), None, "it was killed");
        }
        drop(command);
        supervisor.join().unwrap();
        format!(" {nth}")
    }

    /// The disk fails one of the first durable writes; the switch must end by itself and say so.
    fn fail_write(&mut self, fault: fn(&DiskCall) -> Fate) -> String {
        self.must_say = None;
        let nth = self.random.below(150);
        let mut seen = 0;
        let log_before = self.installation.log_length();
        let mut command = self.installation.command();
        let supervisor = supervise(&mut command, move |call| {
            if call.wish != Wish::Write || !call.on_segment() {
                return Fate::Done;
            }
            seen += 1;
            assert!(seen <= nth + 1, "a write came after the one that failed");
            if seen <= nth { Fate::Done } else { fault(call) }
        });
        let exit_code = match self.try_start(&mut command) {
            Some(mut daemon) => self.ends(&mut daemon),
            None => Some(1),
        };
        drop(command);
        supervisor.join().unwrap();
        assert_eq!(exit_code, Some(1), "{}", self.installation.log());
        // Clearing away what was never durable is a write, too.
        let sentences = ["is not tried again", "cannot clear what was never durable"];
        let log = self.installation.log();
        let log = &log[log_before as usize..];
        assert!(sentences.iter().any(|sentence| log.contains(sentence)), "{log}");
        format!(" {nth}")
    }

    /// No segment can be made until intake has stopped; then it must go on by itself.
    fn fill_disk(&mut self) {
        let full = Arc::new(AtomicBool::new(true));
        let is_full = Arc::clone(&full);
        let mut command = self.installation.command();
        supervise(&mut command, move |call| {
            if call.wish == Wish::Allocate && is_full.load(Ordering::Relaxed) {
                Fate::Refused(libc::ENOSPC)
            } else {
                Fate::Done
            }
        });
        let log_before = self.installation.log_length();
        let daemon = self
            .installation
            .try_start_until(&mut command, &|status| status["intake"] != "starting");
        let mut daemon = daemon.unwrap_or_else(|_| panic!("the daemon ended: {}", self.installation.log()));
        self.has_said(log_before);
        self.load.scheme.started(daemon.listen);
        let intake =
            || ask(&self.installation.path("data/admin.sock"), "status").map(|status| status["intake"].clone());
        for _ in 0..3 {
            // As long as it is being filled, payments are answered.
            if intake().is_some_and(|intake| intake == "no_space") {
                break;
            }
            let answered = self.load.scheme.answered();
            eventually("payments are answered, or intake stops", || {
                self.load.check();
                self.load.scheme.answered() > answered + 2_000 || intake().is_some_and(|intake| intake == "no_space")
            });
        }
        eventually("intake stops", || intake().is_some_and(|intake| intake == "no_space"));
        full.store(false, Ordering::Relaxed);
        eventually("intake goes on", || intake().is_some_and(|intake| intake == "open"));
        self.load.go_on(50);
        daemon.signal(libc::SIGKILL);
        assert_eq!(daemon.exit_code(), None, "it was killed");
    }

    /// The load comes to its end, and all books are held against each other. Gives how many payments there were.
    fn finish(mut self) -> u64 {
        let daemon = self.start(self.installation.command());
        self.load.go_on(100);
        let known = self.load.finish();
        all_books_agree(&self.installation, daemon, &known)
    }
}

/// Writes of each sector of the write all, nothing, or a part.
fn write_torn(call: &DiskCall, random: &mut Random) {
    let file = File::options().write(true).open(&call.file).unwrap();
    // All of it, nothing of it, or each sector by itself.
    let manner = random.below(5);
    for (sector, bytes) in call.content().chunks(SECTOR_BYTES).enumerate() {
        let kept = match (manner, random.below(5)) {
            (0, _) | (2.., 0 | 1) => bytes.len(),
            (1, _) | (2.., 2 | 3) => 0,
            (2.., _) => random.below(bytes.len() as u64) as usize,
        };
        let offset = call.offset + (sector * SECTOR_BYTES) as u64;
        file.write_all_at(&bytes[..kept], offset).unwrap();
    }
    file.sync_all().unwrap();
}
