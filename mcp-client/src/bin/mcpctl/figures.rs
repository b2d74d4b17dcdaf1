//! Numbers for people, in little room.

use std::time::Duration;

use crate::latency;

/// Tasks a second: `0`, `0.05`, `12.3`, `1234`.
pub(crate) fn rate(per_s: f64) -> String {
    match per_s {
        0.0 => "0".to_owned(),
        ..0.0995 => format!("{per_s:.2}"),
        ..99.95 => format!("{per_s:.1}"),
        _ => format!("{per_s:.0}"),
    }
}

/// A duration, ms: `250 ms`, `4.20 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn age(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        ..60 => latency::show(Duration::from_millis(ms)),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3_600 % 24),
    }
}

/// The same in 7 columns: `4.20 s`, `3m12s`, `2h05m`, `3d04h`.
pub(crate) fn short_age(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        ..60 => age(ms),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
    }
}

/// A duration, µs; a dash when there is none.
pub(crate) fn time(us: Option<u64>) -> String {
    us.map_or("-".to_owned(), |us| latency::show(Duration::from_micros(us)))
}

/// `512 B`, `3.4 KiB`, `12 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut number, mut at) = (bytes as f64 / 1024.0, 0);
    while number >= 1023.5 && at + 1 < UNITS.len() {
        (number, at) = (number / 1024.0, at + 1);
    }
    let unit = UNITS[at];
    if number < 9.95 { format!("{number:.1} {unit}") } else { format!("{number:.0} {unit}") }
}

/// `1 task`, `2 tasks`.
pub(crate) fn plural(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_say_something() {
        assert_eq!([0.0, 0.05, 1.25, 99.96, 1234.4].map(rate), ["0", "0.05", "1.2", "100", "1234"]);
        let ages: [u64; 5] = [250, 4_200, 192_000, 7_500_000, 273_600_000];
        assert_eq!(ages.map(age), ["250 ms", "4.20 s", "3 min 12 s", "2 h 5 min", "3 d 4 h"]);
        let short = ["250 ms", "4.20 s", "3m12s", "2h05m", "3d04h"];
        assert_eq!(ages.map(short_age), short);
        let sizes = [0, 1023, 1024, 12_700_000, 1 << 40, u64::MAX];
        let expected = ["0 B", "1023 B", "1.0 KiB", "12 MiB", "1.0 TiB", "16777216 TiB"];
        assert_eq!(sizes.map(bytes), expected);
        assert_eq!([time(None), time(Some(1_500))], ["-", "1.50 ms"]);
        assert_eq!([plural(1, "task"), plural(0, "task")], ["1 task", "0 tasks"]);
    }
}
