//! Resource limits of the caller, and an output that takes nothing.

use std::fs::OpenOptions;
use std::process::Command;

use crate::Case;
use crate::watch;
use crate::world::{Place, Said, program, tree};

pub(crate) const CASES: &[Case] = &[
    ("descriptors", descriptors),
    ("processes", processes),
    ("file_size", file_size),
    ("full_output", full_output),
    ("keys", keys),
];

/// `sandbox` with a limit of the shell's ulimit.
fn limited(place: &Place, limit: &str, words: &[&str]) -> Said {
    let mut command = Command::new("bash");
    let line = format!("ulimit {limit} || exit 99; exec \"$@\"");
    command.args(["-c", &line, "bash"]).arg(program()).args(words);
    command.env("SANDBOX_BASE_DIR", &place.base).current_dir(place.work());
    command.output().expect("start").into()
}

/// It worked, or was refused with a line that names the cause.
#[track_caller]
fn worked_or_refused(said: Said, code: i32, part: &str) -> bool {
    if said.code == 0 {
        said.decent();
        return true;
    }
    // Not a word of ours yet.
    if said.code == 127 && said.err.contains("loading shared libraries") {
        return false;
    }
    said.refused(code, part);
    false
}

fn descriptors() {
    let place = Place::new();
    let (mut worked, tree) = (0, tree().to_str().expect("text"));
    for limit in (3..24).chain([32, 48, 64]) {
        let limit = format!("-n {limit}");
        let reason = "too many open files";
        let line = "echo x >/x";
        let words = ["run", "--commit", "new", "--", "sh", "-c", line];
        let before = place.snapshots().len();
        let committed = worked_or_refused(limited(&place, &limit, &words), 125, reason);
        assert_eq!(place.snapshots().len(), before + usize::from(committed), "{limit}");
        if committed {
            worked += 1;
            place.line(&["--from", "new"], "[ -s /x ]").code(0);
            place.said(&["rm", "new"]).code(0);
        }
        worked_or_refused(limited(&place, &limit, &["run", "--", "true"]), 125, reason);
        worked_or_refused(limited(&place, &limit, &["gc"]), 1, reason);
        worked_or_refused(limited(&place, &limit, &["list"]), 1, reason);
        let ids = crate::world::ids();
        let words = ["init", "other", "--ids", &ids, "--from", tree];
        if worked_or_refused(limited(&place, &limit, &words), 1, reason) {
            worked += 1;
        }
    }
    assert!(worked > 4, "it never worked");
    // The layers of `other` are not in the default box.
    if place.base.join("boxes/other").exists() {
        std::fs::remove_dir_all(place.base.join("boxes/other")).expect("remove box");
    }
    place.pristine();
}

fn processes() {
    let place = Place::new();
    for limit in [0, 1, 2, 3, 5] {
        let said = limited(&place, &format!("-u {limit}"), &["run", "--", "true"]);
        worked_or_refused(said, 125, "resource temporarily unavailable");
        assert_eq!(watch::held(&place.base), Vec::<std::path::PathBuf>::new());
    }
    place.pristine();
}

fn file_size() {
    let place = Place::new();
    // Room for records, but not for the filter: half a filter must neither be loaded nor cached.
    for profile in ["build", "dev"] {
        let words = ["run", "--profile", profile, "--", "true"];
        limited(&place, "-f 1", &words).code(0);
        place.said(&words).code(0);
        limited(&place, "-f 0", &words).refused(125, "file too large");
    }
    assert_eq!(watch::names(&place.base.join("runs")), Vec::<String>::new());
    let words =
        ["init", "other", "--ids", &crate::world::ids(), "--from", tree().to_str().expect("text")];
    worked_or_refused(limited(&place, "-f 1", &words), 1, "file too large");
    // The payload dies of it as it would outside: SIGXFSZ.
    let line = "dd if=/dev/zero of=/big bs=1M count=3 status=none";
    let words = ["run", "--commit", "never", "--", "sh", "-c", line];
    let said = limited(&place, "-f 1024", &words);
    assert_eq!(said.code, 128 + 25, "{said:?}");
    place.pristine();
}

fn full_output() {
    let place = Place::new();
    for words in [
        &["list", "--json"][..],
        &["list"],
        &["show", "postinit"],
        &["show", "postinit", "--json"],
        &["gc", "--json"],
        &["doctor"],
        &["run", "--dry-run", "--", "true"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let output = place.command(words).stdout(full).output().expect("start");
        let said = Said::from(output);
        let code = if words[0] == "run" { 125 } else { 1 };
        said.refused(code, "no space left on device");
    }
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    // A failure that cannot be told is a failure nevertheless.
    let output = place.command(["show", "nothing"]).stderr(full()).output().expect("start");
    assert_eq!(Said::from(output).code, 3);
    place.pristine();
}

/// A user who has as many keys as he may: the run goes without a session keyring of its own and says so, or is
/// refused under --strict; what joins a run says so, too. Root may have a million, and is not filled up.
fn keys() {
    let place = Place::new();
    // add_key(2) to a session keyring of its own, until the quota is used up; it is ours as long as we live. Again a
    // while later, because the keys of a process that has ended are given back in the background.
    let fill = "syscall(250, 1, 0) >= 0 or exit 99; \
                for my $m (1 .. 5) { select(undef, undef, undef, 0.1); \
                for (1 .. 400) { my ($t, $n, $v) = (\"user\", \"sandbox-test-$m-$_\", \"x\"); \
                syscall(248, $t, $n, $v, 1, -3) >= 0 or last } } exec @ARGV";
    let filled = |words: &[&str]| -> Said {
        let mut command = Command::new("perl");
        command.args(["-e", fill]).arg(program()).args(words);
        command.env("SANDBOX_BASE_DIR", &place.base).current_dir(place.work());
        command.output().expect("start").into()
    };
    let plain = filled(&["run", "--", "true"]);
    let strict = filled(&["run", "--strict", "--", "true"]);
    assert_eq!(place.said(&["start", "--name", "web", "--", "sleep", "1000"]).code, 0);
    let joined = filled(&["exec", "web", "--", "true"]);
    assert_eq!(place.said(&["stop", "web", "--discard"]).code, 0);
    if rustix::process::getuid().is_root() {
        plain.decent();
        joined.decent();
        return;
    }
    for said in [plain, joined] {
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.err.contains("not enforced: session-keyring: your quota of keys"), "{said:?}");
    }
    strict.refused(125, "session");
}
