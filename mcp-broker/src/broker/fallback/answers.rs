//! The last good answers, for the action's tasks that get no worker.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use bytes::Bytes;
use bytestring::ByteString;
use foldhash::fast::FixedState;
use mcp_proto::{Deliver, ResultHeaders};

use super::CachedBy;
use crate::broker::identities::IdentityKey;
use crate::broker::time::Mono;

/// What an answer costs besides its texts: about its entry, and its place in the order.
const ENTRY_BYTES: usize = 256;

/// Places in the order whose answers were replaced are swept when they are more than the others, and
/// this many.
const SWEEP_ABOVE: usize = 64;

/// Answers of all actions with a cached step, bounded in number and bytes; the oldest go first. What
/// is too old for its step stays until then.
#[derive(Debug)]
pub(in crate::broker) struct Answers {
    kept: HashMap<AnswerKey, Answer, FixedState>,
    /// The oldest first. One that was replaced has a place that no longer counts.
    order: VecDeque<(AnswerKey, u64)>,
    count: u64,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
    hash: FixedState,
}

/// Which questions an answer is for. Like the fingerprint that tells duplicates, the hash is under a
/// secret seed: of one identity's questions, two being taken for one another is as likely as there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AnswerKey {
    identity: IdentityKey,
    hash: u64,
}

/// A question: a task of an action.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) identity: IdentityKey,
    pub(super) action: &'a str,
    pub(super) tenant: &'a [u8],
    pub(super) affinity_key: &'a [u8],
    /// Of action and body, unless its body is only the beginning of its input.
    pub(super) fingerprint: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    number: u64,
    given: Mono,
    pub(super) content_type: ByteString,
    pub(super) headers: ResultHeaders,
    pub(super) body: Bytes,
}

impl Answer {
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().flat_map(|headers| headers.iter());
        let headers: usize = headers.map(|(key, value)| key.len() + value.len()).sum();
        ENTRY_BYTES + self.content_type.len() + headers + self.body.len()
    }
}

impl Answers {
    pub(in crate::broker) fn new(max_entries: usize, max_bytes: usize, seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        Self {
            kept: HashMap::with_hasher(hash.clone()),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            max_entries,
            max_bytes,
            hash,
        }
    }

    /// Other bounds; what is beyond them goes.
    pub(in crate::broker) fn set_bounds(&mut self, max_entries: usize, max_bytes: usize) {
        (self.max_entries, self.max_bytes) = (max_entries, max_bytes);
        while (self.kept.len() > max_entries || self.bytes > max_bytes) && self.forget_oldest() {}
    }

    pub(in crate::broker) fn identities(&self) -> impl Iterator<Item = IdentityKey> {
        self.kept.keys().map(|key| key.identity)
    }

    /// None when there is nothing to tell the question by.
    pub(super) fn key(&self, question: Question<'_>, by: CachedBy) -> Option<AnswerKey> {
        let Question { identity, action, tenant, affinity_key, fingerprint } = question;
        let hash = match by {
            CachedBy::Body => self.hash.hash_one((by, action, tenant, fingerprint?)),
            CachedBy::Affinity if affinity_key.is_empty() => return None,
            CachedBy::Affinity => self.hash.hash_one((by, action, tenant, affinity_key)),
            CachedBy::Action => self.hash.hash_one((by, action, tenant)),
        };
        Some(AnswerKey { identity, hash })
    }

    pub(super) fn find(&self, key: AnswerKey, now: Mono, max_age_ms: u64) -> Option<&Answer> {
        let is_fresh = |it: &&Answer| now.since(it.given) <= max_age_ms.saturating_mul(1000);
        self.kept.get(&key).filter(is_fresh)
    }

    /// Keeps an answer, in place of an earlier one.
    pub(super) fn keep(&mut self, key: AnswerKey, now: Mono, deliver: &Deliver, body: &Bytes) {
        self.count += 1;
        let answer = Answer {
            number: self.count,
            given: now,
            // Apart from the packets that they came in.
            content_type: ByteString::from(&*deliver.content_type),
            headers: deliver.headers.clone(),
            body: Bytes::copy_from_slice(body),
        };
        self.remove(key);
        let bytes = answer.bytes();
        if bytes > self.max_bytes || self.max_entries == 0 {
            return;
        }
        while (self.kept.len() >= self.max_entries || self.bytes + bytes > self.max_bytes)
            && self.forget_oldest()
        {}
        if self.order.len() > 2 * self.kept.len() + SWEEP_ABOVE {
            let kept = &self.kept;
            self.order.retain(|(key, number)| kept.get(key).is_some_and(|it| it.number == *number));
        }
        self.bytes += bytes;
        self.order.push_back((key, answer.number));
        self.kept.insert(key, answer);
    }

    /// Whether there was a place in the order.
    fn forget_oldest(&mut self) -> bool {
        let Some((oldest, number)) = self.order.pop_front() else { return false };
        if self.counts(oldest, number) {
            self.remove(oldest);
        }
        true
    }

