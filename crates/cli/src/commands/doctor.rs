//! `tokenmill doctor`: what this machine can do, and what is in the way.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use anyhow::Result;
use kernels::cpu::Isa;

use crate::args::DoctorArgs;
use crate::say::say;
use crate::size::ByteSize;

/// Prints a line per finding; nothing is changed.
pub fn run(args: &DoctorArgs) -> Result<()> {
    let findings = [
        ("processor", processor()),
        ("kernels", kernels()),
        ("gpu", gpu()),
        ("memory", memory()),
        ("cache", cache()?),
        ("pip", pip()),
        ("port", port(args.port)),
    ];
    for (what, finding) in findings {
        say(format_args!("{what:<10} {finding}"));
    }
    Ok(())
}

fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(std::env::consts::ARCH);
    format!("{}, {cores} cores", name.trim_start_matches([' ', '\t', ':']))
}

fn kernels() -> String {
    let all: Vec<String> = Isa::available().iter().map(ToString::to_string).collect();
    format!("{} (here: {})", Isa::detect(), all.join(", "))
}

fn gpu() -> String {
    kernels::cuda::Cuda::new(0).map_or_else(|why| why.to_string(), |cuda| cuda.describe())
}

fn memory() -> String {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    match (kib("MemTotal"), kib("MemAvailable")) {
        (Some(total), Some(available)) => {
            format!("{} free of {}", ByteSize(available << 10), ByteSize(total << 10))
        }
        _ => "unknown on this system".to_owned(),
    }
}

fn cache() -> Result<String> {
    let options = hub::HubOptions::from_env()?;
    let models = hub::list(&options)?;
    let bytes = models.iter().map(|model| model.bytes).sum();
    Ok(format!("{}: {} models, {}", options.cache_dir.display(), models.len(), ByteSize(bytes)))
}

fn pip() -> String {
    let asked = Command::new("python3").args(["-m", "pip", "--version"]).stderr(Stdio::null()).output();
    match asked {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "none; it is only needed where the model hub cannot be reached".to_owned(),
    }
}

fn port(port: u16) -> String {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => format!("{port} is free"),
        Err(error) => format!("{port} cannot be used: {error}; choose another with --port"),
    }
}
