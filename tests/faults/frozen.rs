//! Time plays tricks: the supervisor is stopped in the middle of its commit, its parent ends, the clock goes
//! back by years.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::Case;
use crate::disk::Disk;
use crate::watch::{self, gone, marker, send, state, until};
use crate::world::{Place, Said, program};
use crate::{sweep, swept};

pub(crate) const CASES: &[Case] = &[
    ("stopped_in_commit", stopped_in_commit),
    ("stopped_in_gc", stopped_in_gc),
    ("parent_ends", parent_ends),
    ("clock_set_back", clock_set_back),
    ("clock_set_back_for_moves", clock_set_back_for_moves),
];

/// The process that stops itself at a step, once it has: the command, or a child that works for it.
fn stopped(place: &Place, words: &[&str], step: &str) -> Child {
    let mut command = place.command(words);
    command.env("SANDBOX_FAIL", format!("{step}:stop"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("start");
    let pid = child.id() as i32;
    until("it stops", || (state(pid) == Some('T')).then_some(()));
    child
}

/// Others go on meanwhile, gc takes nothing, and when it is continued the commit is done.
fn stopped_in_commit() {
    let place = Place::new();
    let steps = [
        "publish.syncfs.before",
        "publish.rename.after",
        "ref.temp.fsync.after",
        "ref.rename.after",
        "discard.record.before",
    ];
    for (number, step) in steps.iter().enumerate() {
        let name = format!("n{number}");
        let line = format!("echo {name} >/content");
        let words = ["run", "--commit", &name, "--", "sh", "-c", &line];
        let child = stopped(&place, &words, step);
        place.said(&["run", "--", "true"]).code(0);
        place.said(&["list"]).code(0);
        let other = place.said(&["run", "--commit", "other", "--wait=1", "--", "touch", "/x"]);
        // Who holds the lock of the box is asked to give it back; nobody takes it.
        match other.code {
            0 => drop(place.said(&["rm", "other"]).code(0)),
            125 => assert!(step.starts_with("ref.") && other.err.contains("recover"), "{other:?}"),
            _ => panic!("{step}: {other:?}"),
        }
        let collected = place.said(&["gc", "--all", "--wait=1"]);
        assert!([0, 5].contains(&collected.code), "{step}: {collected:?}");
        send(child.id() as i32, Signal::CONT);
        let said = Said::from(child.wait_with_output().expect("wait"));
        assert_eq!(said.code, 0, "{step}: {said:?}");
        let same = format!("[ \"$(cat /content)\" = {name} ]");
        place.line(&["--from", &name], &same).code(0);
        for id in Disk::read(&place.base).sound(step).kept {
            place.said(&["recover", &id, "--as", "other"]).code(0);
            place.said(&["rm", "other"]).code(0);
        }
        place.said(&["rm", &name]).code(0);
        place.said(&["gc", "--all"]).code(0);
        Disk::read(&place.base).clean(step);
    }
    place.pristine();
}

/// Everybody waits for it and then says busy; nothing is lost.
fn stopped_in_gc() {
    let place = Place::new();
    place.line(&["--commit", "goes"], "echo x >/content").code(0);
    place.said(&["rm", "goes"]).code(0);
    let child = stopped(&place, &["gc", "--all"], "gc.layer.before");
    place.said(&["run", "--wait=1", "--", "true"]).refused(125, "lock");
    place.said(&["snapshot", "--wait=1", "other"]).refused(5, "lock");
    send(child.id() as i32, Signal::CONT);
    Said::from(child.wait_with_output().expect("wait")).code(0);
    place.said(&["run", "--", "true"]).code(0);
    place.pristine();
}

/// Who has started a run may end before it: the commit comes all the same.
fn parent_ends() {
    let place = Place::new();
    let mark = marker();
    let mut parent = Command::new("sh");
    let line = "\"$SANDBOX\" run --commit made -- sh -c 'sleep 0.3; echo made >/content' & exit 0";
    parent.args(["-c", line]).env("SANDBOX", program()).env("MARK", &mark);
    parent.env("SANDBOX_BASE_DIR", &place.base).current_dir(place.work()).stdin(Stdio::null());
    parent.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(parent.status().expect("sh").success());
    assert_eq!(place.snapshots().len(), 1, "it should still be running");
    gone(&mark);
    place.line(&["--from", "made"], "[ \"$(cat /content)\" = made ]").code(0);
    place.pristine();
}

/// A library before the C library that sets the clock of a command to another time.
fn other_clock(place: &Place) -> PathBuf {
    const SOURCE: &str = "#define _GNU_SOURCE\n#include <stdlib.h>\n#include <time.h>\n#include <unistd.h>\n\
        #include <sys/syscall.h>\n\
        int clock_gettime(clockid_t id, struct timespec *now) {\n\
        int answer = syscall(SYS_clock_gettime, id, now);\n\
        char *shift = getenv(\"CLOCK_SHIFT\");\n\
        if (id == CLOCK_REALTIME && shift) now->tv_sec += atol(shift);\n\
        return answer; }\n";
    let (source, library) = (place.work().join("clock.c"), place.work().join("clock.so"));
    fs::write(&source, SOURCE).expect("write");
    let mut built = Command::new("cc");
    built.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(built.status().expect("cc").success());
    library
}

/// How far it is set.
const YEARS: i64 = 5 * 365 * 24 * 3600;

/// What a command says whose clock is shifted.
fn said_at(place: &Place, library: &Path, shift: i64, words: &[&str]) -> Said {
    let mut command = place.command(words);
    command.env("LD_PRELOAD", library).env("CLOCK_SHIFT", shift.to_string());
    command.output().expect("start").into()
}

/// What looks at all, what takes back and what takes in, at an earlier time than that of what it works on.
fn clock_set_back_for_moves() {
    let place = Place::new();
    let library = other_clock(&place);
    let at = |shift: i64, words: &[&str]| said_at(&place, &library, shift, words);
    let names = || place.snapshots().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let source = crate::world::tree().to_str().expect("text");
    for (round, now) in [0, -YEARS].into_iter().enumerate() {
        // Moves of the future are taken back one by one, the newest first, and are in the log.
        at(YEARS, &["run", "--commit", "one", "--", "sh", "-c", "echo one >/content"]).code(0);
        at(YEARS, &["rollback", "one"]).code(0);
        at(YEARS, &["rm", "one"]).code(0);
        for words in [&["df"][..], &["list", "--all-boxes"], &["log"], &["gc", "--dry-run"]] {
            at(now, words).code(0);
        }
        assert_eq!(at(now, &["undo"]).code(0).out.lines().count(), 2, "rm");
        assert!(names().contains(&"one".to_owned()));
        at(now, &["run", "--", "sh", "-c", "[ \"$(cat /content)\" = one ]"]).code(0);
        at(now, &["undo"]).code(0);
        at(now, &["run", "--", "sh", "-c", "[ ! -e /content ]"]).code(0);
        at(now, &["undo"]).code(0);
        assert!(!names().contains(&"one".to_owned()));
        // What was taken back now is needed for as long as a young log says; after that it goes.
        at(now, &["gc"]).code(0);
        at(now, &["gc", "--all"]).code(0);
        assert_eq!(watch::names(&place.base.join("layers")).len(), 1, "round {round}");
        // A first layer that is made in the future is older than any age, and made anew once.
        at(YEARS, &["init", "--from", source, "--refresh"]).code(0);
        let future = place.snapshots();
        at(now, &["init", "--from", source, "--max-age", "7d"]).code(0);
        let anew = place.snapshots();
        assert_ne!(future, anew, "round {round}");
        at(now, &["init", "--from", source, "--max-age", "7d"]).code(0);
        assert_eq!(place.snapshots(), anew, "round {round}");
        at(now, &["init", "--from", source, "--refresh"]).code(0);
        assert_ne!(place.snapshots(), anew, "round {round}");
        // What a store inside has made in a run of the future.
        if sweep::has_nests() {
            let line = "sandbox run --quiet --commit made -- sh -c 'echo made >/content'; exit 3";
            let itself = swept::itself();
            let flags: Vec<_> = itself.iter().map(String::as_str).collect();
            let start = ["run", "--nest", "--keep-on-failure"];
            at(YEARS, &[&start, &flags[..], &["--", "sh", "-c", line]].concat()).code(3);
            let kept = watch::names(&place.base.join("runs"));
            assert_eq!(kept.len(), 1);
            for id in kept {
                at(now, &["adopt", &id]).code(0);
                at(now, &["recover", &id, "--as", "rest"]).code(0);
            }
            at(now, &["run", "--from", "made", "--", "sh", "-c", "[ -e /content ]"]).code(0);
        }
        at(YEARS, &["snapshot", "more"]).code(0);
        at(now, &["scrub", "--snapshots"]).code(0);
        assert_eq!(names(), ["postinit"]);
        at(now, &["undo"]).code(0);
        assert!(names().contains(&"more".to_owned()));
        at(now, &["scrub", "--snapshots"]).code(0);
        at(now, &["gc", "--all"]).code(0);
        Disk::read(&place.base).clean("after a round");
        at(now, &["fsck"]).code(0);
    }
    place.pristine();
}

fn clock_set_back() {
    let place = Place::new();
    let library = other_clock(&place);
    let years = YEARS;
    let at = |shift: i64, words: &[&str]| said_at(&place, &library, shift, words);
    let future =
        at(years, &["run", "--commit", "future", "--", "sh", "-c", "echo future >/content"]);
    future.code(0);
    at(years, &["run", "--keep", "--", "sh", "-c", "echo head >/content"]).code(0);
    at(years, &["run", "--keep-on-failure", "--", "sh", "-c", "echo kept >/content; exit 3"])
        .code(3);
    let created = place.said(&["show", "future", "--json"]).code(0).out;
    let year = |text: &str| text.split("\"created\":\"").nth(1).map(|rest| rest[..4].to_owned());
    let now = place.said(&["show", "postinit", "--json"]).code(0).out;
    assert_ne!(year(&created), year(&now), "the clock is not the other one: {created}");
    // Back in our time: what is from the future is there and goes on.
    for shift in [0, -years] {
        let name = if shift == 0 { "now" } else { "past" };
        let line = "cat /content && echo more >/more";
        let said =
            at(shift, &["run", "--from", "future", "--commit", name, "--", "sh", "-c", line]);
        assert_eq!(said.code(0).out, "future\n");
        at(shift, &["gc"]).code(0);
        at(shift, &["gc", "--all"]).code(0);
        Disk::read(&place.base).clean(name);
        at(shift, &["run", "--", "sh", "-c", "[ \"$(cat /content)\" = head ]"]).code(0);
        at(shift, &["snapshot", &format!("{name}-head")]).code(0);
        at(shift, &["list"]).code(0);
        at(shift, &["diff", "future", name]).code(0);
    }
    // What a kill leaves, whose time has not come yet, goes, too. (A spare directory would need no making.)
    for entry in fs::read_dir(place.base.join("cache")).expect("cache").flatten() {
        if entry.file_name().to_string_lossy().starts_with("spare-") {
            // What overlayfs has made in it has mode 0.
            let line = "chmod -R u+rwx \"$1\" && rm -r \"$1\"";
            let mut remove = Command::new("sh");
            remove.args(["-c", line, "remove"]).arg(entry.path());
            assert!(remove.status().expect("sh").success());
        }
    }
    let mut killed = place.command(["run", "--commit", "never", "--", "touch", "/x"]);
    killed.env("LD_PRELOAD", &library).env("CLOCK_SHIFT", years.to_string());
    killed.env("SANDBOX_FAIL", "run.rename.before:kill");
    assert_eq!(Said::from(killed.output().expect("start")).code, 137);
    place.said(&["gc", "--all"]).code(0);
    let kept = Disk::read(&place.base).clean("at the end").kept;
    assert_eq!(kept.len(), 1);
    for id in kept {
        place.said(&["recover", &id, "--as", "kept"]).code(0);
        place.line(&["--from", "kept"], "[ \"$(cat /content)\" = kept ]").code(0);
    }
    assert_eq!(watch::held(&place.base), Vec::<PathBuf>::new());
    place.pristine();
}
