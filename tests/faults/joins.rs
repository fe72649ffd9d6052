//! `exec`: on a terminal, and when something of it dies or stands still.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, wait};

use crate::Case;
use crate::pty::Terminal;
use crate::watch::{children, gone, marker, names, send, until};
use crate::world::Place;

pub(crate) const CASES: &[Case] = &[
    ("inside", inside),
    ("keys", keys),
    ("hang_up", hang_up),
    ("hang_up_ends_all", hang_up_ends_all),
    ("veiled", veiled),
    ("veiled_in_part", veiled_in_part),
    ("veiled_keys", veiled_keys),
    ("veiled_leftovers", veiled_leftovers),
    ("stopped_client", stopped_client),
    ("whole_group", whole_group),
    ("nobody_reaps", nobody_reaps),
    ("nobody_reaps_the_killed", nobody_reaps_the_killed),
];

/// A run that stays, `web`.
fn started(place: &Place) {
    place.said(&["start", "--name", "web", "--", "sleep", "1000"]).code(0);
}

/// A line in it, and the process that minds it.
fn execute(place: &Place, mark: &str, line: &str) -> (Child, i32) {
    let mut command = place.command(["exec", "web", "--", "sh", "-c", line]);
    command.env("MARK", mark).stdin(Stdio::null());
    let exec = command.spawn().expect("start");
    let minder = until("its process", || children(exec.id() as i32).first().copied());
    (exec, minder)
}

fn ended(place: &Place) {
    place.said(&["kill", "-s", "KILL", "web"]).code(0);
    empty(place);
}

fn empty(place: &Place) {
    until("the end of the run", || names(&place.base.join("runs")).is_empty().then_some(()));
    place.pristine();
}

fn inside() {
    let place = Place::new();
    started(&place);
    let terminal = Terminal::new();
    let before = terminal.settings();
    let line = "[ -t 0 ] && [ -t 1 ] && tty; stty size; \
        for fd in /proc/[0-9]*/fd/*; do readlink $fd; done; echo all-$((40 + 2)); \
        trap 'stty size' WINCH; while :; do sleep 0.05; done";
    let exec = terminal.start(&place, &["exec", "web", "--", "bash", "-c", line]);
    let shown = terminal.expect("all-42");
    assert!(shown.contains("/dev/pts/0") && shown.contains("30 100"), "{shown:?}");
    let host = terminal.path.to_str().expect("text");
    assert!(host == "/dev/pts/0" || !shown.contains(host), "{shown:?}");
    terminal.resize(51, 123);
    terminal.expect("51 123");
    send(exec.pid(), Signal::TERM);
    assert_eq!(exec.end(), 143);
    assert_eq!(terminal.settings(), before);
    // Without a terminal, if that is wished.
    let exec =
        terminal.start(&place, &["exec", "-T", "web", "--", "sh", "-c", "tty; echo $((1 + 1))"]);
    terminal.expect("not a tty");
    assert_eq!(exec.end(), 0);
    ended(&place);
}

fn keys() {
    let place = Place::new();
    started(&place);
    let terminal = Terminal::new();
    for (key, code) in [("\x03", 130), ("\x1c", 131)] {
        let words = ["exec", "web", "--", "sh", "-c", "echo up-$((1 + 1)); exec sleep 1000"];
        let exec = terminal.start(&place, &words);
        terminal.expect("up-2");
        terminal.write(key);
        assert_eq!(exec.end(), code);
    }
    ended(&place);
}

fn hang_up() {
    let place = Place::new();
    started(&place);
    for line in
        ["echo up; exec sleep 1000", "trap '' HUP TERM; echo up; while :; do sleep 0.1; done"]
    {
        let mut terminal = Terminal::new();
        let exec = terminal.start(&place, &["exec", "web", "--", "sh", "-c", line]);
        terminal.expect("up");
        terminal.hang_up();
        let code = exec.end();
        assert!([129, 137].contains(&code), "{code}");
    }
    // The run has not noticed.
    place.said(&["exec", "web", "--", "true"]).code(0);
    ended(&place);
}

