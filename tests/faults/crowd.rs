//! Many on one store while they are killed: nobody's names are lost, and gc works beside all of them, also
//! from another container.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Case;
use crate::acts::Kind;
use crate::disk::Disk;
use crate::signals::start;
use crate::watch::{self, gone, marker, random, until};
use crate::world::{Place, Said, ids, program, tree};

pub(crate) const CASES: &[Case] = &[
    ("sixteen", sixteen),
    ("gc_beside_a_shell", gc_beside_a_shell),
    ("two_containers", two_containers),
];

const WORKERS: u64 = 16;

/// How long the sixteen work.
fn seconds() -> u64 {
    let text = std::env::var("SANDBOX_SOAK_SECONDS").ok();
    text.map_or(10, |text| text.parse().expect("SANDBOX_SOAK_SECONDS: a number"))
}

/// Said by a command that lost a race, found the store busy, or was told of a kill: documented.
#[track_caller]
fn beaten(said: &Said) {
    const PARTS: [&str; 12] = [
        "there is no such",
        "there is none in",
        "exists",
        "moved meanwhile",
        "removed meanwhile",
        "other commands are at work",
        ": busy: ",
        "names",
        "killed from outside",
        "no move to take back",
        "was moved since",
        "is gone",
    ];
    let known = [3, 4, 5, 125, 137].contains(&said.code);
    let told = said.code == 137 || PARTS.iter().any(|part| said.err.contains(part));
    assert!(known && told, "{said:?}");
}

#[derive(Default)]
struct Counts {
    kills: AtomicU64,
    commits: AtomicU64,
    others: AtomicU64,
}

/// A command in a process group of its own, which three times in ten is killed after some moments.
fn perhaps_killed(place: &Place, counts: &Counts, words: &[&str]) -> Said {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program());
    command.args(words).env("SANDBOX_BASE_DIR", &place.base).process_group(0);
    command.env("SANDBOX_BUDGET", "off");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.current_dir(place.work()).spawn().expect("start");
    if random() % 10 < 3 {
        sleep(Duration::from_micros(random() % 150_000));
        let group = Pid::from_raw(child.id() as i32).expect("pid");
        kill_process_group(group, Signal::KILL).ok();
    }
    let said = Said::from(child.wait_with_output().expect("wait"));
    counts.kills.fetch_add(u64::from(said.code == 137), Ordering::Relaxed);
    said
}

/// Whether a name is there, and then whole.
fn is_whole(base: &Path, name: &str, content: &str) -> bool {
    let Ok(text) = fs::read(base.join("boxes/default/refs").join(name)) else { return false };
    let record: serde_json::Value = serde_json::from_slice(&text).expect("a ref is whole");
    let layer = record["layer"].as_str().expect("a layer");
    let layer = base.join("layers").join(layer);
    let found = fs::read_to_string(layer.join("fs/content")).expect("a layer is whole");
    assert_eq!(found.trim(), content, "{name}");
    assert!(layer.join("layer.json").is_file(), "{name}");
    true
}

fn sixteen() {
    let place = Place::new();
    let counts = Counts::default();
    let end = Instant::now() + Duration::from_secs(seconds());
    let left: Vec<Vec<String>> = scope(|scope| {
        let work = |worker| {
            let (place, counts) = (&place, &counts);
            scope.spawn(move || work(place, counts, worker, end))
        };
        let workers: Vec<_> = (0..WORKERS).map(work).collect();
        workers.into_iter().map(|worker| worker.join().expect("worker")).collect()
    });
    until("all is quiet", || watch::held(&place.base).is_empty().then_some(()));
    let names: Vec<_> = left.into_iter().flatten().collect();
    for id in Disk::read(&place.base).sound("end").kept {
        place.said(&["recover", &id, "--as", "rescued"]).code(0);
        place.said(&["rm", "rescued"]).code(0);
    }
    place.said(&["gc", "--all"]).code(0);
    Disk::read(&place.base).clean("end");
    for name in &names {
        assert!(is_whole(&place.base, name, name), "{name} is lost");
    }
    if Kind::Fsck.is_known() {
        place.said(&["fsck"]).code(0);
    }
    let [kills, commits, others] =
        [&counts.kills, &counts.commits, &counts.others].map(|count| count.load(Ordering::Relaxed));
    say(&format!(
        "soak: {WORKERS} workers for {} s: {commits} commits acknowledged, {others} other commands, {kills} kills, \
         {} names at the end, 0 lost",
        seconds(),
        names.len()
    ));
    assert!(commits > 0 && kills > 0);
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn say(line: &str) {
    println!("{line}");
}

/// Commits, and holds the store to what it said of these names; returns those that must be there at the end.
fn work(place: &Place, counts: &Counts, worker: u64, end: Instant) -> Vec<String> {
    let mut mine: Vec<String> = Vec::new();
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let name = format!("w{worker}-{round}");
        let line = format!("echo {name} >/content");
        let words = ["run", "--from", "postinit", "--commit", &name, "--", "sh", "-c", &line];
        let said = perhaps_killed(place, counts, &words);
        let there = is_whole(&place.base, &name, &name);
        match said.code {
            0 => assert!(there, "{name} was acknowledged: {said:?}"),
            137 => {}
            _ => {
                beaten(&said);
                assert!(!there, "{name} was refused: {said:?}");
            }
        }
        counts.commits.fetch_add(u64::from(said.code == 0), Ordering::Relaxed);
        mine.extend(there.then_some(name));
        other(place, counts);
        if random().is_multiple_of(2) && !mine.is_empty() {
            let name = mine.swap_remove(random() as usize % mine.len());
            let said = perhaps_killed(place, counts, &["rm", &name]);
            let there = is_whole(&place.base, &name, &name);
            match said.code {
                0 => assert!(!there, "{name} was removed: {said:?}"),
                137 if there => mine.push(name),
                137 => {}
                _ => beaten(&said),
            }
        }
        for name in &mine {
            assert!(is_whole(&place.base, name, name), "{name} is lost");
        }
    }
    mine
}

