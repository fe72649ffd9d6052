//! Runs that stay: the terminal of whoever started them may go, and those who are attached may die; the
//! supervisor may not, or all dies with it.

use std::time::Duration;

use rustix::process::Signal;

use crate::Case;
use crate::pty::Terminal;
use crate::watch::{children, gone, init_of, marker, send, state, until};
use crate::world::{Place, Said};

pub(crate) const CASES: &[Case] = &[
    ("terminal", terminal),
    ("window_size", window_size),
    ("detached", detached),
    ("hang_up_of_starter", hang_up_of_starter),
    ("hang_up_of_attached", hang_up_of_attached),
    ("attached_is_killed", attached_is_killed),
    ("supervisor_is_killed", supervisor_is_killed),
    ("supervisor_is_stopped", supervisor_is_stopped),
    ("first_process_is_killed", first_process_is_killed),
    ("starter_is_killed", starter_is_killed),
    ("group_is_killed", group_is_killed),
    ("two_of_one_name", two_of_one_name),
    ("killed_at_its_end", killed_at_its_end),
];

/// Starts a line of the shell with a mark; the id of the run and the pid of its supervisor.
fn start(place: &Place, mark: &str, flags: &[&str], line: &str) -> (String, i32) {
    let mut command = place.command(["start", "--json", "-e", "MARK"]);
    command.env("MARK", mark).args(flags).args(["--", "sh", "-c", line]);
    let out = command.output().expect("start");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let pid = i32::try_from(said["pid"].as_i64().expect("pid")).expect("pid");
    (said["run"].as_str().expect("run").to_owned(), pid)
}

/// One field of every run that `ps` lists.
fn listed(place: &Place, field: &str) -> Vec<String> {
    let said = place.said(&["ps", "--json"]).code(0);
    let all: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    let text = |run: &serde_json::Value| run[field].as_str().expect("text").to_owned();
    all["runs"].as_array().expect("runs").iter().map(text).collect()
}

fn states(place: &Place) -> Vec<String> {
    listed(place, "state")
}

fn runs(place: &Place) -> Vec<String> {
    listed(place, "run")
}

fn logged(place: &Place, run: &str, text: &str) {
    until(text, || place.said(&["logs", run]).out.contains(text).then_some(()));
}

/// Stops all that is left, and looks for what must not be.
fn end(place: &Place, mark: &str, run: &str) {
    place.said(&["stop", "-t", "1", run]).code(0);
    gone(mark);
    place.pristine();
}

const FOR_EVER: &str = "while :; do sleep 0.05; done";

