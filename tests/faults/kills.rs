//! SIGKILL at any moment, of any process: nothing lives on, nothing half-made shows, the next command works.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Case;
use crate::disk::Disk;
use crate::signals::start;
use crate::watch::{self, gone, init_of, marker, random, send, until};
use crate::world::{Place, Said, ids, soak, tree};

pub(crate) const CASES: &[Case] = &[
    ("supervisor", supervisor),
    ("supervisor_anywhere", supervisor_anywhere),
    ("commit_anywhere", commit_anywhere),
    ("init_anywhere", init_anywhere),
    ("discard_anywhere", discard_anywhere),
    ("gc_anywhere", gc_anywhere),
    ("first_process", first_process),
    ("payload", payload),
    ("whole_group", whole_group),
    ("kept_run", kept_run),
];

/// Many files and one directory nobody may enter, then a last file.
const CHANGE: &str = "mkdir /data && for i in $(seq 150); do echo $i >/data/$i; done && mkdir -m 0 /closed \
     && echo whole >/data/last";
/// Whether a root has all of that.
const WHOLE: &str = "[ \"$(ls /data | head -n 1000 | (n=0; while read -r x; do n=$((n + 1)); done; echo $n))\" = 151 ] \
     && [ \"$(cat /data/last)\" = whole ] && [ -d /closed ]";

/// Runs `sandbox` with these words, kills it after `delay`, and waits until all of it is gone. Whether it
/// was killed before its end.
fn kill_after(place: &Place, words: &[&str], delay: Duration) -> bool {
    let mark = marker();
    let mut command = place.command(words);
    command.env("MARK", &mark).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().expect("start");
    sleep(delay);
    send(child.id() as i32, Signal::KILL);
    let said = Said::from(child.wait_with_output().expect("wait"));
    assert!(said.code == 137 || said.code == 0, "{said:?}");
    gone(&mark);
    said.code == 137
}

