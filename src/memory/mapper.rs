//! Memory mapped by another thread: for threads that give way to all others, and ahead of those that must not wait.
//!
//! Whoever faults memory in holds the process's lock on its mappings until it is done. A thread of the lowest class that
//! loses its core in the middle keeps the lock meanwhile, and every other thread that maps something or grows its heap
//! waits for a thread that nobody lets run: 300 ms were seen. So such threads have it done by one of normal class.

use std::cell::Cell;
use std::io;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;

use super::mapped::MappedMemory;

struct Order {
    bytes: usize,
    lock: bool,
    to: Addressee,
}

enum Addressee {
    /// Waits for it.
    Waiting(SyncSender<io::Result<MappedMemory>>),
    /// Will look there when it needs it.
    Later(Arc<ArrayQueue<MappedMemory>>),
}

static MAPPER: OnceLock<Option<Sender<Order>>> = OnceLock::new();

thread_local! {
    static GIVES_WAY: Cell<bool> = const { Cell::new(false) };
}

/// Starts the thread that maps for others, of the caller's class; once in a process, later calls change nothing. Where none
/// can be started everyone maps for themselves.
pub fn start_mapper() {
    MAPPER.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        let thread = std::thread::Builder::new().name("mapper".to_owned());
        let started = thread.spawn(move || {
            for order in taken {
                let mapped = MappedMemory::map_here(order.bytes, order.lock);
                match (order.to, mapped) {
                    // Who has gone meanwhile needs it no more.
                    (Addressee::Waiting(waiting), mapped) => drop(waiting.send(mapped)),
                    (Addressee::Later(place), Ok(memory)) => drop(place.push(memory)),
                    // It asks the host itself when it needs it, and is told then.
                    (Addressee::Later(_), Err(_)) => {}
                }
            }
        });
        started.is_ok().then_some(orders)
    });
}

/// From now on the calling thread has memory mapped by the mapper, if there is one.
pub fn leave_mapping_to_the_mapper() {
    GIVES_WAY.set(true);
}

/// What the mapper gave; `None` where the caller is to map for itself.
pub(super) fn map(bytes: usize, lock: bool) -> Option<io::Result<MappedMemory>> {
    if !GIVES_WAY.get() {
        return None;
    }
    let orders = MAPPER.get()?.as_ref()?;
    let (mapped, taken) = sync_channel(1);
    let to = Addressee::Waiting(mapped);
    orders.send(Order { bytes, lock, to }).ok()?;
    taken.recv().ok()
}

/// The next memory of something that grows, mapped before it is needed: faulting in a huge page takes from 0.1 to 10 ms, as
/// the host likes.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Where the mapper puts it; `None` until the first was ordered.
    place: Option<Arc<ArrayQueue<MappedMemory>>>,
    ordered: bool,
}

impl Ahead {
    pub(super) const fn new() -> Self {
        Self {
            place: None,
            ordered: false,
        }
    }

    /// Has `bytes` mapped, if that was not ordered already; without a mapper nothing happens.
    pub(super) fn order(&mut self, bytes: usize) {
        let Some(orders) = MAPPER.get().and_then(Option::as_ref) else {
            return;
        };
        if self.ordered {
            return;
        }
        let place = self.place.get_or_insert_with(|| Arc::new(ArrayQueue::new(1)));
        let to = Addressee::Later(Arc::clone(place));
        let lock = false;
        self.ordered = orders.send(Order { bytes, lock, to }).is_ok();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.place.as_ref().is_none_or(|place| place.is_empty())
    }

    /// What was ordered, if it is there.
    pub(super) fn take(&mut self) -> Option<MappedMemory> {
        let memory = self.place.as_ref()?.pop()?;
        self.ordered = false;
        Some(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gives_way_has_its_memory_mapped_by_another() {
        start_mapper();
        assert!(map(4_096, false).is_none(), "this thread maps for itself");
        let worker = std::thread::spawn(|| {
            leave_mapping_to_the_mapper();
            assert!(map(4_096, false).is_some());
            let memory = MappedMemory::new(3 << 20, false).unwrap();
            // SAFETY: the whole mapping, held by this test alone.
            let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), memory.len()) };
            bytes.fill(7);
            assert!(
                MappedMemory::new(1 << 50, false).is_err(),
                "what the host has not is refused as ever"
            );
        });
        worker.join().unwrap();
    }
}
