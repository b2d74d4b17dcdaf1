//! How argument texts become values.

use std::time::Duration;

use mcp_client::Retry;
use mcp_proto::limits::{MAX_ATTEMPTS, MAX_RETRY_WAIT_MS, MAX_TTL_MS};

/// A duration as people write it: a number and one of `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) =
        text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let unit_s = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "" => return Err(format!("has no unit; say {text}s or {text}ms")),
        _ => return Err(format!("has unit {unit:?}; there are ms, s, m, h and d: 250ms, 30s, 5m")),
    };
    // `parse` would also take "inf", "1e9" and "-1".
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err("is not a number and a unit: 250ms, 30s, 5m, 2h".to_owned());
    }
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|_| "is too long".to_owned())
}

/// A task's time to live: a duration from 1 ms to 7 days.
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    let max = Duration::from_millis(MAX_TTL_MS);
    within(duration(text)?, max).ok_or("is out of range; 1ms to 7d are allowed".to_owned())
}

/// An attempt time-out: a duration from 1 ms to an hour.
pub(crate) fn attempt_timeout(text: &str) -> Result<Duration, String> {
    let max = Duration::from_millis(MAX_RETRY_WAIT_MS.into());
    within(duration(text)?, max).ok_or("is out of range; 1ms to 1h are allowed".to_owned())
}

/// How often something is asked for: a duration from 200 ms to an hour.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_millis(200)..=Duration::from_secs(3_600);
    let interval = Some(duration(text)?).filter(|it| allowed.contains(it));
    interval.ok_or("is out of range; 200ms to 1h are allowed".to_owned())
}

fn within(duration: Duration, max: Duration) -> Option<Duration> {
    (Duration::from_millis(1)..=max).contains(&duration).then_some(duration)
}

/// How often a task is tried again, 1 to 99 times: with the default waits.
pub(crate) fn retry(text: &str) -> Result<Retry, String> {
    let retries = text.parse().ok().filter(|retries| (1..MAX_ATTEMPTS).contains(retries));
    let retries = retries.ok_or("is not a number of times, 1 to 99")?;
    Ok(Retry { max_attempts: 1 + retries, ..Retry::default() })
}

/// Seconds, from a millisecond to a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let allowed = 0.001..=86_400.0;
    let secs = text.parse().ok().filter(|secs| allowed.contains(secs));
    secs.map(Duration::from_secs_f64).ok_or("is not a number of seconds, 0.001 to 86400".to_owned())
}

/// Tasks a second, from one in a thousand seconds to ten million.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let allowed = 0.001..=1e7;
    let rate = text.parse().ok().filter(|rate| allowed.contains(rate));
    rate.ok_or("is not a number of tasks a second, 0.001 to 10000000".to_owned())
}

/// `KEY=VALUE`; the value may be empty and may hold further `=`.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let ms = |text| duration(text).map(|it| it.as_millis());
        assert_eq!(ms("250ms"), Ok(250));
        assert_eq!(ms("30s"), Ok(30_000));
        assert_eq!(ms("1.5s"), Ok(1_500));
        assert_eq!(ms("5m"), Ok(300_000));
        assert_eq!(ms("2h"), Ok(7_200_000));
        assert_eq!(ms("1d"), Ok(86_400_000));
        for wrong in ["", "s", "-1s", "1e9s", "infs", "1..2s", "5 m", "3w", "99999999999999999999d"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration("30").unwrap_err(), "has no unit; say 30s or 30ms");
    }

    #[test]
    fn seconds_and_rates_are_plain_numbers_within_bounds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(rate("2000"), Ok(2000.0));
        for wrong in ["", "0", "-1", "nan", "inf", "1s", "1e9"] {
            assert!(seconds(wrong).is_err() && rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_ttl_is_within_what_the_protocol_allows() {
        assert!(ttl("1ms").is_ok());
        assert!(ttl("7d").is_ok());
        for wrong in ["0s", "0.5ms", "8d"] {
            assert_eq!(ttl(wrong).unwrap_err(), "is out of range; 1ms to 7d are allowed");
        }
    }

    #[test]
    fn retries_are_attempts_beyond_the_first() {
        assert_eq!(retry("1").map(|retry| retry.max_attempts), Ok(2));
        assert_eq!(retry("99").map(|retry| retry.max_attempts), Ok(100));
        for wrong in ["", "0", "100", "-1", "2s"] {
            assert_eq!(retry(wrong).unwrap_err(), "is not a number of times, 1 to 99");
        }
        assert_eq!(attempt_timeout("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["0s", "61m"] {
            assert_eq!(
                attempt_timeout(wrong).unwrap_err(),
                "is out of range; 1ms to 1h are allowed"
            );
        }
    }

    #[test]
    fn a_value_may_be_empty_and_hold_equals_signs() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(key_value("gpu=a100"), pair("gpu", "a100"));
        assert_eq!(key_value("q=a=b"), pair("q", "a=b"));
        assert_eq!(key_value("empty="), pair("empty", ""));
        assert!(key_value("gpu").is_err());
        assert!(key_value("=x").is_err());
    }
}
