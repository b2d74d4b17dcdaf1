//! What a process used, from `/proc`. None where there is no `/proc`.

/// CPU time used so far, user and system, of all threads, µs. In steps of 10 ms.
pub(crate) fn cpu_us(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    Some(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// Memory that is resident, bytes.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    bytes(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")
}

/// The most that was resident so far, bytes.
pub(crate) fn peak_resident_bytes(pid: u32) -> Option<u64> {
    bytes(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:")
}

/// utime + stime: fields 14 and 15 by proc(5). The second, the program's name, may have spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// A line as `VmRSS:      123 kB`, where kB are 1024 bytes.
fn bytes(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_shift_the_fields() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 27 5 6 20 0 1 0 9";
        assert_eq!(ticks(stat), Some(177));
    }

    #[test]
    fn resident_memory_is_one_of_the_lines() {
        let status = "Name:\tVmRSS\nVmSize:\t  900 kB\nVmRSS:\t    12 kB\nRssAnon:\t 4 kB\n";
        assert_eq!(bytes(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(bytes("Name:\ta\n", "VmRSS:"), None);
    }
}
