//! How far each stage has come: one atomic a stage, each on a cache line of its own, each written by one thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A counter with two cache lines to itself (processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    #[inline]
    fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    #[inline]
    fn write(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }
}

/// The journal's positions, in bytes from its beginning: `appended ≥ durable ≥ applied`.
///
/// A position is published with release and read with acquire: who reads it sees every byte before it.
#[derive(Debug)]
pub struct Positions {
    appended: Line,
    durable: Line,
    applied: Line,
    copied_out: Box<[Line]>,
    prepared: Line,
    reclaimed: Line,
    retained_from: Line,
    synced_bytes: Line,
    syncs: Line,
    poisoned: AtomicBool,
}

impl Positions {
    /// Everything stands at `position`; segments are prepared up to `prepared`.
    pub(super) fn new(position: u64, prepared: u64, link_agents: usize) -> Self {
        Self {
            appended: Line::new(position),
            durable: Line::new(position),
            applied: Line::new(position),
            copied_out: (0..link_agents).map(|_| Line::new(position)).collect(),
            prepared: Line::new(prepared),
            reclaimed: Line::new(0),
            retained_from: Line::default(),
            synced_bytes: Line::default(),
            syncs: Line::default(),
            poisoned: AtomicBool::new(false),
        }
    }

    /// The end of what the sequencer has published.
    #[must_use]
    #[inline]
    pub fn appended(&self) -> u64 {
        self.appended.read()
    }

    /// The end of what is on stable storage. Only what lies before it may have any effect outside.
    #[must_use]
    #[inline]
    pub fn durable(&self) -> u64 {
        self.durable.read()
    }

    /// The end of what clearing has applied.
    #[must_use]
    #[inline]
    pub fn applied(&self) -> u64 {
        self.applied.read()
    }

    /// Up to where link agent `agent` needs no request from the journal any more.
    ///
    /// # Panics
    /// There is no such agent.
    #[must_use]
    #[inline]
    pub fn copied_out(&self, agent: usize) -> u64 {
        self.copied_out[agent].read()
    }

    /// The end of the segments that stand ready on disk.
    #[must_use]
    #[inline]
    pub fn prepared(&self) -> u64 {
        self.prepared.read()
    }

    /// From where on segments must stay in the journal's directory; those that end before it may be removed or used again.
    /// [`Superblock::retain_from`](super::Superblock::retain_from) moves it.
    #[must_use]
    pub fn retained_from(&self) -> u64 {
        self.retained_from.read()
    }

    /// Bytes of the journal made durable in this run (without the repetition of half-full blocks).
    #[must_use]
    pub fn synced_bytes(&self) -> u64 {
        self.synced_bytes.read()
    }

    /// Durable writes in this run.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.read()
    }

    /// True once a durable write has failed: the switch must stop.
    #[must_use]
    #[inline]
    pub fn poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Clearing has applied everything before `position` and holds no record of it any more: the ring may reuse its room.
    ///
    /// # Panics
    /// When it goes back, or beyond what is durable.
    #[inline]
    pub fn set_applied(&self, position: u64) {
        let (before, durable) = (self.applied.read(), self.durable.read());
        assert!(
            before <= position && position <= durable,
            "applied {before} → {position}, durable {durable}"
        );
        self.applied.write(position);
    }

    /// Link agent `agent` needs nothing before `position` any more: the ring may reuse its room.
    ///
    /// # Panics
    /// When it goes back or beyond what is durable, or there is no such agent.
    #[inline]
    pub fn set_copied_out(&self, agent: usize, position: u64) {
        let line = &self.copied_out[agent];
        let (before, durable) = (line.read(), self.durable.read());
        assert!(
            before <= position && position <= durable,
            "copied out {before} → {position}, durable {durable}"
        );
        line.write(position);
    }

    /// The lowest position any reader may still want: no byte of its block or after it is overwritten.
    #[inline]
    pub(super) fn floor(&self) -> u64 {
        self.copied_out
            .iter()
            .map(Line::read)
            .fold(self.applied().min(self.durable()), u64::min)
    }

    /// Up to where ring room has been given to the appender for reuse.
    #[inline]
    pub(super) fn reclaimed(&self) -> u64 {
        self.reclaimed.read()
    }

    #[inline]
    pub(super) fn set_reclaimed(&self, position: u64) {
        self.reclaimed.write(position);
    }

    #[inline]
    pub(super) fn set_appended(&self, position: u64) {
        self.appended.write(position);
    }

    pub(super) fn set_retained_from(&self, position: u64) {
        self.retained_from.0.fetch_max(position, Ordering::AcqRel);
    }

    pub(super) fn set_prepared(&self, position: u64) {
        self.prepared.write(position);
    }

    pub(super) fn set_durable(&self, position: u64) {
        let before = self.durable.0.load(Ordering::Relaxed);
        assert!(before < position, "durable {before} → {position}");
        // The counters have the same one writer; they are exact whenever `durable` has been read first.
        self.synced_bytes
            .write(self.synced_bytes.0.load(Ordering::Relaxed) + (position - before));
        self.syncs.write(self.syncs.0.load(Ordering::Relaxed) + 1);
        self.durable.write(position);
    }

    pub(super) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}
