//! A bounded ring into a stage: `crossbeam_queue::ArrayQueue` and the consumer's wake-up.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::Wakeup;

/// A bounded ring of descriptors, many producers to one consumer.
///
/// Push a batch, then call [`Ring::notify`] once. A full ring gives the item back: that is back-pressure; nothing is
/// dropped inside.
#[derive(Debug)]
pub struct Ring<T> {
    queue: ArrayQueue<T>,
    consumer: Arc<Wakeup>,
}

impl<T> Ring<T> {
    /// A ring of `capacity` items whose consumer sleeps on `consumer`.
    #[must_use]
    pub fn new(capacity: usize, consumer: Arc<Wakeup>) -> Arc<Self> {
        Arc::new(Self {
            queue: ArrayQueue::new(capacity),
            consumer,
        })
    }

    /// Adds an item.
    ///
    /// # Errors
    /// The item, when the ring is full.
    #[inline]
    pub fn push(&self, item: T) -> Result<(), T> {
        self.queue.push(item)
    }

    /// Takes the oldest item.
    #[inline]
    #[must_use]
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    /// Wakes the consumer if it sleeps. Call once after a batch.
    #[inline]
    pub fn notify(&self) {
        self.consumer.wake();
    }

    /// Items in the ring; a snapshot.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True when nothing is in the ring; a snapshot.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Room left; a snapshot.
    #[must_use]
    #[inline]
    pub fn free(&self) -> usize {
        self.queue.capacity() - self.queue.len()
    }

    /// How many items fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }
}
