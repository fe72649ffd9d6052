//! The flags that every command knows, and where the store is.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use super::output::{Color, note};
use super::parse;
use super::quick::Plain;
use crate::fault::{Context, Fault, Kind, Result};
use crate::ops::run::Upper;
use crate::store::{BoxName, Store};

/// How long a run waits for a lock, unless --wait says otherwise.
const RUN_PATIENCE: Duration = Duration::from_secs(60);

/// The common flags, as typed.
#[derive(Debug, Default, Args)]
pub(super) struct Common {
    /// Directory of the store [env: SANDBOX_BASE_DIR] [default: ~/.local/share/sandbox]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Common options")]
    base_dir: Option<PathBuf>,

    /// Box to work in [env: SANDBOX_BOX] [default: default]
    #[arg(short, long = "box", global = true, value_name = "BOX", help_heading = "Common options")]
    box_name: Option<String>,

    /// Print results and errors as JSON on stdout
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,

    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Common options")]
    pub quiet: bool,

    /// Say more about what is done
    #[arg(short, long, global = true, help_heading = "Common options")]
    pub verbose: bool,

    /// When to colour: auto, always, never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        help_heading = "Common options"
    )]
    pub color: Color,

    /// Empty the trash before leaving, instead of in the background
    #[arg(long, global = true, hide = true)]
    pub wait_trash: bool,

    #[command(flatten)]
    wait: Wait,
}

/// Patience with others who hold what we need.
#[derive(Debug, Default, Args)]
struct Wait {
    /// Wait while the store or box is busy: for ever, or at most T (10, 5m)
    #[arg(
        long,
        global = true,
        value_name = "T",
        num_args = 0..=1,
        require_equals = true,
        value_parser = parse::time,
        help_heading = "Common options"
    )]
    wait: Option<Option<Duration>>,
}

impl Common {
    /// Of a plain line; nothing if a value cannot be right.
    pub(super) fn plain(plain: &Plain) -> Option<Self> {
        let box_name = plain.box_name.as_ref().map(|name| name.to_str().map(str::to_owned));
        Some(Self {
            base_dir: plain.base_dir.clone().map(PathBuf::from),
            box_name: box_name.map_or(Some(None), |name| name.map(Some))?,
            ..Self::default()
        })
    }

