//! The flags of `run` and `shell` that limit what a command may use.

use clap::Args;

use super::parse;
use crate::fault::{Fault, Result};
use crate::isolate::cgroup::Wanted;
use crate::isolate::ulimit::{self, Ulimit};
use crate::ops::run::limits::Limits;

/// Limits.
#[derive(Debug, Default, Args)]
pub(super) struct LimitFlags {
    /// Limit the memory of all processes together: 512M, 2G
    #[arg(long, value_name = "SIZE", value_parser = memory, help_heading = "Limits and protection")]
    memory: Option<u64>,

    /// Limit the number of processes and threads
    #[arg(long, value_name = "N", value_parser = pids, help_heading = "Limits and protection")]
    pids: Option<u64>,

    /// Limit the processor time: 2, 0.5
    #[arg(long, value_name = "C", value_parser = cpus, help_heading = "Limits and protection")]
    cpus: Option<u64>,

    /// Limit each process, as ulimit does: nofile=1024:4096, core=0, cpu=60
    #[arg(
        long,
        value_name = "NAME=SOFT[:HARD]",
        value_parser = ulimit::parse,
        help_heading = "Limits and protection"
    )]
    ulimit: Vec<Ulimit>,

    /// End the command when it writes more to stdout and stderr
    #[arg(long, value_name = "SIZE", value_parser = parse::size, help_heading = "Limits and protection")]
    output_limit: Option<u64>,

    /// End the command when its changes take more on disk
    #[arg(long, value_name = "SIZE", value_parser = parse::size, help_heading = "Limits and protection")]
    disk: Option<u64>,
}

impl LimitFlags {
    /// The limits.
    pub(super) fn limits(self) -> Limits {
        let wanted = Wanted { memory: self.memory, pids: self.pids, cpu_quota: self.cpus };
        Limits { wanted, ulimits: self.ulimit, output: self.output_limit, disk: self.disk }
    }
}

/// The least memory that a shell starts with, bytes.
const LEAST_MEMORY: u64 = 1 << 20;

fn memory(text: &str) -> Result<u64> {
    match parse::size(text)? {
        ..LEAST_MEMORY => Err(Fault::usage("less than 1M: no program starts with that")),
        bytes => Ok(bytes),
    }
}

fn pids(text: &str) -> Result<u64> {
    match text.parse() {
        Ok(0) => Err(Fault::usage("must be more than 0: the command itself is one")),
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(Fault::usage("not a number of processes: write 64")),
    }
}

/// Processors as microseconds for each 100 ms; the kernel takes no less than 1000.
fn cpus(text: &str) -> Result<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|_| digits);
    let Some(number) = number else {
        return Err(Fault::usage("not a number of processors: write 2 or 0.5"));
    };
    match (number * 100_000.0).round() as u64 {
        0..1000 => Err(Fault::usage("must be at least 0.01: leave it out for no limit")),
        quota => Ok(quota),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_their_units() {
        assert_eq!(memory("64M").ok(), Some(64 << 20));
        assert_eq!(pids("64").ok(), Some(64));
        assert_eq!(cpus("1.5").ok(), Some(150_000));
        assert_eq!(cpus("0.01").ok(), Some(1000));
        for bad in ["", "0", "1.5G", "1.5x", "64m2", "-1", "1023K", "M", "99999999999T", "1 G"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "-1", "+1", "1.5", "1k", "99999999999999999999"] {
            assert!(pids(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "0.001", "-1", "nan", "inf", "1e3", "1,5", "2 ", "200m", "."] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }
}
