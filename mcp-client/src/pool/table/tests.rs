use super::*;

type Pool = Table<u32, &'static str>;

fn at(name: &str) -> Endpoint {
    Endpoint::new(name)
}

fn take(pool: &mut Pool, name: &'static str) -> Option<(u64, u32, Option<u32>)> {
    take_with(pool, name, None).map(|(number, client, evicted, _)| (number, client, evicted))
}

fn take_with(
    pool: &mut Pool,
    name: &'static str,
    place: Option<Place>,
) -> Option<(u64, u32, Option<u32>, Vec<&'static str>)> {
    let made = pool.next_number as u32;
    match pool.take(&at(name), place, |_| true, || made, name) {
        Take::Lent { number, client, evicted, again } => Some((number, client, evicted, again)),
        Take::Wait { .. } => None,
        Take::Closed => panic!("closed"),
    }
}

fn give_back(pool: &mut Pool, name: &str, number: u64, now: Instant) -> Vec<u32> {
    pool.give_back(&at(name), number, now, |_| true)
}

#[test]
fn users_of_one_broker_share_a_connection() {
    let mut pool = Pool::new(2, 2);
    assert_eq!(take(&mut pool, "a"), Some((0, 0, None)));
    assert_eq!(take(&mut pool, "a"), Some((0, 0, None)));
    assert_eq!(pool.open(), 1);
    let now = Instant::now();
    give_back(&mut pool, "a", 0, now);
    assert_eq!(pool.idle(), 0);
    give_back(&mut pool, "a", 0, now);
    assert_eq!(pool.idle(), 1);
    assert_eq!(take(&mut pool, "a"), Some((0, 0, None)));
}

#[test]
fn the_longest_idle_connection_makes_room() {
    let mut pool = Pool::new(2, 2);
    let now = Instant::now();
    take(&mut pool, "a");
    take(&mut pool, "b");
    give_back(&mut pool, "b", 1, now);
    give_back(&mut pool, "a", 0, now + Duration::from_secs(1));
    assert_eq!(take(&mut pool, "c"), Some((2, 2, Some(1))));
}

#[test]
fn who_waits_is_served_in_order_and_newcomers_do_not_overtake() {
    let mut pool = Pool::new(1, 1);
    let now = Instant::now();
    take(&mut pool, "a");
    assert_eq!(take(&mut pool, "b"), None);
    assert_eq!(take(&mut pool, "c"), None);
    // Sharing what is there takes nothing from those who wait.
    assert!(take(&mut pool, "a").is_some());
    assert!(pool.grant().is_none());
    give_back(&mut pool, "a", 0, now);
    assert_eq!(give_back(&mut pool, "a", 0, now), [0]);
    let (first, place) = pool.grant().unwrap();
    assert_eq!(first, "b");
    assert!(pool.grant().is_none());
    assert_eq!(take(&mut pool, "d"), None);
    assert!(take_with(&mut pool, "b", Some(place)).is_some());
    give_back(&mut pool, "b", 1, now);
    assert_eq!(pool.grant().unwrap().0, "c");
}

#[test]
fn who_waits_for_the_same_broker_shares_the_connection_that_is_made() {
    let mut pool = Pool::new(1, 1);
    take(&mut pool, "a");
    take(&mut pool, "b");
    take(&mut pool, "c");
    take(&mut pool, "b");
    give_back(&mut pool, "a", 0, Instant::now());
    let (_, place) = pool.grant().unwrap();
    let (.., again) = take_with(&mut pool, "b", Some(place)).unwrap();
    assert_eq!(again, ["b"]);
    assert_eq!(pool.waiters.len(), 1);
}

#[test]
fn a_place_that_is_not_taken_goes_to_the_next() {
    let mut pool = Pool::new(1, 1);
    take(&mut pool, "a");
    take(&mut pool, "b");
    take(&mut pool, "c");
    give_back(&mut pool, "a", 0, Instant::now());
    let (_, place) = pool.grant().unwrap();
    pool.give_up(place);
    assert_eq!(pool.grant().unwrap().0, "c");
}

#[test]
fn who_gave_up_waiting_is_forgotten() {
    let mut pool = Pool::new(1, 1);
    take(&mut pool, "a");
    let mut tickets = Vec::new();
    for name in ["b", "c"] {
        match pool.take(&at(name), None, |_| true, || 9, name) {
            Take::Wait { ticket } => tickets.push(ticket),
            Take::Lent { .. } | Take::Closed => panic!("{name}"),
        }
    }
    pool.forget(tickets[0]);
    pool.forget(tickets[0]);
    assert_eq!(pool.waiters.len(), 1);
    pool.forget(tickets[1]);
    // Nobody is left who would want its place.
    assert!(give_back(&mut pool, "a", 0, Instant::now()).is_empty());
    assert_eq!(pool.idle(), 1);
}

#[test]
fn idle_connections_are_bounded_in_number_and_time() {
    let mut pool = Pool::new(4, 1);
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    take(&mut pool, "a");
    take(&mut pool, "b");
    assert!(give_back(&mut pool, "a", 0, now).is_empty());
    assert_eq!(give_back(&mut pool, "b", 1, later), [0]);
    assert!(pool.begin_sweep());
    assert!(!pool.begin_sweep());
    assert!(pool.expire(later, Duration::from_secs(1)).is_empty());
    assert_eq!(pool.expire(later + Duration::from_secs(1), Duration::from_secs(1)), [1]);
    assert_eq!(pool.idle_since(), None);
}

#[test]
fn a_connection_that_failed_is_not_kept() {
    let mut pool = Pool::new(1, 1);
    take(&mut pool, "a");
    let gone = pool.give_back(&at("a"), 0, Instant::now(), |_| false);
    assert_eq!((gone, pool.open()), (vec![0], 0));
    // A late return of an earlier connection does not touch a newer one.
    take(&mut pool, "a");
    give_back(&mut pool, "a", 0, Instant::now());
    assert_eq!(pool.idle(), 0);
}

#[test]
fn a_closed_pool_lends_nothing_and_keeps_nothing() {
    let mut pool = Pool::new(2, 2);
    let now = Instant::now();
    take(&mut pool, "a");
    take(&mut pool, "b");
    give_back(&mut pool, "b", 1, now);
    assert_eq!(pool.close(), [1]);
    assert!(matches!(pool.take(&at("a"), None, |_| true, || 9, "a"), Take::Closed));
    assert_eq!(give_back(&mut pool, "a", 0, now), [0]);
}
