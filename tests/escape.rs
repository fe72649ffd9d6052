//! Ways out of a sandbox that others have had, tried with the program itself. Each case fails closed: the
//! run is refused or sees nothing of the host, and a canary on the host is as it was.
//!
//! `SANDBOX_BIN` is the program (the debug build otherwise), `SANDBOX_TEST_IDS` the id mode of the boxes
//! (what this user gets by default otherwise); integration/test.sh runs these tests in every id mode. The
//! programs inside are the machine's own, by a read-only bind of /usr.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A store with one box, a canary beside it, and the box's hostile tree.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// A host whose box is filled with a tree that `plant` has worked on.
    fn with(plant: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("escape-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("canary"), "untouched").unwrap();
        let host = Self { dir };
        let tree = host.path("tree");
        for folder in ["usr", "etc", "tmp", "root"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(name), tree.join(name)).unwrap();
        }
        plant(&tree);
        let mut init = host.sandbox(&["init", "--from", tree.to_str().unwrap()]);
        if let Some(mode) = std::env::var_os("SANDBOX_TEST_IDS").filter(|mode| !mode.is_empty()) {
            init.arg("--ids").arg(mode);
        }
        assert!(init.status().unwrap().success(), "init");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sandbox(&self, words: &[&str]) -> Command {
        let given = std::env::var_os("SANDBOX_BIN").filter(|path| !path.is_empty());
        let program = given.unwrap_or_else(|| env!("CARGO_BIN_EXE_sandbox").into());
        let mut command = Command::new(program);
        command.arg("--base-dir").arg(self.path("store")).arg("--quiet").args(words);
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        command.env("SANDBOX_BUDGET", "off");
        command
    }

    /// Those of these profiles that this box may have: strict is refused where root inside is root of the
    /// machine, which only an identity map makes.
    fn profiles<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        let out = self.run(&["--profile", "strict"], &["/bin/true"]);
        let refused = text(&out.stderr).contains("by identity, where root inside is root");
        let identity = std::env::var("SANDBOX_TEST_IDS").is_ok_and(|mode| mode == "identity");
        assert!(!refused || identity, "{}", text(&out.stderr));
        assert_eq!(out.status.code(), Some(if refused { 125 } else { 0 }));
        wanted.iter().copied().filter(|name| !refused || *name != "strict").collect()
    }

    fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        let mut run = self.sandbox(&["run", "--bind", "/usr:/usr"]);
        run.args(flags).arg("--").args(command).output().unwrap()
    }

    fn shell(&self, flags: &[&str], line: &str) -> Output {
        self.run(flags, &["/bin/sh", "-c", line])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(fs::read_to_string(self.path("canary")).unwrap(), "untouched");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// CVE-2024-21626: a working directory that is a symlink of the layer to a descriptor of ours.
#[test]
fn the_working_directory_is_inside() {
    let host = Host::with(|tree| {
        for number in 0..40 {
            symlink(format!("/proc/self/fd/{number}"), tree.join(format!("self{number}"))).unwrap();
            symlink(format!("/proc/1/fd/{number}"), tree.join(format!("init{number}"))).unwrap();
        }
        symlink("/proc/1/cwd", tree.join("init-cwd")).unwrap();
        symlink("/proc/1/root", tree.join("init-root")).unwrap();
    });
    let numbered = (0..40).flat_map(|number| [format!("/self{number}"), format!("/init{number}")]);
    for dir in numbered.chain(["/init-cwd".into(), "/init-root".into()]) {
        let out = host.run(&["--workdir", &dir], &["/bin/ls"]);
        assert_eq!(out.status.code(), Some(125), "{dir}: {}", text(&out.stdout));
    }
    // A standard descriptor of the caller's is no way either.
    let mut run =
        host.sandbox(&["run", "--bind", "/usr:/usr", "--workdir", "/self0", "--", "/bin/ls"]);
    let out = run.stdin(fs::File::open(host.path(".")).unwrap()).output().unwrap();
    assert_eq!(out.status.code(), Some(125), "{}", text(&out.stdout));
}

/// The payload sees no descriptor of ours, and nothing of PID 1, in any profile.
#[test]
fn nothing_of_ours_is_in_proc() {
    let host = Host::with(|_| ());
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let flags = ["--profile", profile, "--net", "none"];
        let out = host.run(&flags, &["/bin/ls", "/proc/self/fd"]);
        assert_eq!(text(&out.stdout), "0\n1\n2\n3\n", "{profile}: {}", text(&out.stderr));
        for name in ["environ", "maps", "mem", "exe", "cwd/", "root/", "fd/", "auxv", "task/1/fd/"]
        {
            let line = format!("ls -L /proc/1/{name} && cat /proc/1/{name}");
            let out = host.shell(&flags, &line);
            assert!(!out.status.success(), "{profile}: {name}: {}", text(&out.stdout));
        }
    }
}

/// A number that the caller has not opened is not one of ours either: 3 is the store.
#[test]
fn only_the_callers_descriptors_can_be_kept() {
    let host = Host::with(|_| ());
    for number in 3..10 {
        let number = number.to_string();
        let run = host.sandbox(&["run", "--preserve-fd", &number, "--", "/bin/true"]);
        // What this test itself was started with is closed first.
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg("exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; exec \"$0\" \"$@\"");
        let out = shell.arg(run.get_program()).args(run.get_args()).output().unwrap();
        assert_eq!(out.status.code(), Some(125), "{number}");
        assert!(text(&out.stderr).contains("not open"), "{number}: {}", text(&out.stderr));
    }
}

