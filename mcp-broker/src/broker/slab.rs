//! Tables whose keys are never mistaken: a key names one entry, and nothing after that is removed.

use std::fmt;
use std::marker::PhantomData;

/// Bits of a key's index and of its generation. 16 million entries at once; a key could be
/// mistaken only after its place was reused 16 million times.
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;

/// Names an entry of a `Slab<T>`.
pub(super) struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The key as a number of 48 bits, never 0.
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.generation) << BITS | u64::from(self.index)
    }

    /// Which place of the table it names.
    pub(super) fn place(self) -> u32 {
        self.index
    }

    /// The key of a number; of a foreign one, a key that names nothing or any entry.
    pub(super) fn from_bits(bits: u64) -> Self {
        let (index, generation) = (bits as u32 & MASK, (bits >> BITS) as u32 & MASK);
        Self { index, generation, of: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}

impl<T> Eq for Key<T> {}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.index, self.generation)
    }
}

/// A table with generational keys.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    /// Of the entry here, or of the next one.
    generation: u32,
    entry: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Adds an entry. The table's users bound their number well below its 16 million.
    #[inline]
    pub(super) fn insert(&mut self, entry: T) -> Key<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 1, entry: None });
            self.places.len() as u32 - 1
        });
        debug_assert!(index <= MASK);
        let place = &mut self.places[index as usize];
        place.entry = Some(entry);
        Key { index, generation: place.generation, of: PhantomData }
    }

    pub(super) fn get(&self, key: Key<T>) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        if place.generation == key.generation { place.entry.as_ref() } else { None }
    }

    /// The entry at a place, whichever that is.
    pub(super) fn at(&self, place: u32) -> Option<&T> {
        self.places.get(place as usize)?.entry.as_ref()
    }

    /// The same, with its key.
    pub(super) fn entry_at(&self, index: u32) -> Option<(Key<T>, &T)> {
        let place = self.places.get(index as usize)?;
        let key = Key { index, generation: place.generation, of: PhantomData };
        Some((key, place.entry.as_ref()?))
    }

    pub(super) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        self.place_mut(key)?.entry.as_mut()
    }

    pub(super) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let entry = self.place_mut(key)?.entry.take()?;
        self.release(key.index);
        Some(entry)
    }

    /// Drops an entry where it lies; moving a large one out of it would cost as much as it does.
    #[inline]
    pub(super) fn discard(&mut self, key: Key<T>) {
        if let Some(place) = self.place_mut(key)
            && place.entry.is_some()
        {
            place.entry = None;
            self.release(key.index);
        }
    }

    fn place_mut(&mut self, key: Key<T>) -> Option<&mut Place<T>> {
        self.places.get_mut(key.index as usize).filter(|place| place.generation == key.generation)
    }

    fn release(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        // Generation 0 is skipped, so that no key is the number 0.
        place.generation = (place.generation & MASK) % MASK + 1;
        self.free.push(index);
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let key = Key { index: index as u32, generation: place.generation, of: PhantomData };
            place.entry.as_ref().map(|entry| (key, entry))
        })
    }

    pub(super) fn keys(&self) -> Vec<Key<T>> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_nothing_once_its_entry_is_gone() {
        let mut slab = Slab::default();
        let old = slab.insert("a");
        assert_eq!(slab.remove(old), Some("a"));
        let new = slab.insert("b");
        assert_eq!((slab.get(old), slab.get(new)), (None, Some(&"b")));
        assert_eq!(slab.remove(old), None);
        slab.discard(old);
        assert_eq!(Key::<&str>::from_bits(new.to_bits()), new);
        assert_ne!(new.to_bits(), 0);
        assert_eq!(slab.len(), 1);
        slab.discard(new);
        assert_eq!((slab.get(new), slab.len()), (None, 0));
    }
}
