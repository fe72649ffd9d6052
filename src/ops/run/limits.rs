//! `--memory`, `--pids`, `--cpus`, `--ulimit`: what enforces them on this host, and what nothing does.

use rustix::fs::fstatvfs;
use rustix::process::{Resource, Rlimit};

use super::resolve::Base;
use super::{RunOptions, Upper};
use crate::fault::{Context, Fault, Result};
use crate::ids::{IdMap, is_no_boundary};
use crate::isolate::cgroup::{self, Place, Wanted};
use crate::isolate::limits;
use crate::isolate::lost::Lost;
use crate::isolate::profile::Profile;
use crate::isolate::ulimit::Ulimit;
use crate::run::disk;
use crate::run::outcome::{Ended, Reason};
use crate::store::{Run, RunId, Store};

pub use crate::isolate::cgroup::live::{Cgroup, Events};

/// Limits as they were typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, processes and processor time of all processes together.
    pub wanted: Wanted,
    /// Limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// Bytes that it may write to stdout and stderr.
    pub output: Option<u64>,
    /// Bytes that its changes may take on disk.
    pub disk: Option<u64>,
}

/// What will enforce them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    wanted: Wanted,
    place: Option<Place>,
    /// Limits of each process, those of the profile included.
    pub(super) rlimits: Vec<(Resource, Rlimit)>,
    /// What nothing enforces in full.
    pub(super) lost: Vec<Lost>,
}

/// Decides. Costs nothing where nothing is asked for.
///
/// # Errors
/// Usage for a limit that is above what the machine, or the caller, has.
pub(super) fn plan(
    store: &Store,
    options: &RunOptions,
    profile: &Profile,
    base: &Base,
) -> Result<Plan> {
    if let Some(bytes) = options.limits.disk {
        check_disk(store, options, bytes)?;
    }
    if let Upper::Tmpfs(Some(bytes)) = options.upper {
        check_memory(bytes)?;
    }
    let wanted = options.limits.wanted;
    let mut plan = Plan { wanted, rlimits: limits::plan(&profile.limits), ..Plan::default() };
    if !wanted.is_empty() {
        possible(&wanted)?;
        (plan.place, plan.lost) = cgroup::find(&wanted);
        for lost in &mut plan.lost {
            stand_in(lost, &wanted, &base.id_map, &mut plan.rlimits);
        }
    }
    for ulimit in &options.limits.ulimits {
        set(&mut plan.rlimits, ulimit.plan()?);
    }
    Ok(plan)
}

fn check_disk(store: &Store, options: &RunOptions, bytes: u64) -> Result<()> {
    if options.upper != Upper::Disk {
        return Err(Fault::usage("--disk: changes are in memory: nothing of them is on disk")
            .hint("--upper tmpfs:SIZE is their limit"));
    }
    let system =
        fstatvfs(store.dir()).context("look at the file system of", store.path().display())?;
    let size = system.f_blocks.saturating_mul(system.f_frsize);
    if bytes > size {
        return Err(Fault::usage(format!("--disk: the file system of the store has {size} bytes")));
    }
    Ok(())
}

fn check_memory(bytes: u64) -> Result<()> {
    let system = rustix::system::sysinfo();
    let pages = system.totalram.saturating_add(system.totalswap);
    let most = pages.saturating_mul(u64::from(system.mem_unit));
    if bytes > most {
        return Err(Fault::usage(format!(
            "--upper: this machine has {most} bytes of memory and swap"
        )));
    }
    Ok(())
}

/// How it ended after all: a command that was faster than the watcher has not used more than it may either, if what it left
/// may be kept. `lent` is what it had before it began.
pub(super) fn last(
    run: Option<&Run>,
    base: &Base,
    options: &RunOptions,
    lent: u64,
    (ended, reason): (Ended, Option<Reason>),
) -> Result<(Ended, Option<Reason>)> {
    if let (Some(run), Some(limit)) = (run, options.limits.disk)
        && (ended.success() || options.keep_on_failure && reason.is_none())
        && disk::size_of(run.dir(), &base.id_map)? > limit.saturating_add(lent)
    {
        return Ok((Ended::Signal(9), Some(Reason::Disk)));
    }
    Ok((ended, reason))
}

