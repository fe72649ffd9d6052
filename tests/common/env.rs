//! A place of its own for one test: home, store, and a check at the end that nothing is left over.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Cmd, ids, left, tree};

/// The place. When it is dropped, what [`left`] looks for must not be there.
pub(crate) struct Env {
    dir: PathBuf,
    base: PathBuf,
    /// Whether the end is checked.
    checked: bool,
}

impl Env {
    /// A place without a store.
    pub(crate) fn empty() -> Self {
        Self::named("store")
    }

    /// The same with the store at another name.
    pub(crate) fn named(store: &str) -> Self {
        let dir = folder();
        fs::create_dir(dir.join("home")).expect("home");
        let base = dir.join(store);
        Self { dir, base, checked: true }
    }

    /// A place whose default box holds the tiny tree.
    pub(crate) fn filled() -> Self {
        let env = Self::empty();
        env.fill();
        env
    }

    pub(crate) fn fill(&self) {
        drop(self.init(&["--from", &tree::tiny_source()]).run().ok());
    }

    /// A place in a directory that is there, which tests share and nobody checks or removes.
    pub(crate) fn within(dir: &Path) -> Self {
        fs::create_dir(dir.join("home")).expect("home");
        Self { dir: dir.to_owned(), base: dir.join("store"), checked: false }
    }

    /// The directory of this test.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// A path beneath the directory of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file beneath the directory of this test, and gives its path as text.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(&path, content).expect("file");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Makes a directory beneath the directory of this test, and gives its path as text. Everybody may write
    /// to it: in `range` mode inside root is a stranger to the caller's files.
    pub(crate) fn folder(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("mode");
        path.to_str().expect("UTF-8").to_owned()
    }

    /// Another program in this environment.
    pub(crate) fn program(&self, name: &str) -> Cmd {
        Cmd::new(name, &self.dir.join("home"))
    }

    /// `sandbox` without any flag.
    pub(crate) fn bare(&self) -> Cmd {
        Cmd::new(binary(), &self.dir.join("home"))
    }

    /// `sandbox` with the store of this test. The store is a word of the command line, so that our
    /// processes can be told from those of others.
    pub(crate) fn sandbox(&self, words: &[&str]) -> Cmd {
        self.bare().arg("--base-dir").arg(&self.base).args(words)
    }

    /// `sandbox init` in the id mode of these tests.
    pub(crate) fn init(&self, words: &[&str]) -> Cmd {
        self.sandbox(&["init", "--ids", ids().name()]).args(words)
    }

    /// `sandbox run FLAGS -- sh -c LINE`.
    pub(crate) fn line(&self, flags: &[&str], line: &str) -> Cmd {
        self.sandbox(&["run"]).args(flags).args(["--", "sh", "-c", line])
    }

    /// `sandbox WORDS --json`, which has to succeed.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.sandbox(words).arg("--json").run().ok().json()
    }

    /// The names of the snapshots.
    #[track_caller]
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let list = self.json(&["list"]);
        let all = list["snapshots"].as_array().expect("snapshots");
        all.iter().map(|one| one["name"].as_str().expect("name").to_owned()).collect()
    }

    /// The entries of a directory of the store, sorted; none if it is not there.
    pub(crate) fn entries(&self, folder: &str) -> Vec<String> {
        left::names(&self.base.join(folder))
    }

    /// What a commit must change and nothing else may: layers, boxes with their names, kept runs.
    pub(crate) fn state(&self) -> Vec<String> {
        let mut all = Vec::new();
        for folder in ["layers", "runs", "boxes"] {
            all.extend(self.entries(folder).iter().map(|name| format!("{folder}/{name}")));
        }
        for name in self.entries("boxes") {
            let head = fs::read_to_string(self.base.join(format!("boxes/{name}/head")));
            all.push(format!("{name}: {}", head.unwrap_or_default()));
            let refs = self.entries(&format!("boxes/{name}/refs"));
            all.extend(refs.iter().map(|one| format!("boxes/{name}/refs/{one}")));
        }
        all
    }

    /// The directory outside that holds the files of the snapshot's own layer.
    #[track_caller]
    pub(crate) fn layer(&self, snapshot: &str) -> PathBuf {
        let shown = self.json(&["show", snapshot]);
        self.base.join("layers").join(shown["layer"].as_str().expect("layer")).join("fs")
    }

    /// Expects exactly these runs to be kept, and forgets them.
    #[track_caller]
    pub(crate) fn drop_kept(&self, kept: &[&str]) {
        assert_eq!(self.entries("runs"), kept, "kept runs");
        for run in kept {
            tree::remove(&self.base.join("runs").join(run));
        }
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        if self.checked && !std::thread::panicking() {
            left::nothing(&self.dir, &self.base);
        }
        if self.checked {
            tree::remove(&self.dir);
        }
    }
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    let given = std::env::var_os("SANDBOX_BIN").filter(|path| !path.is_empty());
    given.map_or_else(|| env!("CARGO_BIN_EXE_sandbox").into(), PathBuf::from)
}

/// A new directory, as private as a home is. (Its path is canonical, as those in messages are.)
pub(crate) fn folder() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("e2e-").tempdir().expect("a directory").keep();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).expect("mode");
    dir.canonicalize().expect("canonical")
}
