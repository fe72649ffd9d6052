//! The host that is to be got at: a store with one box, a canary beside it, and the box's hostile tree.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::common::{Ids, env, ids};

/// What nobody inside may see or change: files outside of everything that a run is given.
const CANARY: &str = "untouched";

/// The host.
pub(crate) struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// A host whose box is filled with a tree that `plant` has worked on.
    pub(crate) fn with(plant: impl FnOnce(&Path)) -> Self {
        let host = Self::without_box(plant);
        let tree = host.path("tree");
        let made = host.init(&["--from", tree.to_str().unwrap()]).output().unwrap();
        assert!(made.status.success(), "init: {}", text(&made.stderr));
        host
    }

    /// A host with a plain tree.
    pub(crate) fn plain() -> Self {
        Self::with(|_| ())
    }

    /// A host with the tree, but no box yet.
    pub(crate) fn without_box(plant: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("escape-").tempdir().unwrap();
        open_to_all(dir.path(), 0o755);
        let host = Self { dir };
        fs::write(host.path("canary"), CANARY).unwrap();
        fs::create_dir(host.path("outside")).unwrap();
        fs::write(host.path("outside/file"), CANARY).unwrap();
        // Also to who is nobody inside: it is the sandbox that has to keep it safe.
        open_to_all(&host.path("outside"), 0o777);
        open_to_all(&host.path("outside/file"), 0o666);
        let tree = host.path("tree");
        for folder in ["usr", "etc", "tmp", "root"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(name), tree.join(name)).unwrap();
        }
        plant(&tree);
        host
    }

    /// A path of the host.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text.
    pub(crate) fn word(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Makes a directory of the host that everybody may write to, and gives its path.
    pub(crate) fn folder(&self, name: &str) -> String {
        fs::create_dir_all(self.path(name)).unwrap();
        open_to_all(&self.path(name), 0o777);
        self.word(name)
    }

    /// `sandbox` with the store of this host.
    pub(crate) fn sandbox(&self, words: &[&str]) -> Command {
        self.program(&env::binary(), words)
    }

    /// Another copy of the program.
    pub(crate) fn program(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--base-dir").arg(self.path("store")).arg("--quiet").args(words);
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        command.env("SANDBOX_BUDGET", "off");
        command
    }

    /// `sandbox init` in the id mode of these tests.
    pub(crate) fn init(&self, words: &[&str]) -> Command {
        let mut command = self.sandbox(&["init", "--ids", ids().name()]);
        command.args(words);
        command
    }

    /// Those of these profiles that this box may have: strict is refused where root inside is root of the
    /// machine, which only an identity map makes.
    pub(crate) fn profiles<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        let out = self.run(&["--profile", "strict"], &["/bin/true"]);
        let refused = text(&out.stderr).contains("root inside is root of this machine");
        assert!(!refused || ids() == Ids::Identity, "{}", text(&out.stderr));
        assert_eq!(out.status.code(), Some(if refused { 125 } else { 0 }));
        wanted.iter().copied().filter(|name| !refused || *name != "strict").collect()
    }

    /// A run with the machine's programs.
    pub(crate) fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        self.running(flags, command).output().unwrap()
    }

    /// The same, not started yet.
    pub(crate) fn running(&self, flags: &[&str], command: &[&str]) -> Command {
        let mut run = self.sandbox(&["run", "--bind", "/usr:/usr"]);
        run.args(flags).arg("--").args(command);
        run
    }

    /// A run of a line of shell.
    pub(crate) fn shell(&self, flags: &[&str], line: &str) -> Output {
        self.run(flags, &["/bin/sh", "-c", line])
    }

    /// A run of perl, which makes system calls by number; what it prints.
    pub(crate) fn perl(&self, flags: &[&str], code: &str) -> String {
        let out = self.run(flags, &["/usr/bin/perl", "-e", code]);
        assert!(out.status.success(), "{flags:?}: {code}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// Makes system calls inside; the errno of each, 0 if it was done. Arguments are those of perl.
    pub(crate) fn calls(&self, flags: &[&str], calls: &[(i64, &str)]) -> Vec<i32> {
        // perl passes on strings that can be changed only, which constants cannot.
        let changeable = |args: &str| {
            let parts = args.split('\'').enumerate();
            let part = |(at, part): (usize, &str)| {
                if at % 2 == 0 { part.to_owned() } else { format!("copy('{part}')") }
            };
            parts.map(part).collect::<String>()
        };
        let one = |(number, args): &(i64, &str)| {
            let args = changeable(args);
            format!("$n = {number}; print syscall($n, {args}) == -1 ? 0+$! : 0, \"\\n\";")
        };
        let code: String = calls.iter().map(one).collect();
        let printed = self.perl(flags, &format!("sub copy {{ my $x = shift; $x }} {code}"));
        printed.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// The one layer of the store, or the newest.
    pub(crate) fn layer(&self) -> PathBuf {
        let mut all: Vec<_> = fs::read_dir(self.path("store/layers")).unwrap().collect();
        all.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
        all.pop().unwrap().unwrap().path()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for name in ["canary", "outside/file"] {
            assert_eq!(fs::read_to_string(self.path(name)).unwrap(), CANARY, "{name}");
        }
        let names = crate::common::left::names(&self.path("outside"));
        assert_eq!(names, ["file"], "something came into `outside`");
        let mode = fs::metadata(self.path("outside")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777, "the mode of `outside`");
        crate::common::left::no_mount(self.dir.path());
        // What of a store belongs to sub-ids the caller cannot remove.
        let trash = self.path("store/trash");
        crate::common::left::eventually("trash", || crate::common::left::names(&trash));
        crate::common::tree::remove(&self.path("store"));
    }
}

/// Gives a path a mode, whatever the mask of the caller.
pub(crate) fn open_to_all(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Bytes for people.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A refusal of ours: exit code 125, nothing on stdout, and a line that has `what`.
#[track_caller]
pub(crate) fn refused(out: &Output, what: &str) {
    let told = text(&out.stderr);
    assert_eq!(out.status.code(), Some(125), "{told}{}", text(&out.stdout));
    assert_eq!(text(&out.stdout), "", "{told}");
    let line =
        told.lines().find(|line| line.starts_with("sandbox: ") || line.starts_with("error: "));
    assert!(line.is_some_and(|_| told.contains(what)), "no `{what}` in: {told}");
    assert!(!told.contains("panicked"), "{told}");
}

/// How often a race is run.
pub(crate) fn rounds() -> u32 {
    std::env::var("SANDBOX_ESCAPE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}