/// Something that touches what is everybody's.
fn other(place: &Place, counts: &Counts) {
    let words: &[&str] = match random() % 8 {
        0 => &["gc", "--all"],
        1 => &["gc"],
        2 => &["run", "--keep", "--", "sh", "-c", "echo head >/content"],
        3 => &["rollback", "postinit"],
        4 => &["clean"],
        5 => &["fsck"],
        6 => &["list", "--json"],
        _ => &["run", "--", "sh", "-c", "echo gone >/content"],
    };
    let kinds = [Kind::Rollback, Kind::Clean, Kind::Fsck];
    if kinds.iter().any(|kind| kind.name() == words[0] && !kind.is_known()) {
        return;
    }
    let said = perhaps_killed(place, counts, words);
    if said.code != 0 {
        beaten(&said);
    }
    counts.others.fetch_add(1, Ordering::Relaxed);
}

/// gc frees the space of what is not needed while a run stays open, and takes nothing of what that needs,
/// whether it still has a name or not.
fn gc_beside_a_shell() {
    let place = Place::new();
    place.line(&["--commit", "mine"], "echo mine >/content").code(0);
    let big = "dd if=/dev/zero of=/big bs=1M count=8 status=none";
    place.line(&["--commit", "big"], big).code(0);
    let mark = marker();
    let mut command = place.command(["shell", "--from", "mine", "--workdir", "/"]);
    command.env("MARK", &mark).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start");
    until("it is there", || watch::init_of(child.id() as i32));
    until("it has its run", || {
        let runs = watch::names(&place.base.join("runs"));
        runs.first().filter(|name| !name.starts_with('.')).cloned()
    });
    place.said(&["rm", "mine"]).code(0);
    place.said(&["rm", "big"]).code(0);
    let before = bytes(&place.base);
    let said = place.said(&["gc", "--all", "--json"]).code(0);
    assert!(before - bytes(&place.base) >= 8 << 20, "{said:?}");
    assert_eq!(watch::names(&place.base.join("trash")), Vec::<String>::new());
    let lines = b"cat /content; [ ! -e /big ] && echo on >/later; cat /later; exit 0\n";
    child.stdin.take().expect("stdin").write_all(lines).expect("write");
    let said = Said::from(child.wait_with_output().expect("wait")).code(0);
    assert_eq!(said.out, "mine\non\n", "{said:?}");
    gone(&mark);
    place.pristine();
}

/// The bytes of all files of a store.
fn bytes(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => sum += bytes(&entry.path()),
            Ok(found) => sum += found.len(),
            Err(_) => {}
        }
    }
    sum
}

/// Another container sees the same store, and neither our processes nor our pids: what lives here is not
/// reaped there, what died here is.
fn two_containers() {
    let place = Place::empty();
    // In a container a plain user has no newuidmap; the ids are the same on both sides.
    let ids = if ids() == "subuid" { "single".to_owned() } else { ids() };
    let tree = tree().to_str().expect("text");
    place.said(&["init", "--ids", &ids, "--from", tree]).code(0);
    let run = start(&place, &["--commit", "made"], "echo made >/content; echo ready; sleep 1000");
    let elsewhere = |words: &[&str]| -> Said {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-current-user");
        }
        command.args(["--mount", "--pid", "--fork", "--mount-proc"]).arg(program()).args(words);
        command.env("SANDBOX_BASE_DIR", &place.base).current_dir(place.work());
        command.stdin(Stdio::null()).output().expect("unshare").into()
    };
    let runs = || watch::names(&place.base.join("runs"));
    assert_eq!(runs().len(), 1);
    for words in [&["gc", "--all"][..], &["list"]] {
        let said = elsewhere(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        assert_eq!(runs().len(), 1, "{words:?} reaped a run of another container");
    }
    let live = runs().remove(0);
    elsewhere(&["recover", &live, "--as", "stolen"]).refused(5, "still running");
    // Its supervisor dies: now it is anybody's to clear away.
    let pid = run.pid;
    watch::send(pid, Signal::KILL);
    let said = run.end();
    assert_eq!(said.code, 137, "{said:?}");
    elsewhere(&["gc", "--all"]).code(0);
    assert_eq!(runs(), Vec::<String>::new());
    assert_eq!(place.snapshots().len(), 1);
    place.pristine();
}
