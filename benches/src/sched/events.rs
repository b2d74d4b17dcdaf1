//! What will happen, by time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Events in the order of their times; those of one time in the order in which they were added.
pub(super) struct Events<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    added: u64,
}

impl<E> Events<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), added: 0 }
    }

    pub(super) fn add(&mut self, at_us: u64, event: E) {
        self.added += 1;
        self.heap.push(Reverse(Entry { at_us, number: self.added, event }));
    }

    /// When the next one is.
    pub(super) fn next_at_us(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse(entry)| entry.at_us)
    }

    pub(super) fn pop(&mut self) -> Option<E> {
        self.heap.pop().map(|Reverse(entry)| entry.event)
    }
}

struct Entry<E> {
    at_us: u64,
    number: u64,
    event: E,
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_first_and_of_one_time_the_first_added() {
        let mut events = Events::new();
        for (at_us, name) in [(7, 'b'), (3, 'a'), (7, 'c')] {
            events.add(at_us, name);
        }
        assert_eq!(events.next_at_us(), Some(3));
        let order: String = std::iter::from_fn(|| events.pop()).collect();
        assert_eq!(order, "abc");
    }
}