/// What a command has started that ignores the end of its terminal goes with it when its time is over, also what a shell
/// has put into groups of its own.
fn hang_up_ends_all() {
    let place = Place::new();
    started(&place);
    for redirection in ["", "</dev/null"] {
        let mark = marker();
        let line = format!(
            "trap '' HUP TERM; sleeps() {{ bash -c 'exec -a {mark} sleep 1000' & }}; \
             sleeps; set -m; sleeps; set +m; echo up-$((1 + 1)); while :; do sleep 0.1; done"
        );
        let mut terminal = Terminal::new();
        let words = ["exec", "web", "--", "bash", "-c", &line];
        let exec = terminal.start_with(&place, &words, redirection);
        terminal.expect("up-2");
        let named = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(mark.as_bytes())
        };
        let both = || crate::watch::marked(&mark).iter().filter(|pid| named(pid)).count() == 2;
        until("its children", || both().then_some(()));
        terminal.hang_up();
        assert_eq!(exec.end(), 137);
        gone(&mark);
    }
    // Nothing else of the run has ended.
    place.said(&["exec", "web", "--", "true"]).code(0);
    ended(&place);
}

/// Without a terminal inside, what is typed and written still passes.
fn veiled() {
    let place = Place::new();
    started(&place);
    let terminal = Terminal::new();
    let before = terminal.settings();
    let line = "tty; for fd in /proc/[0-9]*/fd/*; do readlink $fd; done; echo all-$((40 + 2)); \
        stty raw; read word; echo got-$word; cat; echo own >/dev/stdout; echo err >&2; exit 3";
    let exec = terminal.start(&place, &["exec", "-T", "web", "--", "bash", "-c", line]);
    let shown = terminal.expect("all-42");
    assert!(shown.contains("not a tty") && shown.contains("pipe:"), "{shown:?}");
    let host = terminal.path.to_str().expect("text");
    assert!(!shown.contains(host) && !shown.contains("/dev/tty"), "{shown:?}");
    terminal.write("one\n");
    terminal.expect("got-one");
    terminal.write("two\n");
    // The terminal shows what is typed, and cat says it again.
    terminal.expect("two\r\n");
    terminal.expect("two\r\n");
    terminal.write("\x04");
    terminal.expect("own\r\nerr\r\n");
    assert_eq!(exec.end(), 3);
    assert_eq!(terminal.settings(), before);
    // All is shown before the end.
    let exec = terminal.start(&place, &["exec", "-T", "web", "--", "seq", "100000"]);
    assert_eq!(exec.end(), 0);
    terminal.expect("\n100000\r\n");
    ended(&place);
}

