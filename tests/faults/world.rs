//! Where a case works: a tree of a few programs of this machine, and a store of its own filled from it.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::watch;

/// What the payloads of the cases use.
const PROGRAMS: [&str; 21] = [
    "sh", "bash", "sleep", "cat", "dd", "stty", "tty", "mkdir", "chmod", "chown", "touch", "ls",
    "rm", "id", "setsid", "true", "seq", "head", "readlink", "mv", "perl",
];

/// The id mode under test.
pub(crate) fn ids() -> String {
    env::var("SANDBOX_TEST_IDS").unwrap_or_else(|_| {
        let root = rustix::process::geteuid().is_root();
        if root { "range".to_owned() } else { "single".to_owned() }
    })
}

/// How many times as long as usual loops are.
pub(crate) fn soak() -> u64 {
    env::var("SANDBOX_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    match env::var_os("SANDBOX_BIN") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_sandbox").into(),
    }
}

pub(crate) fn temporary() -> TempDir {
    tempfile::Builder::new().prefix("faults-").tempdir().expect("temporary directory")
}

/// The tree, made once.
pub(crate) fn tree() -> &'static Path {
    TREE.get_or_init(|| {
        let path = temporary().keep().join("tree");
        grow(&path);
        path
    })
}

static TREE: OnceLock<PathBuf> = OnceLock::new();

/// Removes the tree again.
pub(crate) fn fell() {
    if let Some(dir) = TREE.get().and_then(|tree| tree.parent()) {
        fs::remove_dir_all(dir).expect("remove the tree");
    }
}

fn grow(tree: &Path) {
    for dir in ["bin", "etc", "tmp", "dev", "proc", "sys", "run", "root", "var/tmp", "usr/bin"] {
        fs::create_dir_all(tree.join(dir)).expect("create directory");
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("passwd");
    fs::write(tree.join("etc/group"), "root:x:0:\n").expect("group");
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let found = env::split_paths("/bin:/usr/bin").map(|dir| dir.join(name));
        let path = found.into_iter().find(|path| path.exists()).expect(name);
        fs::copy(&path, tree.join("bin").join(name)).expect("copy program");
        let said = Command::new("ldd").arg(&path).output().expect("ldd");
        let said = String::from_utf8(said.stdout).expect("text");
        let words = said.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(words.map(str::to_owned));
    }
    for path in libraries {
        let target = tree.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().expect("parent")).expect("create directory");
        fs::copy(&path, target).expect("copy library");
    }
}

/// A temporary directory that also goes when ids of a range own what lies in it.
pub(crate) struct Scratch(Option<TempDir>);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(Some(temporary()))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().expect("present").path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else { return };
        if !rustix::process::geteuid().is_root() {
            let mut command = Command::new("unshare");
            command.arg("--map-root-user");
            if ids() == "subuid" {
                command.arg("--map-auto");
            }
            command.args(["rm", "-rf"]).arg(dir.path()).status().ok();
        }
        // Gone already, or root's to remove.
        dir.close().ok();
    }
}

/// A store with a box.
pub(crate) struct Place {
    dir: Scratch,
    pub(crate) base: PathBuf,
    mounts: Vec<String>,
}

/// What a command said, and its exit code (128+n for a signal).
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let status = output.status;
        Self {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self.decent()
    }

    /// Asserts that a failure was told as we tell failures.
    #[track_caller]
    pub(crate) fn decent(self) -> Self {
        for bad in ["panicked", "RUST_BACKTRACE", "os error"] {
            assert!(!self.err.contains(bad), "{self:?}");
        }
        self
    }

    /// Asserts a failure of ours: the code, one line and perhaps a hint.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, part: &str) -> Self {
        let said = self.code(code);
        let lines: Vec<_> = said.err.lines().collect();
        let ours = lines.first().is_some_and(|line| line.starts_with("sandbox: "));
        let rest = lines.iter().skip(1).all(|line| line.starts_with("hint: "));
        assert!(ours && rest && lines.len() <= 2, "{said:?}");
        assert!(said.err.contains(part), "no {part:?} in {said:?}");
        said
    }
}

impl Place {
    /// A store whose box `default` is the tree.
    pub(crate) fn new() -> Self {
        let place = Self::empty();
        place.init(&[]).code(0);
        place
    }

    /// No store yet.
    pub(crate) fn empty() -> Self {
        let dir = Scratch::new();
        let base = dir.path().join("store");
        fs::create_dir(dir.path().join("work")).expect("create directory");
        Self { dir, base, mounts: watch::mounts() }
    }

    /// Takes the mounts of now for those that must be there at the end.
    pub(crate) fn look_again(&mut self) {
        self.mounts = watch::mounts();
    }

    /// A directory beside the store.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// `sandbox` with these words, standard input empty, signals as they are by default.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(program()).args(words);
        command.env("SANDBOX_BASE_DIR", &self.base).env_remove("SANDBOX_BOX");
        // How full the disk of this machine is must not decide a test.
        command.env("SANDBOX_BUDGET", "off");
        command.stdin(Stdio::null()).current_dir(self.work());
        command
    }

    pub(crate) fn said(&self, words: &[&str]) -> Said {
        self.command(words).output().expect("start").into()
    }

    pub(crate) fn init(&self, words: &[&str]) -> Said {
        let tree = tree().to_str().expect("text");
        let ids = ids();
        self.said(&[&["init", "--ids", &ids, "--from", tree], words].concat())
    }

    /// `run` of a shell line.
    pub(crate) fn line(&self, flags: &[&str], line: &str) -> Said {
        self.said(&[&["run"], flags, &["--", "sh", "-c", line]].concat())
    }

    /// The names of all snapshots with their layers.
    pub(crate) fn snapshots(&self) -> Vec<(String, String)> {
        let said = self.said(&["list", "--json"]).code(0);
        let list: Value = serde_json::from_str(&said.out).expect("json");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let snapshots = list["snapshots"].as_array().expect("snapshots").iter();
        snapshots.map(|one| (text(&one["name"]), text(&one["layer"]))).collect()
    }

    #[track_caller]
    pub(crate) fn no_mount_left(&self) {
        assert_eq!(watch::mounts(), self.mounts, "a mount is left");
    }

    /// Collects garbage and asserts that nothing is left over: no run, no trash, no unnamed layer, nothing
    /// half-made, no lock, no mount, and that every snapshot opens.
    #[track_caller]
    pub(crate) fn pristine(&self) {
        self.said(&["gc", "--all"]).code(0);
        self.no_mount_left();
        assert_eq!(watch::held(&self.base), Vec::<PathBuf>::new(), "a lock is left");
        assert_eq!(watch::names(&self.base.join("runs")), Vec::<String>::new());
        assert_eq!(watch::names(&self.base.join("trash")), Vec::<String>::new());
        let mut needed = BTreeSet::new();
        for (name, _) in self.snapshots() {
            let said = self.said(&["show", &name, "--json"]).code(0);
            let shown: Value = serde_json::from_str(&said.out).expect("json");
            let chain = shown["chain"].as_array().expect("chain").iter();
            needed.extend(chain.map(|id| id.as_str().expect("id").to_owned()));
            self.said(&["run", "--from", &name, "--", "true"]).code(0);
        }
        let layers: BTreeSet<_> = watch::names(&self.base.join("layers")).into_iter().collect();
        assert_eq!(layers, needed, "layers that nobody needs, or that are missing");
        let unfinished = watch::unfinished(&self.base.join("boxes"));
        assert_eq!(unfinished, Vec::<PathBuf>::new());
    }
}
