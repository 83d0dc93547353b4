//! Where and when something was measured, and with which program: what makes a figure worth keeping.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The machine that the load generator runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    /// Those of its instruction sets that decide how fast matrices multiply, by the system's names.
    pub flags: Vec<String>,
    pub os: String,
}

const FLAGS: [&str; 19] = [
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
];

/// Processes that ran or wanted to, averaged over 1, 5 and 15 minutes.
pub type LoadAverage = [f64; 3];

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(std::env::consts::ARCH);
        let flags = info.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
        let has = |flag: &&str| flags.is_some_and(|flags| flags.split_whitespace().any(|word| word == *flag));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: name.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            flags: FLAGS.into_iter().filter(has).map(str::to_owned).collect(),
            os: format!("{} {}", std::env::consts::OS, kernel.trim()).trim_end().to_owned(),
        }
    }

    /// How busy it is now; `None` where the system does not say.
    pub fn load_average() -> Option<LoadAverage> {
        let text = std::fs::read_to_string("/proc/loadavg").ok()?;
        let mut numbers = text.split(' ').map_while(|word| word.parse().ok());
        Some([numbers.next()?, numbers.next()?, numbers.next()?])
    }
}

/// The program that measured, and for the engine inside it, that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    pub version: String,
    /// The newest commit when the program was built, in the repository where it lies, with `-dirty` if files differ from
    /// the one that is checked out; `None` for a program outside of its repository.
    pub commit: Option<String>,
    /// When the program was written to disk.
    pub built: Option<String>,
    /// Without the values of keys.
    pub command: Vec<String>,
}

impl Program {
    /// The one that runs.
    pub fn this(version: &str) -> Self {
        let path = std::env::current_exe().ok();
        let modified = path.as_deref().and_then(|path| path.metadata().ok()?.modified().ok());
        Self {
            version: version.to_owned(),
            commit: path.as_deref().and_then(Path::parent).and_then(|folder| commit(folder, modified?)),
            built: modified.map(|time| Date::at(time).to_string()),
            command: without_keys(std::env::args()),
        }
    }
}

/// Reports are shown to others.
fn without_keys(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_key = false;
    let shown = |arg: String| {
        let hidden = std::mem::replace(&mut is_key, arg == "--api-key");
        match arg.split_once('=') {
            _ if hidden => "...".to_owned(),
            Some(("--api-key", _)) => "--api-key=...".to_owned(),
            _ => arg,
        }
    };
    args.map(shown).collect()
}

fn commit(folder: &Path, built: SystemTime) -> Option<String> {
    let before = format!("--before={}", Date::at(built));
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["log", "-1", "--format=%h", "--abbrev=12", &before])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// A second in UTC; shown as `2026-11-21T08:20:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(u64);

impl Date {
    pub fn now() -> Self {
        Self::at(SystemTime::now())
    }

    fn at(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl std::fmt::Display for Date {
    /// Years that begin in March have their leap day at the end, and 400 of them are 146,097 days.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (second, days) = (self.0 % 86_400, self.0 / 86_400 + 719_468);
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(out, "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", year + era * 400, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_795_249_200, "2026-11-21T08:20:00Z"),
        ] {
            assert_eq!(Date(seconds).to_string(), date);
        }
    }

    #[test]
    fn keys_are_not_kept() {
        let args = "bench --api-key secret --seed 1 --api-key=secret".split(' ').map(str::to_owned);
        assert_eq!(without_keys(args).join(" "), "bench --api-key ... --seed 1 --api-key=...");
    }

    #[test]
    fn this_machine_has_a_name_and_cores() {
        let machine = Machine::here();
        assert!(!machine.cpu.is_empty() && machine.cores > 0);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(machine.flags.iter().any(|flag| flag == "avx2"), is_x86_feature_detected!("avx2"));
    }
}