/// What is no terminal goes through as it is.
fn veiled_in_part() {
    let place = Place::new();
    started(&place);
    let terminal = Terminal::new();
    let file = place.base.with_file_name("said");
    let line =
        "for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done; echo said >&2; echo end-$((1 + 1))";
    let words = ["exec", "-T", "web", "--", "sh", "-c", line];
    let redirection = format!("</dev/null 2>{}", file.display());
    let exec = terminal.start_with(&place, &words, &redirection);
    let shown = terminal.expect("end-2");
    assert_eq!(exec.end(), 0);
    assert_eq!(shown.matches("pipe:").count(), 1, "{shown:?}");
    assert!(shown.contains("/dev/null") || shown.contains("/null"), "{shown:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("file"), "said\n");
    std::fs::remove_file(&file).expect("remove");
    ended(&place);
}

fn veiled_keys() {
    let place = Place::new();
    started(&place);
    let terminal = Terminal::new();
    for (key, code) in [("\x03", 130), ("\x1c", 131)] {
        let words = ["exec", "-T", "web", "--", "sh", "-c", "echo up-$((1 + 1)); exec sleep 1000"];
        let exec = terminal.start(&place, &words);
        terminal.expect("up-2");
        terminal.write(key);
        assert_eq!(exec.end(), code);
    }
    ended(&place);
}

/// A process that the command has left in the run has nothing of the terminal: it does not keep `exec` from ending, and
/// reads nothing that is typed later.
fn veiled_leftovers() {
    let place = Place::new();
    started(&place);
    let terminal = Terminal::new();
    let line =
        "exec 3<&0; (cat <&3 >/stolen; echo over >>/stolen; exec sleep 1000) & echo up-$((1 + 1))";
    let exec = terminal.start(&place, &["exec", "-T", "web", "--", "bash", "-c", line]);
    terminal.expect("up-2");
    assert_eq!(exec.end(), 0);
    terminal.write("secret\n");
    let line = "read word; echo mine-$word";
    let exec = terminal.start(&place, &["exec", "-T", "web", "--", "sh", "-c", line]);
    terminal.expect("mine-secret");
    assert_eq!(exec.end(), 0);
    until("the end of its input", || {
        let said = place.said(&["exec", "web", "--", "cat", "/stolen"]);
        (said.out == "over\n").then_some(())
    });
    ended(&place);
}

/// A client that stands still keeps neither the run from ending nor its pid namespace.
fn stopped_client() {
    let place = Place::new();
    started(&place);
    let mark = marker();
    let (mut exec, minder) = execute(&place, &mark, "exec sleep 1000");
    let pid = exec.id() as i32;
    until("the command", || children(minder).first().copied());
    send(pid, Signal::STOP);
    place.said(&["kill", "-s", "KILL", "web"]).code(0);
    until("the end of the command", || {
        children(pid)
            .is_empty()
            .then_some(())
            .or_else(|| (crate::watch::state(minder) == Some('Z')).then_some(()))
    });
    send(pid, Signal::CONT);
    let ended = until("the end", || exec.try_wait().expect("wait"));
    assert_eq!(ended.code(), Some(137));
    gone(&mark);
    empty(&place);
}

fn whole_group() {
    use std::os::unix::process::CommandExt;
    let place = Place::new();
    started(&place);
    let mark = marker();
    let mut exec = place
        .command(["exec", "web", "--", "sleep", "1000"])
        .env("MARK", &mark)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start");
    let pid = exec.id() as i32;
    let minder = until("its process", || children(pid).first().copied());
    until("the command", || children(minder).first().copied());
    let group = rustix::process::Pid::from_raw(pid).expect("pid");
    rustix::process::kill_process_group(group, Signal::KILL).expect("kill");
    until("the end", || exec.try_wait().expect("wait"));
    gone(&mark);
    place.said(&["exec", "web", "--", "true"]).code(0);
    ended(&place);
}

/// In a container whose first process reaps nobody, what `exec` leaves behind must not keep the pid namespace of the
/// run from ending: neither the process that answers for its command, nor one that looks whether the run is over.
fn nobody_reaps() {
    let all = WaitOptions::NOHANG;
    rustix::process::set_child_subreaper(Pid::from_raw(1)).expect("subreaper");
    let place = Place::new();
    let lines = [
        "true",
        "kill -9 $$",
        "touch /x; chown 4242424:7 /x",
        "sleep 1000 >/dev/null 2>&1 & exit 3",
    ];
    for round in 0..3 * crate::world::soak() {
        for (line, code) in lines.into_iter().zip([0, 137, 0, 3]) {
            started(&place);
            place.said(&["exec", "web", "--", "sh", "-c", line]).code(code);
            place.said(&["stop", "-t", "1", "web"]).code(0);
            until(&format!("the end after {line:?}, round {round}"), || {
                names(&place.base.join("runs")).is_empty().then_some(())
            });
        }
    }
    rustix::process::set_child_subreaper(None).expect("subreaper");
    while matches!(wait(all), Ok(Some(_))) {}
    place.pristine();
}

/// There, too, a SIGKILL of `exec`, or of the process that minds its command, ends the command, and the run can end.
fn nobody_reaps_the_killed() {
    rustix::process::set_child_subreaper(Pid::from_raw(1)).expect("subreaper");
    let place = Place::new();
    for killed in ["exec", "minder"] {
        started(&place);
        let mark = marker();
        let (mut exec, minder) = execute(&place, &mark, "sleep 1000 & exec sleep 1000");
        let pid = exec.id() as i32;
        until("the command", || {
            let command = children(minder).first().copied()?;
            (!children(command).is_empty()).then_some(())
        });
        send(if killed == "exec" { pid } else { minder }, Signal::KILL);
        let code = until("the end", || exec.try_wait().expect("wait")).code();
        assert!(code.is_none() == (killed == "exec"), "{killed}: {code:?}");
        // Of the minder only the command itself: what that has left behind goes on, as after any end of it.
        place.said(&["exec", "web", "--", "true"]).code(0);
        place.said(&["stop", "-t", "1", "web"]).code(0);
        until(&format!("the end of the run after {killed}"), || {
            names(&place.base.join("runs")).is_empty().then_some(())
        });
        gone(&mark);
    }
    rustix::process::set_child_subreaper(None).expect("subreaper");
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    place.pristine();
}
