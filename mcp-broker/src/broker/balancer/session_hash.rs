//! Tasks with the same affinity key to the same member.
//!
//! A key's members are in an order of their own, by rendezvous hashing: a member that comes or goes
//! moves only the keys that are its own. Sources: Thaler, Ravishankar, "Using name-based mappings to
//! increase hit rates", 1998; that a member of twice the slots has twice the keys: Schindelhauer,
//! Schomaker, "Weighted distributed hash tables", 2005 (their logarithmic method).
//!
//! A hot key must not drown its member: of the tasks that were placed lately, no member gets more
//! than 1.25 times its share by slots; beyond that the next in the key's order is taken, as it is when
//! a member has no room. Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded
//! loads", 2018. They bound what a member has in flight. Here that is bounded by its slots already,
//! and the few tasks that a worker has at once say little: of 3 on average, 4 at once are common
//! without any hot key, and a bound of 1.25 on them sends a third of balanced keys elsewhere. Over
//! some 100 tasks a slot the same bound tells a hot key from chance.

use mcp_proto::Score;

use super::super::hash::avalanche;
use super::super::rng::Rng;
use super::least_loaded::LeastLoaded;
use super::{Load, Member, Odds, Seat};

/// Largest share of a member among the tasks placed lately, in 1/4 of its share by slots: 1.25, the
/// lowest that HAProxy calls reasonable for its `hash-balance-factor`.
const BOUND_QUARTERS: u64 = 5;

/// Tasks a slot after which those of before count half: their random spread is then below the bound
/// also for a member of a single slot (8 of 64; the bound is 16 away).
const LATELY_TASKS: u64 = 64;

/// Tasks a slot that a pool of new members is taken to have had in good balance, so that the first
/// few are no matter of the bound.
const HEADSTART_TASKS: u64 = 16;

/// How many of a key's first members are remembered: so many may be full before all are looked at.
const RANKED: usize = 4;

/// Keys whose first members are remembered, a power of two: 32 bytes each. A key that is not
/// remembered costs a look at each member, some ns.
const REMEMBERED: usize = 4096;

/// Keys that share a place among those: so many that a quarter of them fits with few lost.
const WAYS: usize = 4;

/// No member.
const NONE: Member = Member::MAX;

/// All members, with room or not. Those with room are also chosen by their load, for tasks without
/// a key.
#[derive(Debug, Default)]
pub(crate) struct SessionHash {
    seated: Vec<Seated>,
    /// Where each member is in `seated`.
    positions: Vec<u32>,
    slots: u64,
    /// Tasks placed lately, of all.
    lately: u64,
    /// Changes when a member comes or goes.
    generation: u32,
    /// By key, a few to a place.
    remembered: Vec<[Remembered; WAYS]>,
    by_load: LeastLoaded,
}

#[derive(Debug, Clone, Copy)]
struct Seated {
    seed: u64,
    member: Member,
    slots: u32,
    lately: u64,
    has_room: bool,
}

/// The first members of a key, when there were those of a generation.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    key: u64,
    generation: u32,
    first: [Member; RANKED],
}

