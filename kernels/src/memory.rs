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

/// The limit of the control group (version 2) less what is taken; `None` where there is no limit. Pages of files count as taken
/// there, a checkpoint's among them, but make room for whoever asks.
fn container_free(folder: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, taken) = (number("memory.max")?, number("memory.current")?);
    let stat = read("memory.stat").unwrap_or_default();
    let of = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let files: u64 = ["active_file ", "inactive_file "].into_iter().filter_map(of).sum();
    Some(limit.saturating_sub(taken.saturating_sub(files)))
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
    fn pages_of_files_are_free() {
        let folder = std::env::temp_dir().join(format!("kernels-cgroup-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("memory.max", "1000\n");
        write("memory.current", "900\n");
        assert_eq!(container_free(&folder), Some(100));
        write("memory.stat", "anon 300\nactive_file 200\nworkingset_activate_file 7\ninactive_file 350\n");
        assert_eq!(container_free(&folder), Some(650));
        write("memory.max", "max\n");
        assert_eq!(container_free(&folder), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn no_limit_is_no_container() {
        assert_eq!(container_free(Path::new("/nowhere")), None);
    }
}
