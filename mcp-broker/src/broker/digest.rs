//! Results told apart by a hash, whether they come at once or in parts.

use xxhash_rust::xxh64::Xxh64;

/// A result, as far as it has come. XXH64: some µs for the longest body, and of a billion different
/// results, hardly one has the hash of another.
#[derive(Clone)]
pub(super) struct Digest {
    state: Xxh64,
    bytes: u64,
}

impl Digest {
    pub(super) fn new() -> Self {
        Self { state: Xxh64::new(0), bytes: 0 }
    }

    pub(super) fn add(&mut self, part: &[u8]) {
        self.state.update(part);
        self.bytes += part.len() as u64;
    }

    /// The hash of all parts, and how long they are.
    pub(super) fn hash(&self) -> (u64, u64) {
        (self.state.digest(), self.bytes)
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Digest").field(&self.hash()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_result_have_the_hash_of_the_whole() {
        let of = |parts: &[&str]| {
            let mut digest = Digest::new();
            parts.iter().for_each(|part| digest.add(part.as_bytes()));
            digest.hash()
        };
        let whole = "a result that is longer than a block of the hash is";
        for at in [0, 1, 31, 32, 33, whole.len()] {
            assert_eq!(of(&[&whole[..at], "", &whole[at..]]), of(&[whole]), "{at}");
        }
        assert_ne!(of(&["a"]), of(&["b"]));
        assert_ne!(of(&["a"]), of(&["a", "a"]));
    }
}
