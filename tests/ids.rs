//! User namespaces for real: owners on disk, powers, lives and deaths of jobs.
//!
//! A program of its own instead of `#[test]` functions, because clone(2) wants a process of one thread.
//! Whoever runs it decides what is tested; every role runs the others that it can reach:
//!
//! - root of the initial namespace: modes `range`, `identity`, `single`; then itself as the plain user
//!   named by `SANDBOX_TEST_USER` (`sandbox-test` if unset; `useradd -m sandbox-test` makes one with
//!   ranges);
//! - a plain user: modes `subuid`, `single`; then itself in user namespaces of many ids, with the right
//!   /proc and with that of an outer pid namespace, and of one id;
//! - uid 0 of a user namespace of many ids: mode `identity`; of one id: mode `single`.
//!
//! A missing ability is a failure, unless `SANDBOX_TEST_WITHOUT` (separated by commas) names it: `user`
//! (no plain user to become), `subuid` (no ranges or helpers), `nested` (no unshare(1) with `--map-auto`).

#![expect(clippy::print_stdout, reason = "this program is its own test harness")]

use std::env;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};

use sandbox::ids::Mode;

#[path = "ids/cases.rs"]
mod cases;
#[path = "ids/lives.rs"]
mod lives;

type Case = (&'static str, fn(Mode));

/// What every mode has to stand.
const EVERY: &[Case] = &[
    ("owners", cases::owners),
    ("credentials", cases::credentials),
    ("mounts", cases::mounts),
    ("joined", cases::joined),
    ("joined_mounts", cases::joined_mounts),
    ("answers", cases::answers),
    ("check", cases::check),
    ("panic", lives::panic),
    ("killed", lives::killed),
    ("tethered", lives::tethered),
    ("in_vain", lives::in_vain),
];

fn main() -> ExitCode {
    let mut tally = Tally::default();
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("uid_map");
    let ids: u64 =
        map.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    match (rustix::process::geteuid().is_root(), ids) {
        (true, 4_294_967_295) => root(&mut tally),
        (true, 1) => {
            tally.case("auto", || cases::auto(Mode::Single));
            tally.modes(&[Mode::Single]);
            tally.refused(&[Mode::Subuid, Mode::Range]);
        }
        (true, _) => {
            tally.case("auto", || cases::auto(Mode::Identity));
            tally.modes(&[Mode::Identity]);
            tally.refused(&[Mode::Subuid, Mode::Range]);
        }
        (false, _) => user(&mut tally),
    }
    tally.end()
}

fn root(tally: &mut Tally) {
    tally.case("auto", || cases::auto(Mode::Range));
    tally.modes(&[Mode::Range, Mode::Identity, Mode::Single]);
    tally.refused(&[Mode::Subuid]);
    tally.ability("user", || {
        let name = env::var("SANDBOX_TEST_USER").unwrap_or_else(|_| "sandbox-test".to_owned());
        let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd");
        let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")));
        let none = || panic!("no user {name}: make one, or set SANDBOX_TEST_USER");
        let fields: Vec<_> = line.unwrap_or_else(none).split(':').collect();
        let (uid, gid): (u32, u32) =
            (fields[2].parse().expect("uid"), fields[3].parse().expect("gid"));
        // The build directory may be closed to the user.
        let dir = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("tempdir");
        let program = dir.path().join("ids");
        std::fs::copy("/proc/self/exe", &program).expect("copy");
        let status = Command::new(program).uid(uid).gid(gid).current_dir("/").status();
        assert!(status.expect("run").success(), "failed as {name}");
    });
}

fn user(tally: &mut Tally) {
    tally.ability("subuid", || cases::auto(Mode::Subuid));
    if tally.has("subuid") {
        tally.modes(&[Mode::Subuid]);
    }
    tally.modes(&[Mode::Single]);
    tally.refused(&[Mode::Range, Mode::Identity]);
    if tally.has("subuid") {
        tally.ability("nested", || again_in(&["--map-root-user", "--map-auto"]));
        let outer_proc = &["--map-root-user", "--map-auto", "--pid", "--fork"];
        tally.ability("nested", || again_in(outer_proc));
    }
    tally.ability("nested", || again_in(&["--map-root-user"]));
}

fn again_in(options: &[&str]) {
    let program = env::current_exe().expect("own path");
    let status =
        Command::new("unshare").arg("--user").args(options).arg("--").arg(program).status();
    assert!(status.expect("run unshare").success(), "failed in {options:?}");
}

#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    fn case(&mut self, name: &str, run: impl FnOnce()) {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Err(_) => {
                self.failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }

    fn modes(&mut self, modes: &[Mode]) {
        for &mode in modes {
            for (name, run) in EVERY {
                self.case(&format!("{mode}::{name}"), || run(mode));
            }
        }
    }

    fn refused(&mut self, modes: &[Mode]) {
        for &mode in modes {
            self.case(&format!("{mode}::refused"), || cases::refused(mode));
        }
    }

    fn has(&self, ability: &str) -> bool {
        let without = env::var("SANDBOX_TEST_WITHOUT").unwrap_or_default();
        !without.split(',').any(|word| word == ability)
    }

    fn ability(&mut self, ability: &str, run: impl FnOnce()) {
        if self.has(ability) {
            self.case(ability, run);
        } else {
            println!("test {ability} ... left out by SANDBOX_TEST_WITHOUT");
        }
    }

    fn end(&self) -> ExitCode {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        println!("\ntest result: {word}. {} passed; {} failed", self.passed, self.failed);
        ExitCode::from(u8::from(self.failed > 0))
    }
}