impl Seated {
    /// Between 0 and 1, neither of them.
    fn chance(&self, key: u64) -> f64 {
        ((avalanche(key ^ self.seed) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// How long its race takes with this chance.
    fn time(&self, chance: f64) -> f64 {
        -chance.ln() / f64::from(self.slots)
    }
}

impl SessionHash {
    pub(super) fn join(&mut self, member: Member, seat: Seat) {
        self.leave(member);
        let index = member as usize;
        if index >= self.positions.len() {
            self.positions.resize(index + 1, NONE);
        }
        let slots = u64::from(seat.slots);
        let lately = match self.slots {
            0 => HEADSTART_TASKS * slots,
            all => self.lately * slots / all,
        };
        self.positions[index] = self.seated.len() as u32;
        let Seat { slots, seed, .. } = seat;
        self.seated.push(Seated { seed, member, slots, lately, has_room: false });
        self.slots += u64::from(slots);
        self.lately += lately;
        self.generation = self.generation.wrapping_add(1);
    }

    pub(super) fn leave(&mut self, member: Member) {
        self.withdraw(member);
        let Some(position) = self.position(member) else { return };
        self.positions[member as usize] = NONE;
        let gone = self.seated.swap_remove(position);
        if let Some(moved) = self.seated.get(position) {
            self.positions[moved.member as usize] = position as u32;
        }
        self.slots -= u64::from(gone.slots);
        self.lately -= gone.lately;
        self.generation = self.generation.wrapping_add(1);
    }

    pub(super) fn offer(&mut self, member: Member, load: Load) {
        if let Some(position) = self.position(member) {
            self.seated[position].has_room = true;
            self.by_load.offer(member, load);
        }
    }

    pub(super) fn withdraw(&mut self, member: Member) {
        if let Some(position) = self.position(member) {
            self.seated[position].has_room = false;
            self.by_load.withdraw(member);
        }
    }

    fn position(&self, member: Member) -> Option<usize> {
        let position = self.positions.get(member as usize).filter(|it| **it != NONE)?;
        Some(*position as usize)
    }

    /// The member with room that comes first in the key's order and is not above the bound, other
    /// than `avoid`; if there is none, the first with room.
    pub(super) fn pick(
        &mut self,
        rng: &mut Rng,
        key: u64,
        avoid: Option<Member>,
    ) -> Option<Member> {
        let picked = match key {
            0 => self.by_load.pick(rng, avoid)?,
            key => self.by_key(key, avoid)?,
        };
        if let Some(position) = self.position(picked) {
            self.seated[position].lately += 1;
            self.lately += 1;
            if self.lately >= 2 * LATELY_TASKS * self.slots {
                self.halve();
            }
        }
        Some(picked)
    }

    fn by_key(&mut self, key: u64, avoid: Option<Member>) -> Option<Member> {
        if self.by_load.len() == 0 {
            return None;
        }
        let ranked = self.ranked(key);
        let has_room = |it: &Seated| it.has_room && Some(it.member) != avoid;
        let is_fine = |it: &Seated| has_room(it) && !self.is_above_bound(it);
        let is_fine_member = |member: &Member| {
            self.position(*member).is_some_and(|position| is_fine(&self.seated[position]))
        };
        let first = |[first, ..]: [Member; RANKED]| (first != NONE).then_some(first);
        ranked
            .into_iter()
            .find(is_fine_member)
            .or_else(|| first(self.first_of(key, is_fine)))
            .or_else(|| first(self.first_of(key, has_room)))
            .or(avoid)
    }

    /// Whether a member has had its part of the tasks placed lately, if it gets one more.
    fn is_above_bound(&self, it: &Seated) -> bool {
        let bound = u128::from(BOUND_QUARTERS * (self.lately + 1)) * u128::from(it.slots);
        u128::from(4 * (it.lately + 1)) * u128::from(self.slots) > bound
    }

    /// The first of a key's order among those that run: the winners of a race in which each takes a
    /// time that is exponentially distributed, so that one of twice the slots wins twice as often.
    fn first_of(&self, key: u64, runs: impl Fn(&Seated) -> bool) -> [Member; RANKED] {
        let mut best = [(f64::INFINITY, NONE); RANKED];
        for it in &self.seated {
            let chance = it.chance(key);
            // Since -ln x ≥ 1 - x, most have lost before their time is known.
            let (last_time, _) = best[RANKED - 1];
            if 1.0 - chance >= last_time * f64::from(it.slots) || !runs(it) {
                continue;
            }
            let time = it.time(chance);
            if time < last_time {
                let place = best.partition_point(|(other, _)| *other <= time);
                best[place..].rotate_right(1);
                best[place] = (time, it.member);
            }
        }
        best.map(|(_, member)| member)
    }

    /// The first of a key's order, with room or not.
    fn ranked(&mut self, key: u64) -> [Member; RANKED] {
        let generation = self.generation;
        if self.remembered.is_empty() {
            let nothing = Remembered { key: 0, generation, first: [NONE; RANKED] };
            self.remembered = vec![[nothing; WAYS]; REMEMBERED / WAYS];
        }
        let place = key as usize % self.remembered.len();
        let is_it = |it: &Remembered| it.key == key && it.generation == generation;
        match self.remembered[place].iter().position(is_it) {
            // Whoever was asked for last is the last to be forgotten.
            Some(way) => self.remembered[place][..=way].rotate_right(1),
            None => {
                let first = self.first_of(key, |_| true);
                self.remembered[place].rotate_right(1);
                self.remembered[place][0] = Remembered { key, generation, first };
            }
        }
        self.remembered[place][0].first
    }

    /// The first member of a key's order, with room or not.
    pub(super) fn home(&mut self, key: u64) -> Option<Member> {
        let [home, ..] = self.ranked(key);
        (home != NONE).then_some(home)
    }

    /// The same, remembering nothing.
    pub(super) fn home_of(&self, key: u64) -> Option<Member> {
        let [home, ..] = self.first_of(key, |_| true);
        (home != NONE).then_some(home)
    }

    /// Whether a member comes before another in a key's order.
    pub(super) fn prefers(&self, key: u64, member: Member, other: Member) -> bool {
        let time = |member| {
            let it = &self.seated[self.position(member)?];
            Some(it.time(it.chance(key)))
        };
        time(member).is_some_and(|own| time(other).is_none_or(|other| own < other))
    }

    pub(super) fn odds(
        &self,
        key: u64,
        avoid: Option<Member>,
        is_out: impl Fn(Member) -> bool,
    ) -> Odds {
        if key == 0 {
            return self.by_load.odds(avoid, is_out);
        }
        let first = |runs: &dyn Fn(&Seated) -> bool| {
            let [first, ..] = self.first_of(key, runs);
            (first != NONE).then_some(first)
        };
        let has_room = |it: &Seated| it.has_room && !is_out(it.member);
        let others = |it: &Seated| has_room(it) && Some(it.member) != avoid;
        if let Some(member) = first(&|it| others(it) && !self.is_above_bound(it)) {
            let how = match self.home_of(key) == Some(member) {
                true => "it is the first in the key's order",
                false => "of the key's order, the first with room and within its bound",
            };
            return Odds::certain(Some(member), how);
        }
        let member = first(&others).or_else(|| first(&has_room));
        Odds::certain(member, "of the key's order, the first with room; all are above their bounds")
    }

    pub(super) fn score(&self, member: Member, key: u64) -> Option<Score> {
        if key == 0 {
            return self.by_load.score(member);
        }
        let it = self.seated.get(self.position(member)?).filter(|it| it.has_room)?;
        let share = self.lately as f64 * f64::from(it.slots) / self.slots as f64;
        let value = it.time(it.chance(key));
        let of_share = it.lately as f64 / share.max(1.0);
        let text = format!("{value:.3} in the key's order, {of_share:.2} of its share lately");
        Some(Score { value, text })
    }

    fn halve(&mut self) {
        self.lately = 0;
        for it in &mut self.seated {
            it.lately /= 2;
            self.lately += it.lately;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_load.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> u64 {
        avalanche(number + 1)
    }

    fn seat(member: Member, slots: u32) -> Seat {
        Seat { slots, weight: 1, seed: avalanche(1_000_000 + u64::from(member)) }
    }

    fn with(slots: &[u32]) -> SessionHash {
        let mut it = SessionHash::default();
        for (member, slots) in slots.iter().enumerate() {
            it.join(member as Member, seat(member as Member, *slots));
            it.offer(member as Member, Load { in_flight: 0, slots: *slots });
        }
        it
    }

    fn home(it: &mut SessionHash, number: u64) -> Member {
        it.ranked(key(number))[0]
    }

    #[test]
    fn only_the_keys_of_who_comes_or_goes_move() {
        let mut it = with(&[4; 20]);
        let homes = |it: &mut SessionHash| (0..20_000).map(|n| home(it, n)).collect::<Vec<_>>();
        let before = homes(&mut it);
        it.leave(7);
        let without = homes(&mut it);
        for (before, without) in before.iter().zip(&without) {
            assert!((before == without) != (*before == 7));
        }
        it.join(20, seat(20, 4));
        let after = homes(&mut it);
        let moved = without.iter().zip(&after).filter(|(a, b)| a != b);
        assert!(moved.clone().all(|(_, to)| *to == 20));
        assert!((900..1_100).contains(&moved.count()));
        it.leave(20);
        it.join(7, seat(7, 4));
        assert!(homes(&mut it) == before, "as it was, when the same ones are there");
    }

    #[test]
    fn the_order_of_a_key_goes_on_as_it_was_without_its_first() {
        let mut it = with(&[1; 10]);
        let before = it.ranked(key(5));
        it.leave(before[0]);
        assert_eq!(it.ranked(key(5))[..3], before[1..]);
        it.withdraw(before[1]);
        let mut rng = Rng::new(1);
        assert_eq!(it.pick(&mut rng, key(5), None), Some(before[2]));
        assert_eq!(it.pick(&mut rng, key(5), Some(before[2])), Some(before[3]));
        // All that are remembered are full.
        (1..4).for_each(|place| it.withdraw(before[place]));
        let next = it.pick(&mut rng, key(5), None).unwrap();
        assert!(!before.contains(&next));
        (0..10).filter(|member| *member != next).for_each(|member| it.withdraw(member));
        assert_eq!(it.pick(&mut rng, key(5), Some(next)), Some(next));
        it.withdraw(next);
        assert_eq!((it.pick(&mut rng, key(5), None), it.len()), (None, 0));
    }

    #[test]
    fn keys_are_shared_out_by_slots() {
        let mut it = with(&[1, 1, 2, 4, 8]);
        let mut keys = [0; 5];
        (0..64_000).for_each(|number| keys[home(&mut it, number) as usize] += 1);
        for (count, share) in keys.iter().zip([4_000, 4_000, 8_000, 16_000, 32_000]) {
            assert!((share * 9 / 10..share * 11 / 10).contains(count), "{keys:?}");
        }
    }

    #[test]
    fn a_hot_key_gives_no_member_more_than_the_bound() {
        for slots in [[4; 8], [1, 1, 2, 2, 4, 4, 8, 8]] {
            let (mut it, mut rng, mut seen) = (with(&slots), Rng::new(1), [0_u64; 8]);
            let all: u32 = slots.iter().sum();
            for number in 0..200_000 {
                // Nine of ten tasks have the same key.
                let key = key(if number % 10 == 0 { number } else { 0 });
                seen[it.pick(&mut rng, key, None).unwrap() as usize] += 1;
            }
            let hottest = it.ranked(super::tests::key(0))[0] as usize;
            for (member, count) in seen.into_iter().enumerate() {
                let share = 200_000.0 * f64::from(slots[member]) / f64::from(all);
                let load = count as f64 / share;
                assert!(load < 1.26, "{member}: {load}");
                assert!(member != hottest || load > 1.24, "{member}: {load}");
            }
        }
    }

    #[test]
    fn balanced_keys_are_hardly_touched_by_the_bound() {
        for slots in [[1; 8], [4; 8]] {
            let (mut it, mut rng) = (with(&slots), Rng::new(7));
            let mut hits = 0;
            for _ in 0..50_000 {
                let number = rng.below(5_000) as u64;
                let first = home(&mut it, number);
                hits += u32::from(it.pick(&mut rng, key(number), None) == Some(first));
            }
            assert!(hits > 48_500, "{hits}");
        }
    }

    #[test]
    fn tasks_without_a_key_go_by_load() {
        let (mut it, mut rng) = (with(&[4; 3]), Rng::new(1));
        it.offer(0, Load { in_flight: 1, slots: 4 });
        it.offer(2, Load { in_flight: 2, slots: 4 });
        assert_eq!(it.pick(&mut rng, 0, None), Some(1));
        assert_eq!(it.pick(&mut rng, 0, Some(1)), Some(0));
    }

    #[test]
    fn who_comes_next_is_told_without_choosing() {
        let (mut it, mut rng) = (with(&[1, 1, 2, 2]), Rng::new(1));
        it.withdraw(3);
        for number in 0..2_000 {
            let key = key(if number % 3 == 0 { number } else { 0 });
            let avoid = [None, Some(1)][number as usize % 2];
            let odds = it.odds(key, avoid, |_| false).members;
            assert_eq!(odds, [(it.pick(&mut rng, key, avoid).unwrap(), 1.0)]);
        }
        let odds = it.odds(key(1), None, |member| member != 0);
        assert_eq!(odds.members, [(0, 1.0)]);
        assert!(it.odds(key(1), None, |_| true).members.is_empty());
        let last = it.odds(key(1), Some(0), |member| member != 0).members;
        assert_eq!(last, [(0, 1.0)]);
        assert!(it.score(0, key(1)).unwrap().text.ends_with(" of its share lately"));
        assert_eq!(it.score(3, key(1)), None);
        assert_eq!(it.odds(0, None, |_| false).members.len(), 3, "without a key by load");
    }
}