fn terminal() {
    let (place, terminal, mark) = (Place::new(), Terminal::new(), marker());
    let (run, _) = start(&place, &mark, &["-t"], "tty; exec bash --norc");
    logged(&place, &run, "/dev/pts/0");
    let before = terminal.settings();
    let attached = terminal.start(&place, &["attach", &run]);
    // The prompt was there before.
    terminal.expect("# ");
    terminal.write("[ -t 0 ] && echo all-$((40 + 2))\n");
    terminal.expect("all-42");
    terminal.write("sleep 1000\n");
    until("sleep", || terminal.shown().contains("sleep 1000\r\n").then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    terminal.write("\x03");
    terminal.expect("# ");
    terminal.write("echo code-$?; exit 9\n");
    terminal.expect("code-130");
    assert_eq!(attached.end(), 9);
    assert_eq!(terminal.settings(), before);
    gone(&mark);
    place.pristine();
}

fn window_size() {
    let (place, terminal, mark) = (Place::new(), Terminal::new(), marker());
    let line = "trap 'echo told' WINCH; while :; do stty size; sleep 0.05; done";
    let (run, _) = start(&place, &mark, &["-t"], line);
    logged(&place, &run, "24 80");
    let attached = terminal.start(&place, &["attach", &run]);
    terminal.expect("30 100");
    terminal.resize(51, 123);
    terminal.expect("told");
    terminal.expect("51 123");
    terminal.write("\x10\x11");
    assert_eq!(attached.end(), 0);
    end(&place, &mark, &run);
}

fn detached() {
    let (place, terminal, mark) = (Place::new(), Terminal::new(), marker());
    let (run, _) = start(&place, &mark, &["-t", "--name", "s"], "stty -echo; echo up; cat");
    logged(&place, &run, "up");
    let before = terminal.settings();
    for _ in 0..2 {
        let attached = terminal.start(&place, &["attach", "s"]);
        until("attached", || (terminal.settings() != before).then_some(()));
        terminal.write("a\x10b\n");
        terminal.expect("a\x10b");
        terminal.write("\x10");
        terminal.write("\x11");
        terminal.expect("runs on");
        assert_eq!(attached.end(), 0);
        assert_eq!(terminal.settings(), before);
    }
    let attached = terminal.start(&place, &["attach", "--detach-keys", "ctrl-]", "s"]);
    until("attached", || (terminal.settings() != before).then_some(()));
    terminal.write("\x1d");
    assert_eq!(attached.end(), 0);
    assert_eq!(states(&place), ["running"]);
    end(&place, &mark, &run);
}

/// ssh goes, and the run stays.
fn hang_up_of_starter() {
    for flags in [&[][..], &["-t"]] {
        let (place, mut terminal) = (Place::new(), Terminal::new());
        let line = format!("echo up; {FOR_EVER}");
        let words = [&["start", "--name", "s"], flags, &["--", "sh", "-c", &line]].concat();
        let starter = terminal.start(&place, &words);
        logged(&place, "s", "up");
        terminal.hang_up();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(states(&place), ["running"]);
        place.said(&["stop", "-t", "1", "s"]).code(0);
        assert_eq!(starter.end(), 0);
        place.pristine();
    }
}

fn hang_up_of_attached() {
    let (place, mark) = (Place::new(), marker());
    let (run, _) = start(&place, &mark, &["-t"], &format!("echo up; {FOR_EVER}"));
    let mut terminal = Terminal::new();
    let before = terminal.settings();
    let attached = terminal.start(&place, &["attach", &run]);
    until("attached", || (terminal.settings() != before).then_some(()));
    terminal.hang_up();
    attached.end();
    assert_eq!(states(&place), ["running"]);
    end(&place, &mark, &run);
}

fn attached_is_killed() {
    let (place, terminal, mark) = (Place::new(), Terminal::new(), marker());
    let (run, _) = start(&place, &mark, &["-t"], &format!("echo up; {FOR_EVER}"));
    let before = terminal.settings();
    let attached = terminal.start(&place, &["attach", &run]);
    until("attached", || (terminal.settings() != before).then_some(()));
    send(attached.pid(), Signal::KILL);
    assert_eq!(attached.end(), 137);
    // Its keeper gives the terminal back.
    until("restored", || (terminal.settings() == before).then_some(()));
    assert_eq!(states(&place), ["running"]);
    end(&place, &mark, &run);
}

fn supervisor_is_killed() {
    for flags in [&[][..], &["-t"], &["-i"]] {
        let (place, mark) = (Place::new(), marker());
        let line = format!("touch /file; setsid sleep 1000 & echo up; {FOR_EVER}");
        let (run, supervisor) = start(&place, &mark, flags, &line);
        logged(&place, &run, "up");
        assert_eq!(children(supervisor).len(), 1);
        send(supervisor, Signal::KILL);
        gone(&mark);
        place.no_mount_left();
        assert_eq!(states(&place), ["dead"]);
        // Other commands leave it alone.
        place.said(&["run", "--", "true"]).code(0);
        place.said(&["gc"]).code(0);
        assert_eq!(states(&place), ["dead"]);
        place.said(&["recover", &run, "--as", "saved"]).code(0);
        place.line(&["--from", "saved"], "[ -e /file ]").code(0);
        place.pristine();
    }
}

/// It answers nobody: who wants an end gets it, the others are told.
fn supervisor_is_stopped() {
    for end in [&["stop", "-t", "1"][..], &["kill"]] {
        let (place, mark) = (Place::new(), marker());
        let (run, supervisor) = start(&place, &mark, &["--keep-on-failure"], FOR_EVER);
        send(supervisor, Signal::STOP);
        until("stopped", || (state(supervisor) == Some('T')).then_some(()));
        for words in [&["exec", &run, "--", "true"][..], &["wait", &run], &["attach", &run]] {
            let said = place.said(words).refused(125, "is stopped");
            assert!(said.err.contains(&format!("kill -CONT {supervisor}")), "{}", said.err);
        }
        place.said(&[end, &[&run]].concat()).code(0);
        gone(&mark);
        until("it is kept", || (states(&place) == ["kept"]).then_some(()));
        place.said(&["rm", "--run", &run]).code(0);
        place.pristine();
    }
}

fn first_process_is_killed() {
    let (place, mark) = (Place::new(), marker());
    let (run, supervisor) = start(&place, &mark, &["--commit", "never"], FOR_EVER);
    let mut waiting = place.command(["wait", &run]);
    let waiting = waiting.stderr(std::process::Stdio::piped()).spawn().expect("start");
    std::thread::sleep(Duration::from_millis(100));
    send(init_of(supervisor).expect("PID 1"), Signal::KILL);
    gone(&mark);
    Said::from(waiting.wait_with_output().expect("wait")).refused(125, "killed from outside");
    assert_eq!(place.snapshots().len(), 1);
    place.pristine();
}

/// Nobody knows of a run whose starter did not live to hear of it.
fn starter_is_killed() {
    let place = Place::new();
    for turn in 0..30 {
        let mark = marker();
        let mut command = place.command(["start", "-e", "MARK", "--", "sleep", "1000"]);
        command.env("MARK", &mark).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("start");
        std::thread::sleep(Duration::from_millis(turn * 2));
        child.kill().expect("kill");
        let out = child.wait_with_output().expect("wait");
        let told = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        // Either the run is as if it never was, or it is whole, and can be found.
        let mut stopped = false;
        until("an end or a beginning", || match runs(&place).first() {
            None => crate::watch::marked(&mark).is_empty().then_some(()),
            Some(run) => {
                stopped |= place.said(&["stop", "-t", "0", run]).code == 0;
                None
            }
        });
        assert!(stopped || told.is_empty(), "{told} is lost");
        gone(&mark);
    }
    place.said(&["gc"]).code(0);
    place.pristine();
}

/// What kills a whole process group (a job of a shell, `timeout`) does not find the run.
fn group_is_killed() {
    use std::os::unix::process::CommandExt;
    let (place, mark) = (Place::new(), marker());
    let mut command = place.command(["start", "--name", "s", "-e", "MARK", "--", "sleep", "1000"]);
    command.env("MARK", &mark).process_group(0);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("start");
    child.wait().expect("wait");
    let group = rustix::process::Pid::from_raw(child.id() as i32).expect("pid");
    // Nobody is left in it.
    rustix::process::kill_process_group(group, Signal::KILL).expect_err("an empty group");
    assert_eq!(states(&place), ["running"]);
    end(&place, &mark, "s");
}

fn two_of_one_name() {
    let place = Place::new();
    for _ in 0..5 {
        let begin = || {
            let mut command = place.command(["start", "--name", "s", "--", "sleep", "1000"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().expect("start")
        };
        let children = [begin(), begin(), begin()];
        let mut codes: Vec<_> = children
            .into_iter()
            .map(|child| child.wait_with_output().expect("wait").status.code().expect("code"))
            .collect();
        codes.sort_unstable();
        assert_eq!(codes, [0, 125, 125]);
        assert_eq!(states(&place), ["running"]);
        place.said(&["stop", "-t", "0", "s"]).code(0);
    }
    place.pristine();
}

/// A supervisor that is killed while it leaves what is left of a run, and takes the run away: the run is dead, or
/// it has ended as it did, and never both or neither.
fn killed_at_its_end() {
    const STEPS: [&str; 9] = [
        "ended.temp",
        "ended.log",
        "ended.rename",
        "discard.fs",
        "discard.work",
        "discard.layer",
        "discard.record",
        "discard.lock",
        "discard.run",
    ];
    let place = Place::new();
    let mut seen = std::collections::BTreeSet::new();
    for step in STEPS {
        for side in ["before", "after"] {
            let at = format!("{step}.{side}");
            let mut command = place.command(["start", "--name", "s", "--"]);
            command
                .args(["sh", "-c", "echo out; exit 3"])
                .env("SANDBOX_FAIL", format!("{at}:kill"));
            let said = Said::from(command.output().expect("start")).code(0);
            let run = said.out.trim();
            // Its supervisor is gone.
            until("the end", || {
                (!runs(&place).contains(&run.to_owned()) || states(&place) == ["dead"])
                    .then_some(())
            });
            let listed = place.said(&["ps", "--all", "--json"]).code(0);
            let listed: serde_json::Value = serde_json::from_str(&listed.out).expect("JSON");
            let ours = listed["runs"].as_array().expect("runs").iter();
            let states: Vec<_> =
                ours.filter(|one| one["run"] == run).map(|one| &one["state"]).collect();
            let waited = place.said(&["wait", run]);
            match states.as_slice() {
                [state] if *state == "ended" => {
                    assert_eq!(waited.code, 3, "{at}: {waited:?}");
                    assert_eq!(place.said(&["logs", "s"]).code(0).out, "out\n", "{at}");
                }
                [state] if *state == "dead" => {
                    drop(waited.refused(125, "was killed"));
                    assert_eq!(place.said(&["logs", run]).code(0).out, "out\n", "{at}");
                }
                other => panic!("{at}: {other:?}"),
            }
            seen.insert((states[0].as_str().map(str::to_owned), step));
            place.said(&["fsck"]).code(0);
            place.said(&["gc"]).code(0);
            if states[0] == "dead" {
                // Nobody takes it away but who is told to.
                assert_eq!(runs(&place), [run], "{at}");
                place.said(&["rm", "--run", run]).code(0);
                // Its log may lie in the store by now.
                place.said(&["gc"]).code(0);
            }
            crate::disk::Disk::read(&place.base).clean(&at);
            place.said(&["fsck"]).code(0);
        }
    }
    // Each step was one of the run's, and both have occurred.
    assert!(seen.iter().any(|(state, _)| state.as_deref() == Some("dead")), "{seen:?}");
    assert!(seen.contains(&(Some("ended".to_owned()), "discard.run")), "{seen:?}");
    place.pristine();
}
