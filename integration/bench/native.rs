//! The tree with a compiler, in a box and beside it as a plain directory: what is done inside against the same by chroot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::common::{Result, Sandbox, output, quiet, variable};

/// What enters the directory: a user and a mount namespace, with the caller's ranges. The devices are the machine's.
const ENTER: &str =
    "mount --rbind /dev \"$0/dev\" && mount --rbind /proc \"$0/proc\" && exec chroot \"$0\" \"$@\"";

/// The same for all, so that none has a longer path to search.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The tree as a plain directory on the same disk.
#[derive(Debug)]
pub(crate) struct Native {
    /// Where it lies.
    pub(crate) tree: PathBuf,
}

impl Native {
    /// Unpacks it, with true owners.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let tree = folder.join("native");
        fs::create_dir(&tree)?;
        let mut tar = Command::new("unshare");
        tar.args(["--map-root-user", "--map-auto", "tar", "--exclude=./dev/*", "-xpf"]);
        output(tar.arg(tools()?).arg("-C").arg(&tree))?;
        Ok(Self { tree })
    }

    /// A command in it, without standard input and output.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--map-auto", "--mount", "sh", "-c", ENTER]);
        command.arg(&self.tree).args(words).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
        quiet(&mut command);
        command
    }
}

/// The archive of the tree; `integration/bench.sh` has it made.
pub(crate) fn tools() -> Result<String> {
    variable("SANDBOX_BENCH_TOOLS")
}

/// A box of the tree in which a shell line has been run with a folder of the host at /in; the result is its snapshot `ready`.
pub(crate) fn prepare(sandbox: &Sandbox, ids: &str, folder: &Path, line: &str) -> Result<()> {
    sandbox.call(&format!("init {ids} --ids {ids} --from tar:{}", tools()?))?;
    let bind = format!("{}:/in:ro", folder.display());
    let words = ["--box", ids, "run", "--commit", "ready", "--bind", &bind, "--"];
    output(sandbox.command(words).args(["sh", "-euc", line])).map(drop)
}

/// A command on that snapshot, whose changes are thrown away.
pub(crate) fn inside(sandbox: &Sandbox, ids: &str, words: &[&str]) -> Command {
    let mut command = sandbox.command(["--box", ids, "run", "--from", "ready", "--"]);
    command.args(words);
    command
}

/// Runs a command that must succeed: the processor time of it and of all that it waited for. (The remover in the background is nobody's
/// child.)
pub(crate) fn processor_time(command: &mut Command) -> Result<Duration> {
    let before = of_children()?;
    let status = command.status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(of_children()? - before)
}

/// User and system time of all children that were waited for (proc_pid_stat(5)).
fn of_children() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, is the second field.
    let (_, rest) = stat.rsplit_once(')').ok_or("/proc/self/stat is not as it was")?;
    let ticks: Vec<f64> = rest.split_whitespace().skip(13).take(2).flat_map(str::parse).collect();
    let sum: f64 = ticks.iter().sum();
    Ok(Duration::from_secs_f64(sum / rustix::param::clock_ticks_per_second() as f64))
}