/// Kills a command many times, at delays spread over the time it takes as a whole.
fn anywhere(place: &Place, rounds: u64, words: impl Fn(u64) -> Vec<String>, after: impl Fn(u64)) {
    let begun = Instant::now();
    let list = words(0);
    place.command(&list).output().map(Said::from).expect("start").code(0);
    let whole = begun.elapsed().as_micros() as u64;
    after(0);
    for round in 1..=rounds * soak() {
        let list = words(round);
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let delay = Duration::from_micros(random() % (whole * 11 / 10));
        kill_after(place, &list, delay);
        after(round);
    }
    place.pristine();
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn supervisor() {
    let place = Place::new();
    let daemon = "setsid sleep 1000 </dev/null >/dev/null 2>&1 &";
    let line = format!("trap '' TERM HUP INT; {daemon} {CHANGE}; echo ready; sleep 1000");
    let run = start(&place, &[], &line);
    send(run.pid, Signal::KILL);
    run.end().code(137);
    assert_eq!(watch::names(&place.base.join("runs")).len(), 1);
    // Any next command reaps, and starts who empties the trash.
    place.said(&["run", "--", "true"]).code(0);
    assert_eq!(watch::names(&place.base.join("runs")), Vec::<String>::new());
    until("the trash is emptied", || {
        watch::names(&place.base.join("trash")).is_empty().then_some(())
    });
    place.pristine();
}

fn supervisor_anywhere() {
    let place = Place::new();
    anywhere(&place, 20, |_| owned(&["run", "--", "true"]), |_| {});
    assert_eq!(place.snapshots().len(), 1);
}

/// A snapshot is there and whole, or not there; head moves to something whole.
fn commit_anywhere() {
    let place = Place::new();
    let words = |round| owned(&["run", "--commit", &format!("n{round}"), "--", "sh", "-c", CHANGE]);
    anywhere(&place, 20, words, |round| {
        let name = format!("n{round}");
        let names = place.snapshots();
        if names.iter().any(|(known, _)| *known == name) {
            place.line(&["--from", &name], WHOLE).code(0);
            place.said(&["rm", &name]).code(0);
        }
    });
    let keep = |_| owned(&["run", "--keep=force", "--from", "postinit", "--", "sh", "-c", CHANGE]);
    let line = format!("[ ! -e /data ] || {{ {WHOLE}; }}");
    let place = Place::new();
    for round in 0..10 * soak() {
        let list = keep(round);
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        kill_after(&place, &list, Duration::from_micros(random() % 120_000));
        place.line(&[], &line).code(0);
    }
}

/// A box is there and whole, or as good as not there: the same init makes it.
fn init_anywhere() {
    let place = Place::new();
    let (ids, tree) = (ids(), tree().to_str().expect("text"));
    let words = |round| owned(&["init", &format!("b{round}"), "--ids", &ids, "--from", tree]);
    anywhere(&place, 12, words, |round| {
        let list = words(round);
        place.command(&list).output().map(Said::from).expect("start").code(0);
        let name = format!("b{round}");
        place.said(&["run", "--box", &name, "--", "true"]).code(0);
        // Space and time: the layers of each box are a copy of the tree.
        let said = place.said(&["rm", "--box", &name, "postinit"]);
        assert!(said.code == 0, "{said:?}");
        fs::remove_dir_all(place.base.join("boxes").join(&name)).expect("remove box");
    });
}

fn discard_anywhere() {
    let place = Place::new();
    let line = format!("{CHANGE}; chown -R 0:0 /data");
    anywhere(&place, 20, |_| owned(&["run", "--", "sh", "-c", &line]), |_| {});
    assert_eq!(place.snapshots().len(), 1);
}

fn gc_anywhere() {
    let place = Place::new();
    place.line(&["--commit", "stays"], CHANGE).code(0);
    let refill = |_| {
        place.line(&["--commit", "goes"], CHANGE).code(0);
        place.said(&["rm", "goes"]).code(0);
    };
    refill(0);
    anywhere(&place, 15, |_| owned(&["gc", "--all"]), refill);
    place.line(&["--from", "stays"], WHOLE).code(0);
}

/// PID 1 killed from outside is our failure, and told.
fn first_process() {
    let place = Place::new();
    let line = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & touch /x; echo ready; sleep 1000";
    let run = start(&place, &["--commit", "never"], line);
    send(init_of(run.pid).expect("PID 1"), Signal::KILL);
    run.end().refused(125, "killed from outside");
    assert_eq!(place.snapshots().len(), 1);
    assert_eq!(watch::names(&place.base.join("runs")), Vec::<String>::new());
    place.pristine();
}

fn payload() {
    let place = Place::new();
    let run = start(&place, &["--commit", "never"], "touch /x; echo ready; sleep 1000; :");
    send(run.payload(), Signal::KILL);
    let said = run.end().code(137);
    assert!(said.err.contains("nothing kept"), "{said:?}");
    place.pristine();
}

/// The supervisor, PID 1 and whatever else shares its process group, all at once.
fn whole_group() {
    use std::os::unix::process::CommandExt;
    let place = Place::new();
    for _ in 0..10 * soak() {
        let mark = marker();
        let mut command = place.command(["run", "--", "sh", "-c", CHANGE]);
        command.env("MARK", &mark).process_group(0);
        let mut child = command.spawn().expect("start");
        sleep(Duration::from_micros(random() % 60_000));
        let group = Pid::from_raw(child.id() as i32).expect("pid");
        kill_process_group(group, Signal::KILL).expect("kill");
        child.wait().expect("wait");
        gone(&mark);
    }
    place.pristine();
}

/// What a user has kept survives a failed or killed attempt to go on with it.
fn kept_run() {
    let place = Place::new();
    let said = place.line(&["--keep-on-failure"], "echo precious >/file; exit 3").code(3);
    let id = said.err.split_whitespace().find(|word| word.starts_with("r-"));
    let id = id.expect("an id").trim_end_matches([':', '`']).to_owned();
    let still = |what: &str| {
        let left = watch::names(&place.base.join("runs"));
        assert_eq!(left, [id.as_str()], "the kept run is lost: {what}");
    };
    place.said(&["shell", "--run", &id, "--workdir", "/nowhere"]).refused(125, "/nowhere");
    still("the set-up failed");
    let mark = marker();
    let mut command = place.command(["shell", "--run", &id]);
    command.env("MARK", &mark).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().expect("start");
    until("the shell is there", || init_of(child.id() as i32));
    send(child.id() as i32, Signal::KILL);
    child.wait().expect("wait");
    gone(&mark);
    place.said(&["run", "--", "true"]).code(0);
    still("the supervisor was killed");
    // Killed between the layer and its name: the run waits for what it had become.
    for step in ["publish.rename.after", "log.append.after", "ref.rename.before"] {
        let mut command = place.command(["recover", &id, "--as", "saved"]);
        command.env("SANDBOX_FAIL", format!("{step}:kill"));
        assert_eq!(Said::from(command.output().expect("start")).code, 137);
        let disk = Disk::read(&place.base).sound(step);
        assert!(disk.kept.contains(&id), "{step}: the run is not kept: {disk:?}");
        place.said(&["gc"]).code(0);
        still(step);
    }
    place.said(&["recover", &id, "--as", "saved"]).code(0);
    place.line(&["--from", "saved"], "[ \"$(cat /file)\" = precious ]").code(0);
    place.pristine();
}