    /// The store's directory, if the command line names it.
    pub(super) fn given_dir(&self) -> Option<&Path> {
        self.base_dir.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// The store's directory: the flag, the environment, or the user's own data directory; for root
    /// without `XDG_DATA_HOME` it is `/var/lib/sandbox`.
    ///
    /// # Errors
    /// A usage fault if nothing names a directory.
    pub(super) fn base_dir(&self) -> Result<PathBuf> {
        let path = self
            .given_dir()
            .map(Path::to_owned)
            .or_else(|| variable("SANDBOX_BASE_DIR"))
            .or_else(|| {
                let root = rustix::process::geteuid().is_root();
                default_dir(root, variable("XDG_DATA_HOME"), variable("HOME"))
            })
            .ok_or_else(|| Fault::usage("HOME is not set").hint("say where: --base-dir DIR"))?;
        std::path::absolute(&path).context("find the working directory for", path.display())
    }

    /// The box: the flag, the environment, or `default`.
    ///
    /// # Errors
    /// A usage fault for a name that cannot be one.
    pub(super) fn box_name(&self) -> Result<BoxName> {
        let from_caller = || env::var_os("SANDBOX_BOX").filter(|name| !name.is_empty());
        let name = match &self.box_name {
            Some(given) => given.clone(),
            // One that is no text is no box, and not as good as none.
            None => from_caller()
                .map_or_else(|| "default".to_owned(), |name| name.to_string_lossy().into_owned()),
        };
        BoxName::from_str(&name)
    }

    /// The box that a command names by a word of its own, or as for every command.
    ///
    /// # Errors
    /// A usage fault if it is named in both ways.
    pub(super) fn box_named(&self, word: Option<BoxName>) -> Result<BoxName> {
        match word {
            None => self.box_name(),
            Some(word) if self.box_name.is_some() => {
                Err(Fault::usage(format!("the box is named twice: {word}, and by --box")))
            }
            Some(word) => Ok(word),
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub(super) fn store(&self) -> Result<Store> {
        self.opened(|path| Store::open(path))
    }

    fn opened(&self, open: impl FnOnce(&Path) -> Result<Store>) -> Result<Store> {
        let path = self.base_dir()?;
        self.verbose(|| format!("store: {}", path.display()));
        let mut store = open(&path)?;
        if let Some(limit) = self.wait.wait {
            store.set_patience(limit.unwrap_or(Duration::MAX));
        }
        Ok(store)
    }

    /// Opens the store for a command on all of it, which has no use for a box: one that is named has to be there all the
    /// same, for its name may be a mistake.
    ///
    /// # Errors
    /// Those of [`Store::open`]; not found for a box that is not there.
    pub(super) fn store_of_all(&self) -> Result<Store> {
        let store = self.store()?;
        if self.box_name.is_some() {
            match store.open_box(&self.box_name()?) {
                Err(fault) if fault.kind == Kind::NotFound => return Err(fault),
                // Damage is for others to tell.
                _ => {}
            }
        }
        Ok(store)
    }

    /// Opens the store for a command whose work would be lost if a lock were not to be had at its end, and whose changes are
    /// to be in `upper`.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub(super) fn store_for_run(&self, upper: Upper) -> Result<Store> {
        let mut store = match upper {
            Upper::Disk => self.store()?,
            Upper::Tmpfs(_) => self.opened(|path| Store::open_for_memory(path))?,
        };
        if self.wait.wait.is_none() {
            store.set_patience(RUN_PATIENCE);
        }
        Ok(store)
    }

    /// Does `job`, and again as long as it answers "busy" and there is patience left (`--wait`). A job that
    /// answers "busy" must have done nothing.
    ///
    /// # Errors
    /// Those of the job.
    pub(super) fn patiently<T>(&self, job: impl FnMut() -> Result<T>) -> Result<T> {
        self.wait.patiently(job)
    }

    /// A line for people, unless they asked for quiet.
    pub(super) fn note(&self, line: &str) {
        if !self.quiet {
            note(line);
        }
    }

    /// A line for people who asked for more.
    pub(super) fn verbose(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            note(&line());
        }
    }
}

impl Wait {
    fn patiently<T>(&self, mut job: impl FnMut() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            match (job(), self.wait) {
                (Err(fault), Some(limit))
                    if fault.kind == Kind::Busy
                        && limit.is_none_or(|limit| start.elapsed() < limit) =>
                {
                    sleep(Duration::from_millis(50));
                }
                (Err(fault), None) if fault.kind == Kind::Busy && fault.hint.is_none() => {
                    return Err(fault.hint("the same again with --wait"));
                }
                (answer, _) => return answer,
            }
        }
    }
}

/// An environment variable that holds a path; empty counts as not set.
fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The base directory specification tells to ignore relative paths in its variables.
fn default_dir(root: bool, data: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    match data.filter(|path| path.is_absolute()) {
        Some(data) => Some(data.join("sandbox")),
        None if root => Some(PathBuf::from("/var/lib/sandbox")),
        None => home.map(|home| home.join(".local/share/sandbox")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_where_the_base_directory_specification_says() {
        let path = |text: &str| Some(PathBuf::from(text));
        let cases = [
            (false, path("/d"), path("/h"), path("/d/sandbox")),
            (false, path("rel"), path("/h"), path("/h/.local/share/sandbox")),
            (false, None, path("/h"), path("/h/.local/share/sandbox")),
            (false, None, None, None),
            (true, path("/d"), path("/root"), path("/d/sandbox")),
            (true, None, path("/root"), path("/var/lib/sandbox")),
        ];
        for (root, data, home, expected) in cases {
            assert_eq!(default_dir(root, data, home), expected);
        }
    }

    #[test]
    fn patience_ends() {
        let busy = || Fault::busy("store: in use");
        let wait = Wait { wait: Some(Some(Duration::from_millis(60))) };
        let mut times = 0;
        let answer: Result<()> = wait.patiently(|| {
            times += 1;
            Err(busy())
        });
        assert_eq!(answer.map_err(|fault| fault.kind), Err(Kind::Busy));
        assert!(times > 1);
        let answer: Result<()> = Wait { wait: None }.patiently(|| Err(busy()));
        assert_eq!(
            answer.map_err(|fault| fault.hint),
            Err(Some("the same again with --wait".to_owned()))
        );
        let mut left = 2;
        let answer = Wait { wait: Some(None) }.patiently(|| {
            left -= 1;
            if left == 0 { Ok(7) } else { Err(busy()) }
        });
        assert_eq!(answer, Ok(7));
    }
}
