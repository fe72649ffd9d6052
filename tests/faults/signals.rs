//! Signals to the supervisor reach the payload, and the exit code says what came of it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::Case;
use crate::watch::{self, children, gone, init_of, marker, random, send, state, until};
use crate::world::{Place, Said, soak};

pub(crate) const CASES: &[Case] = &[
    ("default_action", default_action),
    ("payload_decides", payload_decides),
    ("key_at_any_moment", key_at_any_moment),
    ("stop_and_continue", stop_and_continue),
    ("supervisor_stopped", supervisor_stopped),
    ("before_the_payload", before_the_payload),
    ("end_at_any_moment", end_at_any_moment),
    ("end_of_a_commit", end_of_a_commit),
    ("end_of_a_result", end_of_a_result),
    ("set_up_is_measured", set_up_is_measured),
    ("timeout_after_grace", timeout_after_grace),
    ("daemons_end", daemons_end),
    ("orphans_are_reaped", orphans_are_reaped),
];

/// A run that has said `ready`.
pub(crate) struct Started {
    pub(crate) child: Child,
    pub(crate) pid: i32,
    pub(crate) mark: String,
    pub(crate) output: BufReader<std::process::ChildStdout>,
}

/// Starts `run` of a shell line that says `ready` once it is there.
pub(crate) fn start(place: &Place, flags: &[&str], line: &str) -> Started {
    let mark = marker();
    let env = format!("MARK={mark}");
    let words = [&["run", "--env", &env], flags, &["--", "sh", "-c", line]].concat();
    let mut command = place.command(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start");
    let mut output = BufReader::new(child.stdout.take().expect("stdout"));
    let mut text = String::new();
    output.read_line(&mut text).expect("read");
    if text != "ready\n" {
        panic!("not ready: {:?}", Said::from(child.wait_with_output().expect("wait")));
    }
    let pid = child.id() as i32;
    Started { child, pid, mark, output }
}

impl Started {
    /// Waits for the end, and that nothing is left of it.
    #[track_caller]
    pub(crate) fn end(mut self) -> Said {
        let (mut out, mut err) = (String::new(), String::new());
        self.output.read_to_string(&mut out).expect("read");
        let stderr = self.child.stderr.as_mut().expect("stderr");
        stderr.read_to_string(&mut err).expect("read");
        let status = self.child.wait().expect("wait");
        gone(&self.mark);
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Said { code, out, err }
    }

    /// The payload, as the machine numbers it.
    pub(crate) fn payload(&self) -> i32 {
        let init = init_of(self.pid).expect("PID 1");
        *children(init).first().expect("payload")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Only a case that failed leaves it alive.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn default_action() {
    let place = Place::new();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1] {
        // No child between the line and the signal: a shell that waits for one leaves SIGINT to it, and goes on.
        let line = "touch /x; echo ready; exec sleep 1000";
        let run = start(&place, &["--commit", "never"], line);
        send(run.pid, signal);
        let said = run.end().code(128 + signal.as_raw());
        assert!(said.err.contains("nothing kept"), "{said:?}");
        assert_eq!(watch::held(&place.base), Vec::<std::path::PathBuf>::new());
    }
    assert_eq!(place.snapshots().len(), 1);
    place.pristine();
}

/// A key of the terminal goes to all of its foreground, the processes of the set-up included.
fn key_at_any_moment() {
    let place = Place::new();
    for _ in 0..40 * soak() {
        let mut command = place.command(["run", "--commit", "never", "--", "sleep", "1000"]);
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("start");
        std::thread::sleep(std::time::Duration::from_micros(random() % 60_000));
        let group = rustix::process::Pid::from_raw(child.id() as i32).expect("pid");
        rustix::process::kill_process_group(group, Signal::INT).expect("kill");
        Said::from(child.wait_with_output().expect("wait")).code(130);
    }
    place.said(&["ps"]).code(0);
    place.pristine();
}

fn payload_decides() {
    let place = Place::new();
    let wait = "echo ready; while :; do sleep 0.02; done";
    for (name, signal) in [("INT", Signal::INT), ("TERM", Signal::TERM), ("HUP", Signal::HUP)] {
        let run = start(&place, &[], &format!("trap 'echo caught; exit 7' {name}; {wait}"));
        send(run.pid, signal);
        assert!(run.end().code(7).out.contains("caught"));
    }
    // One that goes on after a signal, and ends well, is committed.
    let line = "trap 'go=no' TERM; echo ready; touch /y; while [ -z \"$go\" ]; do sleep 0.02; done";
    let run = start(&place, &["--commit", "kept"], line);
    send(run.pid, Signal::TERM);
    run.end().code(0);
    assert_eq!(place.snapshots().len(), 2);
    place.pristine();
}

fn stop_and_continue() {
    let place = Place::new();
    // One process: a shell that is stopped between vfork and exec is not seen as stopped.
    let run = start(&place, &[], "echo ready; exec sleep 1000");
    let payload = run.payload();
    send(run.pid, Signal::TSTP);
    until("the payload stops", || (state(payload) == Some('T')).then_some(()));
    until("the supervisor stops", || (state(run.pid) == Some('T')).then_some(()));
    send(run.pid, Signal::CONT);
    until("the payload goes on", || (state(payload) != Some('T')).then_some(()));
    until("the supervisor goes on", || (state(run.pid) != Some('T')).then_some(()));
    send(run.pid, Signal::TERM);
    run.end().code(143);
    place.pristine();
}

/// A payload that ends while its supervisor is stopped is told of afterwards.
fn supervisor_stopped() {
    let place = Place::new();
    let run = start(&place, &["--commit", "later"], "echo ready; touch /z; sleep 0.1; exit 0");
    let payload = run.payload();
    send(run.pid, Signal::STOP);
    until("the payload ends", || state(payload).is_none_or(|s| s == 'Z').then_some(()));
    send(run.pid, Signal::CONT);
    run.end().code(0);
    assert_eq!(place.snapshots().len(), 2);
    place.pristine();
}

/// SIGTERM at any moment: 143, or the command ended before.
fn before_the_payload() {
    let place = Place::new();
    for round in 0..25 * crate::world::soak() {
        let mark = marker();
        let env = format!("MARK={mark}");
        let words = ["run", "--env", &env, "--commit", "never", "--", "sleep", "1000"];
        let mut command = place.command(words);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let delay = round % 25 * 2000 + watch::random() % 2000;
        std::thread::sleep(std::time::Duration::from_micros(delay));
        send(child.id() as i32, Signal::TERM);
        Said::from(child.wait_with_output().expect("wait")).code(143);
        gone(&mark);
    }
    assert_eq!(place.snapshots().len(), 1);
    place.pristine();
}

fn timeout_after_grace() {
    let place = Place::new();
    let line = "trap '' TERM INT HUP; echo ready; while :; do sleep 0.1; done";
    let said = start(&place, &["--timeout", "3"], line).end().code(137);
    assert!(said.err.contains("--timeout"), "{said:?}");
    let said = start(&place, &["--timeout", "3"], "echo ready; sleep 1000").end().code(143);
    assert!(said.err.contains("--timeout"), "{said:?}");
    place.pristine();
}

fn daemons_end() {
    let place = Place::new();
    let daemon = "setsid sh -c 'sleep 1000 & sleep 1001' </dev/null >/dev/null 2>&1 &";
    let line = format!("(({daemon}) & ); trap '' HUP TERM; echo ready; exit 4");
    start(&place, &[], &line).end().code(4);
    place.pristine();
}

fn orphans_are_reaped() {
    let place = Place::new();
    let line = "echo ready
        for i in $(seq 60); do (sleep 0.01 &); done
        for try in $(seq 400); do
            zombies=0 count=0
            for file in /proc/[0-9]*/stat; do
                read -r line 2>/dev/null <$file || continue
                count=$((count + 1))
                case $line in *') Z '*) zombies=$((zombies + 1)) ;; esac
            done
            [ $zombies = 0 ] && [ $count -le 2 ] && exit 0
            sleep 0.02
        done
        exit 1";
    start(&place, &[], line).end().code(0);
    place.pristine();
}

/// What is told of a run.
struct Told {
    said: Said,
    report: serde_json::Value,
    made: bool,
}

impl Told {
    /// Of a command with `--report` and `--commit NAME` that has ended by itself, whatever came.
    #[track_caller]
    fn of(place: &Place, child: Child, name: &str) -> Self {
        let out = child.wait_with_output().expect("wait");
        assert_eq!(out.status.signal(), None, "{}", String::from_utf8_lossy(&out.stderr));
        let report = std::fs::read_to_string(place.work().join("report")).expect("report");
        let report = serde_json::from_str(&report).expect("a whole report");
        let made = place.snapshots().iter().any(|(one, _)| one == name);
        Self { said: Said::from(out).decent(), report, made }
    }

    /// Whether all agree on what has happened.
    #[track_caller]
    fn agrees(&self, name: &str) {
        let Self { said, report, made } = self;
        let seen = format!("{said:?} {report} {made}");
        assert!(report["run"].is_string(), "{seen}");
        assert_eq!(report["committed"].is_string(), *made, "{seen}");
        assert_eq!(said.err.contains(&format!("{name} -> ")), *made, "{seen}");
        assert_eq!(said.code == 0, *made, "{seen}");
        if !made {
            assert!(said.err.contains("nothing kept"), "{seen}");
        }
        if said.code > 128 && report["signal"].is_null() {
            assert_eq!((&report["exit"], &report["error"]), (&0.into(), &"interrupted".into()));
            assert!(said.err.contains("before the commit: nothing kept"), "{seen}");
        }
    }
}

/// Whatever comes when, what the exit code says is true of the snapshots and of the report.
fn end_at_any_moment() {
    let place = Place::new();
    let line = "mkdir /many; i=0; while [ $i -lt 500 ]; do echo $i >/many/$i; i=$((i+1)); done; echo ready";
    let (mut whole, mut codes) = (100_000, std::collections::BTreeSet::new());
    for round in 0..12 * soak() {
        let name = format!("s{round}");
        let flags = ["run", "--digest", "--report", "report", "--commit", &name];
        let words = [&flags[..], &["--out", "/many:out", "--", "sh", "-c", line]].concat();
        let mut command = place.command(words);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let mut text = String::new();
        let stdout = child.stdout.as_mut().expect("stdout");
        BufReader::new(stdout).read_line(&mut text).expect("read");
        let begun = std::time::Instant::now();
        let signal = [Signal::TERM, Signal::INT, Signal::HUP][round as usize % 3];
        if round > 0 {
            std::thread::sleep(std::time::Duration::from_micros(random() % whole));
            // It may have ended.
            let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("pid");
            rustix::process::kill_process(pid, signal).ok();
        }
        let told = Told::of(&place, child, &name);
        told.agrees(&name);
        // A result is whole, or not there.
        let out = place.work().join("out");
        let there = |dir: &std::path::Path| std::fs::read_dir(dir).map_or(0, Iterator::count);
        let whole_or_none = [(0, 0), (1, 500)].contains(&(there(&out), there(&out.join("many"))));
        assert!(whole_or_none && (there(&out) == 1 || !told.made), "{:?}", told.said);
        std::fs::remove_dir_all(&out).ok();
        assert!([0, 128 + signal.as_raw()].contains(&told.said.code), "{:?}", told.said);
        codes.insert(told.said.code);
        if round == 0 {
            whole = begun.elapsed().as_micros() as u64;
        }
    }
    assert!(codes.len() > 1, "nothing was ended: {codes:?}");
    place.pristine();
}

/// A commit is ended by a signal until its name is given, and not after that.
fn end_of_a_commit() {
    let place = Place::new();
    let steps = [
        ("publish.syncfs.before", true),
        ("publish.rename.after", true),
        ("ref.temp.fsync.after", false),
        ("ref.rename.after", false),
        ("discard.record.before", false),
    ];
    for (at, (step, ended)) in steps.into_iter().enumerate() {
        for keeps in [&[][..], &["--keep-on-failure"]] {
            let name = format!("s{at}{}", keeps.len());
            let words = ["run", "--report", "report", "--commit", &name];
            let words = [&words, keeps, &["--", "touch", "/x"]].concat();
            let mut command = place.command(words);
            command.env("SANDBOX_FAIL", format!("{step}:stop"));
            let child =
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
            let pid = child.id() as i32;
            until("it stands", || (state(pid) == Some('T')).then_some(()));
            send(pid, Signal::TERM);
            send(pid, Signal::CONT);
            let told = Told::of(&place, child, &name);
            assert_eq!(told.said.code, if ended { 143 } else { 0 }, "{step}: {:?}", told.said);
            if !ended || keeps.is_empty() {
                told.agrees(&name);
                assert_eq!(crate::watch::names(&place.base.join("runs")), Vec::<String>::new());
                continue;
            }
            assert!(!told.made, "{step}: {:?}", told.said);
            for line in ["ended by SIGTERM before the commit\n", "kept as r-"] {
                assert!(told.said.err.contains(line), "{step}: {:?}", told.said);
            }
            let run = told.report["run"].as_str().expect("run");
            place.said(&["recover", run, "--as", &name]).code(0);
            place.line(&["--from", &name], "[ -e /x ]").code(0);
        }
    }
    place.pristine();
}

/// A result that takes long to be copied out can be given up; nothing half-made is left of a file.
fn end_of_a_result() {
    let place = Place::new();
    let line = "dd if=/dev/zero of=/large bs=1M count=300 2>/dev/null; echo ready";
    for round in 0..4 {
        let name = format!("s{round}");
        let words = ["run", "--out", "/large:out", "--report", "report", "--commit", &name, "--"];
        let mut command = place.command([&words[..], &["sh", "-c", line]].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let out = place.work().join("out");
        until("it is copied", || out.exists().then_some(()));
        send(child.id() as i32, Signal::TERM);
        let told = Told::of(&place, child, &name);
        told.agrees(&name);
        let left = watch::names(&out);
        match told.said.code {
            0 => assert_eq!(left, ["large"]),
            143 => assert!(left.is_empty() || left == ["large"], "{left:?}"),
            _ => panic!("{:?}", told.said),
        }
        std::fs::remove_dir_all(&out).ok();
    }
    place.pristine();
}

/// What the report says of the set-up lasts until the command begins.
fn set_up_is_measured() {
    let place = Place::new();
    let mut command =
        place.command(["run", "--report", "report", "--commit", "made", "--", "true"]);
    command.env("SANDBOX_FAIL", "run.record.before:stop");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    let pid = child.id() as i32;
    until("it stands", || (state(pid) == Some('T')).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    send(pid, Signal::CONT);
    let told = Told::of(&place, child, "made");
    assert!(told.report["setup_us"].as_u64().expect("a number") >= 300_000, "{}", told.report);
    place.pristine();
}
