//! Work on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What `map` makes of each item, in their order.
pub(super) fn map<T, R>(items: &[T], map: impl Fn(T) -> R + Sync) -> Vec<R>
where
    T: Copy + Sync,
    R: Send,
{
    let next = AtomicUsize::new(0);
    let work = || {
        let indexed = std::iter::from_fn(|| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, map(*item)))
        });
        indexed.collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |it: thread::ScopedJoinHandle<'_, _>| match it.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().flat_map(join).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_order_is_kept() {
        let items: Vec<u64> = (0..1000).collect();
        let expected: Vec<u64> = items.iter().map(|it| it * 2).collect();
        assert_eq!(super::map(&items, |it| it * 2), expected);
    }
}