fn set(all: &mut Vec<(Resource, Rlimit)>, one: (Resource, Rlimit)) {
    all.retain(|(resource, _)| *resource != one.0);
    all.push(one);
}

/// A limit above what there is would say nothing, and is most likely a mistake of units.
fn possible(wanted: &Wanted) -> Result<()> {
    let refuse =
        |flag: &str, has: String| Err(Fault::usage(format!("{flag}: this machine has {has}")));
    let system = rustix::system::sysinfo();
    let memory = system.totalram.saturating_mul(u64::from(system.mem_unit));
    if wanted.memory.is_some_and(|bytes| bytes > memory) {
        return refuse("--memory", format!("{memory} bytes of memory"));
    }
    let processors =
        std::thread::available_parallelism().map_or(u64::MAX, |count| count.get() as u64);
    if wanted.cpu_quota.is_some_and(|quota| quota > processors.saturating_mul(100_000)) {
        return refuse("--cpus", format!("{processors} processors for this process"));
    }
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max");
    let most: Option<u64> = most.ok().and_then(|text| text.trim().parse().ok());
    if let Some(most) = most.filter(|most| wanted.pids.is_some_and(|pids| pids > *most)) {
        return refuse("--pids", format!("room for {most} processes"));
    }
    Ok(())
}

/// What holds instead of a limit that has no cgroup: less than was asked for, and the reason says so.
fn stand_in(lost: &mut Lost, wanted: &Wanted, map: &IdMap, rlimits: &mut Vec<(Resource, Rlimit)>) {
    let both = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    let instead = match lost.protection {
        "memory" => {
            // RLIMIT_DATA counts what is private and writable (since Linux 4.7); RLIMIT_AS would count
            // what programs merely reserve, and break those that reserve much.
            set(rlimits, (Resource::Data, both(wanted.memory.unwrap_or(u64::MAX))));
            "each process is limited to that much data (RLIMIT_DATA), not all together"
        }
        "pids" if is_no_boundary(map) => "the machine's root is not limited in processes",
        "pids" if !counts_in_namespace() => {
            "before Linux 5.14 no other limit counts this run alone"
        }
        "pids" => {
            // PID 1 is ours, not the command's.
            let most = wanted.pids.unwrap_or(u64::MAX).saturating_add(1);
            set(rlimits, (Resource::Nproc, both(most)));
            "each user inside is limited to that many (RLIMIT_NPROC), not all together"
        }
        _ => "processor time is not limited",
    };
    lost.reason = format!("{}; {instead}", lost.reason);
}

/// Whether RLIMIT_NPROC counts the processes of a user namespace, and not those of the whole machine
/// (Linux 5.14).
fn counts_in_namespace() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (5, 14)
}

impl Plan {
    /// Makes the cgroup, if one enforces anything.
    ///
    /// # Errors
    /// As [`Cgroup::make`]: what was found to be possible is not done with less.
    pub(super) fn cgroup(&self, run: RunId) -> Result<Option<Cgroup>> {
        let make = |place: &Place| Cgroup::make(place, &run.to_string(), &self.wanted);
        self.place.as_ref().map(make).transpose()
    }

    /// Lines for `--dry-run`.
    pub(super) fn describe(&self) -> Vec<String> {
        let of_cgroup = [
            ("memory", "memory", self.wanted.memory),
            ("pids", "processes", self.wanted.pids),
            ("cpu", "microseconds of processor time in 100 ms", self.wanted.cpu_quota),
        ];
        let held = |name| self.place.as_ref().is_some_and(|place| place.has(name));
        let cgroup = of_cgroup
            .into_iter()
            .filter(|(name, _, _)| held(name))
            .filter_map(|(_, what, value)| value.map(|value| format!("cgroup: {what}: {value}")));
        let show =
            |value: Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
        let rlimits = self.rlimits.iter().map(|(resource, limit)| {
            let name = format!("{resource:?}").to_lowercase();
            format!("each process: {name}: {}:{}", show(limit.current), show(limit.maximum))
        });
        cgroup.chain(rlimits).collect()
    }
}