/// CVE-2021-41091: what is copied out gets the caller's ids, and must not lend them to who runs it.
#[test]
fn results_have_no_power() {
    let host = Host::with(|_| ());
    let line = "mkdir -p /o/d && cp /bin/true /o/x && cp /bin/true /one && chmod 6755 /o/x /one && \
                chmod 3777 /o/d";
    let to = host.path("results");
    let flags = [format!("/o:{}", to.display()), format!("/one:{}", to.display())];
    let out = host.shell(&["--out", &flags[0], "--out", &flags[1]], line);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let mode =
        |name: &str| fs::symlink_metadata(to.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("o/x"), mode("one"), mode("o/d")], [0o755, 0o755, 0o1777]);
}

/// CVE-2019-5736: our own program on the host, by the payload's /proc/self/exe.
#[test]
fn our_program_is_not_started_inside() {
    let host = Host::with(|tree| {
        symlink("/proc/self/exe", tree.join("link")).unwrap();
        fs::write(tree.join("script"), "#!/proc/self/exe\n").unwrap();
        fs::write(tree.join("twice"), "#! /script x\n").unwrap();
        for name in ["script", "twice"] {
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o711)).unwrap();
        }
    });
    for profile in host.profiles(&["build", "strict"]) {
        for command in ["/link", "/script", "/twice"] {
            let out = host.run(&["--profile", profile], &[command, "--version"]);
            assert_eq!(out.status.code(), Some(126), "{command}: {}", text(&out.stdout));
        }
    }
    let out = host.run(&["--env", "PATH=/nowhere:/"], &["link", "--version"]);
    assert_eq!(out.status.code(), Some(126), "{}", text(&out.stdout));
}

/// CVE-2026-30892: an id of the layer's passwd that means "stay who you are", which is root.
#[test]
fn a_user_of_the_layer_is_never_root_by_accident() {
    let host = Host::with(|tree| {
        fs::write(
            tree.join("etc/passwd"),
            "bob:x:4294967295:0::/:/bin/sh\nann:x:0:4294967295::/:\n",
        )
        .unwrap();
        fs::write(tree.join("etc/group"), "g:x:4294967295:root\n").unwrap();
    });
    for user in ["bob", "ann", "0:g"] {
        let out = host.run(&["--user", user], &["/bin/true"]);
        assert_eq!(out.status.code(), Some(125), "{user}");
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2026-41579: /proc or /dev is a symlink of the layer.
#[test]
fn proc_and_dev_are_directories() {
    for name in ["proc", "dev"] {
        for target in ["/", "/tmp", "../../../tmp", "/proc/self/fd/7/.."] {
            let host = Host::with(|tree| {
                fs::create_dir_all(tree.join("proc-of-layer/self/fd/7")).unwrap();
                symlink(target, tree.join(name)).unwrap();
            });
            let out = host.run(&[], &["/bin/true"]);
            assert_eq!(out.status.code(), Some(125), "{name} -> {target}");
        }
    }
}

/// CVE-2025-31133: what covers a masked path is the host's null device, not what a layer put at its place.
#[test]
fn masks_are_the_null_device() {
    let host = Host::with(|tree| {
        symlink("/dev/null", tree.join("etc/hosts")).unwrap();
        symlink("../dev/null", tree.join("etc/hostname")).unwrap();
        symlink("/dev/null", tree.join("etc/resolv.conf")).unwrap();
    });
    let line = "for f in /dev/null /proc/keys /proc/interrupts; do stat -c '%F %t:%T' $f; done";
    for flags in [&["--net", "none"][..], &["--net", "host"]] {
        let out = host.shell(flags, line);
        let lines = text(&out.stdout);
        let masks =
            lines.lines().skip(1).filter(|line| *line == "character special file 1:3").count();
        assert_eq!(masks, 2, "{flags:?}: {lines}{}", text(&out.stderr));
    }
    let out = host.shell(&[], "echo x > /dev/null; stat -c '%t:%T' /dev/null");
    assert_eq!(text(&out.stdout), "1:3\n", "{}", text(&out.stderr));
}

/// CVE-2020-5291, CVE-2026-41163: our program with a set-user-ID bit would act in its owner's store.
#[test]
fn a_set_id_program_refuses() {
    if !rustix::process::getuid().is_root() {
        // Only root can give a file away, so only there somebody else's program can be tried.
        return;
    }
    let host = Host::with(|_| ());
    let (given, copy) = (host.sandbox(&["list"]), host.path("copy"));
    // By another process: a descriptor for writing must not be open in a child of another test.
    let copied = Command::new("cp").arg(given.get_program()).arg(&copy).status().unwrap();
    assert!(copied.success());
    for (owner, group, mode) in [(Some(65534), None, 0o4755), (None, Some(65534), 0o2755)] {
        std::os::unix::fs::chown(&copy, owner.or(Some(0)), group.or(Some(0))).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
        let out = Command::new(&copy).args(given.get_args()).output().unwrap();
        assert_eq!(out.status.code(), Some(6), "{mode:o}: {}", text(&out.stderr));
    }
}

/// The store is bound by no path, not even one through a symlink.
#[test]
fn the_store_is_never_bound() {
    let host = Host::with(|_| ());
    let store = host.path("store");
    symlink(&store, host.path("link")).unwrap();
    let proc = format!("/proc/self/root{}", store.display());
    let inner = store.join("cache");
    let link = host.path("link");
    let dir = host.path(".");
    for path in [store.as_path(), &inner, &link, &dir, Path::new(&proc), Path::new("/")] {
        for mode in ["ro", "rw", "overlay"] {
            let bind = format!("{}:/mnt:{mode}", path.display());
            let out = host.run(&["--bind", &bind], &["/bin/ls", "/mnt"]);
            assert_eq!(out.status.code(), Some(125), "{bind}: {}", text(&out.stdout));
        }
    }
}