    fn counts(&self, key: AnswerKey, number: u64) -> bool {
        self.kept.get(&key).is_some_and(|it| it.number == number)
    }

    fn remove(&mut self, key: AnswerKey) {
        if let Some(answer) = self.kept.remove(&key) {
            self.bytes -= answer.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_proto::{Executed, Outcome, TaskId};

    use super::*;
    use crate::broker::identities::Identities;
    use crate::broker::identity::Identity;

    fn question(identities: &mut Identities, identity: &Identity) -> Question<'static> {
        Question {
            identity: identities.key_of(identity),
            action: "work",
            tenant: b"t",
            affinity_key: b"k",
            fingerprint: Some(1),
        }
    }

    fn one() -> Question<'static> {
        question(&mut Identities::new(1), &Identity::anonymous())
    }

    fn keep(it: &mut Answers, of: u64, at: u64, bytes: usize) {
        let key = it.key(Question { fingerprint: Some(of), ..one() }, CachedBy::Body).unwrap();
        let id = TaskId::try_from("t").unwrap();
        let deliver = Deliver::new(id, Outcome::Ok, Executed::Yes);
        it.keep(key, Mono(at), &deliver, &vec![at as u8; bytes].into());
    }

    fn has(it: &Answers, of: u64) -> Option<u8> {
        let key = it.key(Question { fingerprint: Some(of), ..one() }, CachedBy::Body).unwrap();
        it.find(key, Mono(0), 1).map(|answer| answer.body[0])
    }

    #[test]
    fn the_oldest_go_beyond_so_many_and_a_newer_answer_takes_the_place_of_an_older() {
        let mut it = Answers::new(3, 1_000_000, 1);
        for (of, at) in [(1, 1), (2, 2), (3, 3), (1, 4), (4, 5)] {
            keep(&mut it, of, at, 10);
        }
        // The second is the oldest, since the first was given again.
        assert_eq!([1, 2, 3, 4].map(|of| has(&it, of)), [Some(4), None, Some(3), Some(5)]);
    }

    #[test]
    fn the_oldest_go_beyond_so_many_bytes() {
        let mut it = Answers::new(1_000, 3 * (ENTRY_BYTES + 100), 1);
        (1..=3).for_each(|of| keep(&mut it, of, of, 100));
        keep(&mut it, 4, 4, 101);
        assert_eq!([1, 2, 3, 4].map(|of| has(&it, of)), [None, None, Some(3), Some(4)]);
        // One that is larger than all of the room leaves the others alone.
        keep(&mut it, 5, 5, 2_000);
        assert_eq!([3, 4, 5].map(|of| has(&it, of)), [Some(3), Some(4), None]);
        assert_eq!(it.bytes, it.kept.values().map(Answer::bytes).sum::<usize>());
    }

    #[test]
    fn one_that_is_given_again_and_again_takes_no_more_room() {
        let mut it = Answers::new(10, 1_000_000, 1);
        keep(&mut it, 1, 1, 10);
        (0..10_000).for_each(|at| keep(&mut it, 2, at, 10));
        assert_eq!((has(&it, 1), it.kept.len()), (Some(1), 2));
        assert!(it.order.len() <= 2 * 2 + SWEEP_ABOVE + 1, "{}", it.order.len());
    }

    #[test]
    fn questions_are_told_apart_by_identity_action_tenant_and_key() {
        let it = Answers::new(10, 1_000, 1);
        let mut identities = Identities::new(1);
        let mut of = |name: &str| question(&mut identities, &Identity::new(name));
        let (a, b) = (of("a"), of("b"));
        for by in [CachedBy::Body, CachedBy::Affinity, CachedBy::Action] {
            assert_eq!(it.key(a, by), it.key(a, by));
            assert_ne!(it.key(a, by), it.key(b, by));
            assert_ne!(it.key(a, by), it.key(Question { action: "other", ..a }, by));
            assert_ne!(it.key(a, by), it.key(Question { tenant: b"u", ..a }, by));
        }
        let other = Question { fingerprint: Some(2), ..a };
        assert_ne!(it.key(a, CachedBy::Body), it.key(other, CachedBy::Body));
        assert_eq!(it.key(a, CachedBy::Affinity), it.key(other, CachedBy::Affinity));
        let other = Question { affinity_key: b"l", ..a };
        assert_ne!(it.key(a, CachedBy::Affinity), it.key(other, CachedBy::Affinity));
        assert_eq!(it.key(a, CachedBy::Action), it.key(other, CachedBy::Action));
        let bare = Question { affinity_key: b"", fingerprint: None, ..a };
        assert_eq!(it.key(bare, CachedBy::Body), None);
        assert_eq!(it.key(bare, CachedBy::Affinity), None);
    }

    #[test]
    fn what_is_too_old_is_no_answer() {
        let mut it = Answers::new(10, 10_000, 1);
        keep(&mut it, 1, 1_000, 10);
        let key = it.key(one(), CachedBy::Body).unwrap();
        assert!(it.find(key, Mono(6_000), 5).is_some());
        assert!(it.find(key, Mono(6_001), 5).is_none());
    }
}
