//! A terminal as people use it: inside is one of the sandbox's own, outside is as it was before, always.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::Case;
use crate::pty::Terminal;
use crate::watch::{children, init_of, send, ticks, until};
use crate::world::Place;

pub(crate) const CASES: &[Case] = &[
    ("inside", inside),
    ("window_size", window_size),
    ("interrupt", interrupt),
    ("job_control", job_control),
    ("asked_at_the_end", asked_at_the_end),
    ("restored", restored),
    ("restored_after_kill", restored_after_kill),
    ("hang_up", hang_up),
    ("hang_up_elsewhere", hang_up_elsewhere),
    ("much_output", much_output),
    ("input_from_pipe", input_from_pipe),
    ("output_to_pipe", output_to_pipe),
    ("end_of_input", end_of_input),
    ("nobody_reads", nobody_reads),
    ("left_by_payload", left_by_payload),
    ("no_other_descriptor", no_other_descriptor),
];

fn inside() {
    let place = Place::new();
    let terminal = Terminal::new();
    let line = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && tty && echo via-$((1 + 1)) >/dev/tty; \
        for fd in /proc/[0-9]*/fd/*; do readlink $fd; done; echo all-$((40 + 2))";
    let run = terminal.start(&place, &["run", "--", "sh", "-c", line]);
    let shown = terminal.expect("all-42");
    assert!(shown.contains("/dev/pts/0") && shown.contains("via-2"), "{shown:?}");
    let host = terminal.path.to_str().expect("text");
    assert!(host == "/dev/pts/0" || !shown.contains(host), "{shown:?}");
    assert_eq!(run.end(), 0);
    place.pristine();
}

fn window_size() {
    let place = Place::new();
    let terminal = Terminal::new();
    let line = "trap 'echo told' WINCH; while :; do stty size; sleep 0.05; done";
    let run = terminal.start(&place, &["run", "--", "bash", "-c", line]);
    terminal.expect("30 100");
    terminal.resize(51, 123);
    terminal.expect("told");
    terminal.expect("51 123");
    terminal.resize(7, 9);
    terminal.expect("7 9");
    send(run.pid(), Signal::TERM);
    assert_eq!(run.end(), 143);
}

/// The shell becomes the sleeper: one that is just making a child may lose the key (dash, while it vforks).
fn interrupt() {
    let place = Place::new();
    let terminal = Terminal::new();
    for (key, code) in [("\x03", 130), ("\x1c", 131)] {
        let run = terminal
            .start(&place, &["run", "--", "sh", "-c", "echo up-$((1 + 1)); exec sleep 1000"]);
        terminal.expect("up-2");
        terminal.write(key);
        assert_eq!(run.end(), code);
    }
    place.pristine();
}

fn job_control() {
    let place = Place::new();
    let terminal = Terminal::new();
    let before = terminal.settings();
    let shell = terminal.start(&place, &["shell"]);
    terminal.write("echo ready-$((1 + 1))\n");
    terminal.expect("ready-2");
    terminal.write("sleep 1000\n");
    until("the sleeper is there", || {
        let payload = *children(init_of(shell.pid())?).first()?;
        let words = fs::read(format!("/proc/{}/cmdline", children(payload).first()?)).ok()?;
        words.starts_with(b"sleep").then_some(())
    });
    terminal.write("\x1a");
    terminal.expect("Stopped");
    terminal.write("jobs; echo listed-$((1 + 1))\n");
    assert!(terminal.expect("listed-2").contains("Stopped"));
    terminal.write("fg\n");
    terminal.expect("fg\r\nsleep 1000");
    terminal.write("\x03");
    terminal.write("echo alive-$((40 + 2))\n");
    terminal.expect("alive-42");
    terminal.write("exit 3\n");
    assert_eq!(shell.end(), 3);
    assert_eq!(terminal.settings(), before);
    place.pristine();
}

fn asked_at_the_end() {
    let place = Place::new();
    for (answers, kept) in [(&["n"][..], 1), (&["no"], 1), (&["y", "kept"], 2), (&[""], 1)] {
        let terminal = Terminal::new();
        let shell = terminal.start(&place, &["shell"]);
        terminal.write("touch /file; exit\n");
        for answer in answers {
            terminal.expect("to drop it:");
            terminal.write(&format!("{answer}\n"));
        }
        assert_eq!(shell.end(), 0);
        assert_eq!(place.snapshots().len(), kept, "{answers:?}");
        place.said(&["rm", "kept"]);
    }
    place.pristine();
}

fn restored() {
    let place = Place::new();
    let terminal = Terminal::new();
    let before = terminal.settings();
    let wait = "echo up-$((1 + 1)); exec sleep 1000";
    let ends: &[(&[&str], i32)] = &[
        (&["run", "--", "true"], 0),
        (&["run", "--", "sh", "-c", "stty raw -echo; exit 9"], 9),
        (&["run", "--", "sh", "-c", "kill -9 $$"], 137),
        (&["run", "--", "no-such-command"], 127),
        (&["run", "--", "/etc/passwd"], 126),
        (&["run", "--from", "nowhere", "--", "true"], 125),
        (&["run", "--workdir", "/nowhere", "--", "true"], 125),
        (&["run", "--user", "nobody", "--", "true"], 125),
        (&["run", "--commit", "c", "--", "touch", "/x"], 0),
    ];
    for (words, code) in ends {
        let run = terminal.start(&place, words);
        assert_eq!(run.end(), *code, "{words:?}: {}", terminal.shown());
        assert_eq!(terminal.settings(), before, "{words:?}");
    }
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let run = terminal.start(&place, &["run", "--", "sh", "-c", wait]);
        terminal.expect("up-2");
        assert_ne!(terminal.settings(), before, "it was never raw");
        send(run.pid(), signal);
        assert_eq!(run.end(), code);
        assert_eq!(terminal.settings(), before);
    }
    let run = terminal.start(&place, &["run", "--", "sh", "-c", wait]);
    terminal.expect("up-2");
    send(init_of(run.pid()).expect("PID 1"), Signal::KILL);
    assert_eq!(run.end(), 125);
    assert_eq!(terminal.settings(), before);
    assert!(!terminal.shown().contains("panicked"));
    place.pristine();
}

fn restored_after_kill() {
    let place = Place::new();
    let terminal = Terminal::new();
    let before = terminal.settings();
    for round in 0..8 * crate::world::soak() {
        let run = terminal
            .start(&place, &["run", "--", "sh", "-c", "echo up-$((1 + 1)); exec sleep 1000"]);
        if round % 2 == 0 {
            terminal.expect("up-2");
        } else {
            std::thread::sleep(Duration::from_micros(crate::watch::random() % 40_000));
        }
        send(run.pid(), Signal::KILL);
        assert_eq!(run.end(), 137);
        until("the terminal is restored", || (terminal.settings() == before).then_some(()));
    }
    place.pristine();
}

fn hang_up() {
    let place = Place::new();
    for line in
        ["echo up; exec sleep 1000", "trap '' HUP TERM; echo up; while :; do sleep 0.1; done"]
    {
        let mut terminal = Terminal::new();
        let run = terminal.start(&place, &["run", "--", "sh", "-c", line]);
        terminal.expect("up");
        terminal.hang_up();
        let code = run.end();
        assert!([129, 137].contains(&code), "{code}");
    }
    place.pristine();
}

/// On a terminal that does not control us nobody sends SIGHUP.
fn hang_up_elsewhere() {
    let place = Place::new();
    let mut terminal = Terminal::new();
    let mark = crate::watch::marker();
    let mut command = place.command(["run", "--", "sh", "-c", "echo up; exec sleep 1000"]);
    command.env("MARK", &mark);
    command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    let mut child = command.spawn().expect("start");
    drop(command);
    terminal.expect("up");
    terminal.hang_up();
    until("it ends", || child.try_wait().expect("wait"));
    crate::watch::gone(&mark);
    place.pristine();
}

fn much_output() {
    let place = Place::new();
    let terminal = Terminal::new();
    let line = "stty -opost; dd if=/dev/zero bs=1M count=10 status=none; echo whole-$((40 + 2))";
    let run = terminal.start(&place, &["run", "--", "sh", "-c", line]);
    let shown = terminal.expect("whole-42");
    assert_eq!(shown.bytes().filter(|byte| *byte == 0).count(), 10 << 20);
    assert_eq!(run.end(), 0);
    // The last words of a command that ends at once arrive, too.
    for round in 0..20 {
        let line = format!("seq 2000; echo last-$(({round} + 1000))");
        let run = terminal.start(&place, &["run", "--", "sh", "-c", &line]);
        assert_eq!(run.end(), 0);
        let shown = terminal.expect(&format!("last-{}", round + 1000));
        assert!(shown.contains("1999\r\n2000\r\n"), "{} bytes", shown.len());
    }
}

fn input_from_pipe() {
    let place = Place::new();
    let terminal = Terminal::new();
    let before = terminal.settings();
    let input = place.work().join("input");
    fs::write(&input, "from-a-file\n").expect("write");
    let line = "[ -t 0 ] || echo no-terminal; [ -t 1 ] && read -r x && echo got-$x; exit 6";
    let mut command = terminal.control(&place.command(["run", "--", "sh", "-c", line]));
    // setsid(1) takes the controlling terminal from its standard input.
    let script = "exec \"$@\" <input";
    let words: Vec<_> = command.get_args().skip(1).map(ToOwned::to_owned).collect();
    let mut wrapped = std::process::Command::new("setsid");
    wrapped.args(["--ctty", "sh", "-c", script, "sh"]).args(words);
    wrapped.env("SANDBOX_BASE_DIR", &place.base).current_dir(place.work());
    wrapped.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    assert_eq!(wrapped.status().expect("run").code(), Some(6), "{}", terminal.shown());
    terminal.expect("no-terminal\r\ngot-from-a-file\r\n");
    assert_eq!(terminal.settings(), before);
    command.stdin(Stdio::null());
}

fn output_to_pipe() {
    let place = Place::new();
    let terminal = Terminal::new();
    let before = terminal.settings();
    let line = "[ -t 0 ] && [ ! -t 1 ] && read -r x && printf 'got-%s\\n' $x; seq 3";
    let mut command = terminal.control(&place.command(["run", "--", "sh", "-c", line]));
    let child = command.stdout(Stdio::piped()).spawn().expect("start");
    terminal.write("typed\n");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got-typed\n1\n2\n3\n");
    assert_eq!(terminal.settings(), before);
}

fn end_of_input() {
    let place = Place::new();
    let terminal = Terminal::new();
    let run =
        terminal.start(&place, &["run", "--", "sh", "-c", "cat; echo over-$((1 + 1)); exit 2"]);
    terminal.write("one line\n");
    terminal.expect("one line\r\none line\r\n");
    terminal.write("\x04");
    terminal.expect("over-2");
    assert_eq!(run.end(), 2);
}

/// A terminal that takes nothing more holds the payload up, but neither signals nor the time-out.
fn nobody_reads() {
    let place = Place::new();
    let terminal = Terminal::unread();
    let line = "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done";
    // Long enough to be under way on a busy machine: what has not begun is killed at once.
    let words = ["run", "--timeout", "3", "--", "bash", "-c", line];
    let mut command = terminal.control(&place.command(words));
    let mut child = command.stderr(Stdio::null()).spawn().expect("start");
    let ended = until("the time-out ends it", || child.try_wait().expect("wait"));
    assert_eq!(ended.code(), Some(143));
    // Output that fits the terminal's buffer no more, and then a signal.
    let words = ["run", "--", "bash", "-c", "seq 20000; touch /tmp/x; exit 0"];
    let mut command = terminal.control(&place.command(words));
    let mut child = command.stderr(Stdio::null()).spawn().expect("start");
    std::thread::sleep(Duration::from_millis(300));
    send(child.id() as i32, Signal::TERM);
    let ended = until("the signal ends it", || child.try_wait().expect("wait"));
    assert_eq!(ended.code(), Some(143));
    place.pristine();
}

/// A payload that has let go of its terminal costs no time, and may come back to it.
fn left_by_payload() {
    let place = Place::new();
    let terminal = Terminal::new();
    let line = "echo up-$((1 + 1)); exec </dev/null >/dev/null 2>&1; sleep 1; echo back-$((2 + 3)) >/dev/tty";
    let run = terminal.start(&place, &["run", "--", "sh", "-c", line]);
    terminal.expect("up-2");
    let pid = run.pid();
    let begun = ticks(pid);
    std::thread::sleep(Duration::from_millis(600));
    let used = ticks(pid) - begun;
    terminal.expect("back-5");
    assert_eq!(run.end(), 0);
    assert!(used < 20, "{used} ticks of waiting for nothing");
}

/// The terminal outside is not given by another number either.
fn no_other_descriptor() {
    let place = Place::new();
    let terminal = Terminal::new();
    for words in [
        &["run", "--preserve-fd", "7", "--", "true"][..],
        &["start", "--preserve-fd", "7", "--", "true"],
    ] {
        let run = terminal.start_with(&place, words, "7<&0");
        terminal.expect("7: it is a terminal");
        assert!([2, 125].contains(&run.end()));
    }
    let run =
        terminal.start_with(&place, &["run", "--preserve-fd", "7", "--", "true"], "7</dev/null");
    assert_eq!(run.end(), 0);
    place.pristine();
}
