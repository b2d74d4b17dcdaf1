//! What the operating system knows of this process, by the names that Prometheus' own clients give it.
//! Read from `/proc`; where there is none, nothing is told.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// Ticks a second of times in `/proc`: a part of Linux's interface, whatever its timer does.
const TICKS_PER_S: f64 = 100.0;

/// This process.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some((cpu_s, start_s)) = times() {
            let help = "User and system CPU time";
            to.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&cpu_s, None)?;
            let help = "When the process started, since 1970";
            to.encode_descriptor(
                "process_start_time",
                help,
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?
            .encode_gauge(&start_s)?;
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let bytes = |name| number_after(&status, name).map(|kib| kib * 1024);
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
        for (name, help, unit, value) in [
            ("process_resident_memory", "In memory", Some(&Unit::Bytes), bytes("VmRSS:")),
            ("process_virtual_memory", "Addressable", Some(&Unit::Bytes), bytes("VmSize:")),
            ("process_threads", "Threads", None, number_after(&status, "Threads:")),
            ("process_open_fds", "Open files, sockets included", None, open),
            (
                "process_max_fds",
                "Those there may be",
                None,
                number_after(&limits, "Max open files"),
            ),
        ] {
            if let Some(value) = value {
                to.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// CPU time, and when it started, both in seconds.
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted_s = number_after(&system, "btime")? as f64;
    of_stat(&stat).map(|(cpu, start)| (cpu / TICKS_PER_S, booted_s + start / TICKS_PER_S))
}

/// CPU time and start in ticks. The name, which may have spaces, is before the last bracket.
fn of_stat(stat: &str) -> Option<(f64, f64)> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // utime, stime and starttime are fields 14, 15 and 22, and the first one here is 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_no_problem() {
        let stat = "7 (a (b) 1 2) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 3 0 4200 1 2";
        assert_eq!(of_stat(stat), Some((200.0, 4200.0)));
        assert_eq!(of_stat("7 (a) S 1"), None);
    }

    #[test]
    fn numbers_are_found_by_name() {
        let text = "VmRSS:\t    1234 kB\nMax open files            unlimited     unlimited\n";
        assert_eq!(number_after(text, "VmRSS:"), Some(1234));
        assert_eq!(number_after(text, "Max open files"), None);
        assert_eq!(number_after(text, "VmSize:"), None);
    }
}
