//! Memory mapped on behalf of threads that give way to all others.
//!
//! Whoever faults memory in holds the process's lock on its mappings until it is done. A thread of the lowest class that
//! loses its core in the middle keeps the lock meanwhile, and every other thread that maps something or grows its heap
//! waits for a thread that nobody lets run: 300 ms were seen. So such threads have it done by one of normal class.

use std::cell::Cell;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

use super::mapped::MappedMemory;

struct Order {
    bytes: usize,
    lock: bool,
    mapped: SyncSender<io::Result<MappedMemory>>,
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
                // Who has gone meanwhile needs it no more.
                let _unmapped = order.mapped.send(MappedMemory::map_here(order.bytes, order.lock));
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
    orders.send(Order { bytes, lock, mapped }).ok()?;
    taken.recv().ok()
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
