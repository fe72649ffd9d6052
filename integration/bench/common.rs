//! What both benchmarks need: a scratch folder, the program under test, timing, order statistics.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The result of a benchmark; a failure ends it, since a wrong figure is worse than none.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// An environment variable of the benchmark that has to be set; `integration/bench.sh` sets them all.
pub(crate) fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| format!("{name} is not set: run `make bench`").into())
}

/// A number from the environment, or `default`.
pub(crate) fn number(name: &str, default: usize) -> Result<usize> {
    std::env::var(name).map_or(Ok(default), |text| Ok(text.parse()?))
}

/// The program under test with a store of its own.
#[derive(Debug)]
pub(crate) struct Sandbox {
    program: PathBuf,
    /// Where its store is.
    pub(crate) base_dir: PathBuf,
}

impl Sandbox {
    /// The program that `SANDBOX_BIN` names, with a fresh store in `folder`; nothing when it is not set.
    pub(crate) fn new(folder: &Path) -> Option<Self> {
        let program = std::env::var_os("SANDBOX_BIN").filter(|path| !path.is_empty())?;
        Some(Self { program: program.into(), base_dir: folder.join("store") })
    }

    /// `sandbox` in a box, without standard input and output.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.env("SANDBOX_BASE_DIR", &self.base_dir).env_remove("SANDBOX_BOX").args(words);
        command.env("SANDBOX_BUDGET", "off");
        quiet(&mut command);
        command
    }

    /// Runs `sandbox` with words that are split at blanks.
    pub(crate) fn call(&self, line: &str) -> Result<String> {
        output(&mut self.command(line.split_whitespace()))
    }

    /// A box filled from the test tree.
    pub(crate) fn init(&self, name: &str, ids: &str) -> Result<()> {
        let tree = variable("SANDBOX_TEST_TREE")?;
        self.call(&format!("init {name} --ids {ids} --from tar:{tree}")).map(drop)
    }
}

/// Takes input and output away from a command.
pub(crate) fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// What a command that must succeed prints.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    if status.success() {
        return Ok(String::from_utf8(stdout)?);
    }
    Err(format!("{command:?}: {status}: {}", String::from_utf8_lossy(&stderr).trim()).into())
}

/// The wall time of a whole process, from before it is spawned until it is reaped. `Command` uses
/// posix_spawn, so that the size of this program does not count.
pub(crate) fn time(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?}: {status}").into()) }
}

/// Times of one thing that was measured many times.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort();
    }

    /// The lower quartile: what it takes when nothing disturbs.
    pub(crate) fn quartile(&self) -> Duration {
        self.0[self.0.len() / 4]
    }

    /// The median.
    pub(crate) fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    /// A row of a Markdown table: name, lower quartile and median in milliseconds, both ratios to `peer`.
    pub(crate) fn row(&self, name: &str, peer: Option<&Self>) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let ratio = |own: Duration, peer: Duration| own.as_secs_f64() / peer.as_secs_f64();
        let ratios = peer.map_or_else(String::new, |peer| {
            format!(
                "{:.2}, {:.2}",
                ratio(self.quartile(), peer.quartile()),
                ratio(self.median(), peer.median())
            )
        });
        format!("| {name} | {:.2} | {:.2} | {ratios} |", ms(self.quartile()), ms(self.median()))
    }
}

/// A folder that goes away with this value. In user namespaces its files may belong to sub-ids, so it is
/// removed by a child that has them.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder in `SANDBOX_BENCH_DIR`, else in the home directory: it must be a real file system.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let parent = variable("SANDBOX_BENCH_DIR").or_else(|_| variable("HOME"))?;
        let path = Path::new(&parent).join(format!("sandbox-bench-{name}.{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for prefix in [&["unshare", "--map-root-user", "--map-auto"][..], &["env"]] {
            let mut command = Command::new(prefix[0]);
            command.args(&prefix[1..]).args(["rm", "-rf"]).arg(&self.0);
            if quiet(&mut command).status().is_ok_and(|status| status.success()) {
                return;
            }
        }
    }
}

/// Whether a program is on the path.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
