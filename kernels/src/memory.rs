//! How much memory this process may still take: what the system has, within what its container allows.

use std::path::Path;

/// Where the system does not say: what a small machine has.
const UNKNOWN: u64 = 4 << 30;

/// Bytes that can be had without swapping.
pub(crate) fn free_bytes() -> u64 {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|info| available(&info)).unwrap_or(UNKNOWN);
    container_free(Path::new("/sys/fs/cgroup")).map_or(system, |container| container.min(system))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The limit of the control group (version 2) less what is taken; `None` where there is no limit.
fn container_free(folder: &Path) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max")?;
    Some(limit.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_counts_kib() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    3 kB\n"), Some(3072));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
        assert!(free_bytes() > 0);
    }

    #[test]
    fn no_limit_is_no_container() {
        assert_eq!(container_free(Path::new("/nowhere")), None);
    }
}
