//! A hierarchical timing wheel: set and cancel in O(1), whatever the number of timers.
//!
//! Ticks are milliseconds. Level 0 has a slot for each of the next 64 ticks, level 1 one for each
//! of the next 64 × 64, and so on; a slot's timers move down when its time comes. Source: Varghese
//! and Lauck, "Hashed and hierarchical timing wheels", 1987.

use super::time::Mono;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 64^6 ms are two years, longer than any time to live.
const LEVELS: usize = 6;
const MAX_TICKS: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;
const NONE: u32 = u32::MAX;

/// Names a timer that was set. Stays harmless after it fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimerKey {
    index: u32,
    generation: u32,
}

/// Timers that carry a `T`.
#[derive(Debug)]
pub(super) struct Timers<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    /// First entry of each slot's list.
    heads: [[u32; SLOTS]; LEVELS],
    /// A bit for each slot that has entries.
    occupied: [u64; LEVELS],
    /// All ticks up to this one have fired.
    elapsed: u64,
}

#[derive(Debug)]
struct Entry<T> {
    payload: T,
    tick: u64,
    generation: u32,
    /// Where it is; none when it is free.
    slot: Option<(u8, u8)>,
    previous: u32,
    next: u32,
}

impl<T: Copy> Timers<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            elapsed: 0,
        }
    }

    /// Fires at `at` or up to a tick later, never earlier.
    pub(super) fn set(&mut self, at: Mono, payload: T) -> TimerKey {
        let tick = at.0.div_ceil(1000).clamp(self.elapsed + 1, self.elapsed + MAX_TICKS / 2);
        let index = match self.free.pop() {
            Some(index) => {
                let entry = &mut self.entries[index as usize];
                entry.payload = payload;
                entry.tick = tick;
                index
            }
            None => {
                let (generation, slot) = (0, None);
                let entry = Entry { payload, tick, generation, slot, previous: NONE, next: NONE };
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.link(index);
        TimerKey { index, generation: self.entries[index as usize].generation }
    }

    /// Cancels a timer, if it has not fired.
    pub(super) fn cancel(&mut self, key: TimerKey) {
        let entry = &self.entries[key.index as usize];
        if entry.generation == key.generation && entry.slot.is_some() {
            self.unlink(key.index);
            self.release(key.index);
        }
    }

    /// When [`Timers::fire`] has something to do.
    pub(super) fn next(&self) -> Option<Mono> {
        self.next_slot().map(|(_, _, tick)| Mono(tick * 1000))
    }

    /// Takes a timer that is due at `now`.
    pub(super) fn fire(&mut self, now: Mono) -> Option<T> {
        let now = now.0 / 1000;
        while let Some((level, slot, tick)) = self.next_slot() {
            if tick > now {
                break;
            }
            if level == 0 {
                // `elapsed` stays one behind until the slot is empty, so that the rest of it
                // remains in place.
                let index = self.heads[0][slot];
                self.unlink(index);
                let payload = self.entries[index as usize].payload;
                self.release(index);
                return Some(payload);
            }
            self.elapsed = tick - 1;
            let mut index = std::mem::replace(&mut self.heads[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while index != NONE {
                let next = self.entries[index as usize].next;
                self.link(index);
                index = next;
            }
        }
        self.elapsed = self.elapsed.max(now);
        None
    }

    /// The earliest occupied slot, and the tick at which it begins. Where a slot of a higher level
    /// begins at the same tick, that one: its timers belong below.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        // Entries are placed relative to the tick after `elapsed`, see `link`.
        let base = self.elapsed + 1;
        let mut first: Option<(usize, usize, u64)> = None;
        for (level, slots) in self.occupied.iter().enumerate() {
            if *slots == 0 {
                continue;
            }
            let slot = u64::from(slots.trailing_zeros());
            let shift = SLOT_BITS * level as u32;
            let above = base >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
            let tick = above | slot << shift;
            if first.is_none_or(|(.., first)| tick <= first) {
                first = Some((level, slot as usize, tick));
            }
        }
        first
    }

    fn link(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        let base = self.elapsed + 1;
        let differing = (base ^ tick) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS) as usize;
        let slot = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let head = std::mem::replace(&mut self.heads[level][slot], index);
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        let entry = &mut self.entries[index as usize];
        (entry.slot, entry.previous, entry.next) = (Some((level as u8, slot as u8)), NONE, head);
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let (previous, next) = (entry.previous, entry.next);
        let Some((level, slot)) = entry.slot.take() else { return };
        let (level, slot) = (usize::from(level), usize::from(slot));
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[level][slot] = next;
            if next == NONE {
                self.occupied[level] &= !(1 << slot);
            }
        }
    }

    pub(super) fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Mono {
        Mono(ms * 1000)
    }

    fn fire_all(timers: &mut Timers<usize>, now: Mono) -> Vec<usize> {
        std::iter::from_fn(|| timers.fire(now)).collect()
    }

    #[test]
    fn a_timer_fires_at_its_time_and_a_cancelled_one_never() {
        let mut timers = Timers::new();
        timers.set(ms(5), 1);
        let cancelled = timers.set(ms(6), 2);
        timers.set(ms(100_000), 3);
        timers.cancel(cancelled);
        assert!(fire_all(&mut timers, ms(4)).is_empty());
        assert_eq!(timers.next(), Some(ms(5)));
        assert_eq!(fire_all(&mut timers, ms(7)), [1]);
        timers.cancel(cancelled);
        assert!(fire_all(&mut timers, ms(99_999)).is_empty());
        assert_eq!(fire_all(&mut timers, ms(100_000)), [3]);
        assert_eq!(timers.next(), None);
    }

    proptest! {
        #[test]
        fn all_fire_once_in_the_first_look_after_their_time(
            ats in proptest::collection::vec(0u64..400_000_000, 1..60),
            steps in proptest::collection::vec(1u64..60_000_000, 1..40),
            cancelled in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let mut timers = Timers::new();
            let keys: Vec<_> =
                ats.iter().enumerate().map(|(i, at)| timers.set(Mono(*at), i)).collect();
            for (i, key) in keys.iter().enumerate().filter(|(i, _)| cancelled[*i]) {
                let _ = i;
                timers.cancel(*key);
            }
            let mut fired = vec![false; ats.len()];
            let mut now = 0;
            for step in steps.into_iter().chain([500_000_000]) {
                let before = now;
                now += step;
                if let Some(next) = timers.next() {
                    // Nothing that is not fired yet is earlier than `next` says.
                    for (i, at) in ats.iter().enumerate() {
                        let tick = at.div_ceil(1000).max(1) * 1000;
                        prop_assert!(fired[i] || cancelled[i] || tick >= next.0.min(before + 1));
                    }
                }
                for i in fire_all(&mut timers, Mono(now)) {
                    prop_assert!(!cancelled[i] && !fired[i] && ats[i] <= now);
                    fired[i] = true;
                }
                for (i, at) in ats.iter().enumerate() {
                    let is_due = at.div_ceil(1000).max(1) <= now / 1000;
                    prop_assert_eq!(fired[i], is_due && !cancelled[i]);
                }
            }
        }
    }
}
