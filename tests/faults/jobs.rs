//! ^Z, fg and bg of a shell outside: a command in a sandbox is a job like any other.

use std::process::{Child, Command};

use rustix::process::Signal;

use crate::Case;
use crate::pty::Terminal;
use crate::watch::{children, init_of, marker, send, state, until};
use crate::world::Place;

pub(crate) const CASES: &[Case] = &[
    ("stopped_and_continued", stopped_and_continued),
    ("stopped_from_outside", stopped_from_outside),
    ("stops_itself", stops_itself),
    ("in_the_background", in_the_background),
    ("a_pipeline", a_pipeline),
    ("killed_while_stopped", killed_while_stopped),
    ("joined", joined),
    ("joined_without_terminal", joined_without_terminal),
    ("nobody_to_continue_it", nobody_to_continue_it),
    ("others_go_on", others_go_on),
    ("the_terminal_goes", the_terminal_goes),
    ("watched", watched),
    ("attached", attached),
];

/// A shell with job control, outside.
struct Shell<'a> {
    place: &'a Place,
    terminal: &'a Terminal,
    shell: Child,
    mark: String,
    /// How it names what it sees of a line that it was told to print.
    count: std::cell::Cell<u32>,
}

impl<'a> Shell<'a> {
    fn new(place: &'a Place, terminal: &'a Terminal) -> Self {
        let like = place.command(["list"]);
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile", "-i"]);
        for (key, value) in like.get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        let mark = marker();
        command.env("MARK", &mark).env("PS1", "outside> ").env("TERM", "dumb").env("HISTFILE", "");
        let shell = terminal.control(&command).spawn().expect("a shell");
        let found = Self { place, terminal, shell, mark, count: 1.into() };
        found.says("echo here", "here");
        found
    }

    /// Types a line at the prompt: what is typed before it would be the job's.
    fn types(&self, line: &str) {
        self.terminal.expect("outside> ");
        self.terminal.write(&format!("{line}\n"));
    }

    /// Types a line, and waits for what it prints, which must not be in the line.
    fn says(&self, line: &str, shown: &str) {
        let number = self.count.replace(self.count.get() + 1);
        self.types(&format!("{line}; echo end-$(({number} * 1000))"));
        let all = self.terminal.expect(&format!("end-{}", number * 1000));
        assert!(all.contains(shown), "{line}: {all:?}");
    }

    /// A line that runs a command in a sandbox.
    fn line(&self, words: &[&str]) -> String {
        let command = self.place.command(words);
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().expect("text"));
        let all: Vec<_> =
            [command.get_program()].into_iter().chain(command.get_args()).map(quoted).collect();
        all.join(" ")
    }

    /// The command that runs in a sandbox by our side, by its first word.
    fn payload(&self, word: &str) -> i32 {
        until(word, || {
            children(self.shell.id() as i32).into_iter().find_map(|job| {
                let payload = *children(init_of(job)?).first()?;
                let words = std::fs::read(format!("/proc/{payload}/cmdline")).ok()?;
                words.starts_with(word.as_bytes()).then_some(payload)
            })
        })
    }

    fn exit(mut self) {
        self.types("exit");
        until("the shell's end", || self.shell.try_wait().expect("wait"));
        crate::watch::gone(&self.mark);
    }
}

fn is(pid: i32, wanted: char) {
    until(&format!("{pid} is {wanted}"), || (state(pid) == Some(wanted)).then_some(()));
}

fn stopped_and_continued() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let shell = Shell::new(&place, &terminal);
    for _ in 0..2 {
        shell.types(&shell.line(&["run", "--", "sleep", "1000"]));
        let payload = shell.payload("sleep");
        terminal.write("\x1a");
        terminal.expect("Stopped");
        is(payload, 'T');
        // The terminal is the shell's again.
        shell.says("stty -a", " icanon");
        shell.types("fg");
        is(payload, 'S');
        terminal.write("\x03");
        shell.says("echo code-$?", "code-130");
    }
    shell.exit();
    place.pristine();
}

fn stopped_from_outside() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let shell = Shell::new(&place, &terminal);
    let run = shell.line(&["run", "--", "sleep", "1000"]);
    for line in [
        run.clone(),
        format!("{run} </dev/null | cat"),
        format!("{run} </dev/null >/dev/null 2>&1"),
    ] {
        shell.types(&line);
        let payload = shell.payload("sleep");
        let supervisor = children(shell.shell.id() as i32)[0];
        send(supervisor, Signal::TSTP);
        is(payload, 'T');
        is(supervisor, 'T');
        if line.contains('|') {
            let reader = *children(shell.shell.id() as i32).last().expect("cat");
            send(reader, Signal::TSTP);
        }
        terminal.expect("Stopped");
        shell.types("fg");
        is(payload, 'S');
        send(supervisor, Signal::TERM);
        shell.says("echo over", "over");
    }
    shell.exit();
    place.pristine();
}

/// As an editor does, by the signal or as bash's `suspend` does.
fn stops_itself() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let shell = Shell::new(&place, &terminal);
    for line in ["kill -TSTP 0", "kill -STOP $$"] {
        let line = format!("{line}; echo went-$((40 + 2)) on; exit 7");
        shell.types(&shell.line(&["run", "--", "sh", "-c", &line]));
        terminal.expect("Stopped");
        shell.says("jobs", "Stopped");
        shell.types("fg");
        terminal.expect("went-42 on");
        shell.says("echo code-$?", "code-7");
    }
    shell.types(&shell.line(&["shell"]));
    terminal.expect("# ");
    terminal.write("suspend\n");
    terminal.expect("Stopped");
    shell.types("fg");
    terminal.write("echo again-$((1 + 1)); exit 5\n");
    terminal.expect("again-2");
    shell.says("echo code-$?", "code-5");
    shell.exit();
    place.pristine();
}

fn in_the_background() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let shell = Shell::new(&place, &terminal);
    // Begun there, it does not touch the terminal, and what is typed is the shell's.
    let read = "echo be-$((1 + 1)); read word; echo got-$word";
    shell.types(&format!("{} &", shell.line(&["run", "--", "sh", "-c", read])));
    terminal.expect("be-2");
    // The prompt may have been there before.
    terminal.write("\n");
    shell.says("stty -a", " icanon");
    shell.says("jobs", "Running");
    shell.types("fg");
    // The shell, too, sets its terminal so while it reads a line.
    terminal.expect("read word");
    until("raw", || (!terminal.settings().contains("ICANON")).then_some(()));
    terminal.write("word\r");
    terminal.expect("got-word");
    shell.says("echo code-$?", "code-0");
    // Stopped, it goes on there, and comes back.
    shell.types(&shell.line(&["run", "--", "sleep", "1000"]));
    let payload = shell.payload("sleep");
    terminal.write("\x1a");
    terminal.expect("Stopped");
    shell.types("bg");
    is(payload, 'S');
    shell.says("stty -a; jobs", "Running");
    shell.types("fg");
    std::thread::sleep(std::time::Duration::from_millis(500));
    terminal.write("\x03");
    shell.says("echo code-$?", "code-130");
    shell.exit();
    place.pristine();
}

/// All of it is stopped, as by a key that reached all of it.
fn a_pipeline() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let shell = Shell::new(&place, &terminal);
    shell.types(&format!("{} | cat", shell.line(&["run", "--", "sleep", "1000"])));
    let payload = shell.payload("sleep");
    terminal.write("\x1a");
    terminal.expect("Stopped");
    is(payload, 'T');
    shell.types("fg");
    is(payload, 'S');
    terminal.write("\x03");
    shell.says("echo over", "over");
    shell.exit();
    place.pristine();
}

fn killed_while_stopped() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let shell = Shell::new(&place, &terminal);
    for kill in ["kill -9 %1", "kill %1; fg"] {
        shell.types(&shell.line(&["run", "--", "sleep", "1000"]));
        let payload = shell.payload("sleep");
        terminal.write("\x1a");
        terminal.expect("Stopped");
        is(payload, 'T');
        shell.types(kill);
        until("the payload's end", || state(payload).is_none().then_some(()));
        shell.says("stty -a", " icanon");
    }
    shell.exit();
    place.pristine();
}

fn joined() {
    let (place, terminal) = (Place::new(), Terminal::new());
    place.said(&["start", "--name", "j", "--", "sleep", "1000"]).code(0);
    let shell = Shell::new(&place, &terminal);
    shell.types(&shell.line(&[
        "exec",
        "j",
        "--",
        "sh",
        "-c",
        "echo up-$((1 + 1)); exec sleep 100",
    ]));
    terminal.expect("up-2");
    let joined = children(shell.shell.id() as i32)[0];
    let payload = children(joined).into_iter().find_map(|pid| children(pid).first().copied());
    let payload = payload.expect("who joins has a child, and the terminal's keeper has none");
    terminal.write("\x1a");
    terminal.expect("Stopped");
    is(payload, 'T');
    shell.says("stty -a", " icanon");
    shell.types("fg");
    is(payload, 'S');
    terminal.write("\x03");
    shell.says("echo code-$?", "code-130");
    shell.exit();
    place.said(&["stop", "-t", "0", "j"]).code(0);
    place.pristine();
}

/// In the background of a terminal that its command does not have, `exec` takes nothing that is typed.
fn joined_without_terminal() {
    let (place, terminal) = (Place::new(), Terminal::new());
    place.said(&["start", "--name", "web", "--", "sleep", "1000"]).code(0);
    let shell = Shell::new(&place, &terminal);
    shell.types(&format!("{} &", shell.line(&["exec", "-T", "web", "--", "cat"])));
    shell.says("echo typed-$((1 + 1))", "typed-2");
    shell.says("echo typed-$((1 + 2))", "typed-3");
    shell.types("fg");
    terminal.expect("'cat'");
    terminal.write("word\n");
    terminal.expect("word\r\n");
    terminal.expect("word\r\n");
    terminal.write("\x1a");
    terminal.expect("Stopped");
    shell.says("echo typed-$((1 + 3))", "typed-4");
    shell.types("fg");
    terminal.expect("'cat'");
    terminal.write("more\n");
    terminal.expect("more\r\n");
    terminal.expect("more\r\n");
    terminal.write("\x04");
    shell.says("echo code-$?", "code-0");
    shell.exit();
    place.said(&["kill", "-s", "KILL", "web"]).code(0);
    until("the end of the run", || {
        crate::watch::names(&place.base.join("runs")).is_empty().then_some(())
    });
    place.pristine();
}

/// Without a shell around it (`ssh -t host sandbox run …`, the first process of a container) it goes on at once.
fn nobody_to_continue_it() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let line = "echo up-$((1 + 1)); kill -TSTP 0; kill -STOP $$; echo on-$((1 + 1)); exit 6";
    let run = terminal.start(&place, &["run", "--", "sh", "-c", line]);
    terminal.expect("up-2");
    terminal.expect("on-2");
    assert_eq!(run.end(), 6);
    place.pristine();
}

/// Nobody but a key stops who is in the group of its caller, such as one that watches it.
fn others_go_on() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let shell = Shell::new(&place, &terminal);
    let run = shell.line(&["run", "--", "sh", "-c", "kill -STOP $$; kill -TSTP 0; exit 3"]);
    shell.types(&format!("timeout -k 5 2 {run}"));
    shell.says("echo code-$?", "code-124");
    shell.exit();
    place.pristine();
}

/// A terminal that is gone takes nobody along who was begun in the background, and is the usual end of who was stopped.
fn the_terminal_goes() {
    for stopped in [false, true] {
        let (place, mut terminal) = (Place::new(), Terminal::new());
        let shell = Shell::new(&place, &terminal);
        let log = place.work().join("log");
        let line = "echo up-$((1 + 1)); sleep 2; touch /file; echo done-$((1 + 1))";
        let flags = ["run", "--keep-on-failure", "--commit", "kept", "--", "sh", "-c", line];
        match stopped {
            false => {
                shell.types(&format!("{} >{} 2>&1 & disown", shell.line(&flags), log.display()));
            }
            true => {
                shell.types(&shell.line(&flags));
                terminal.expect("up-2");
                terminal.write("\x1a");
                terminal.expect("Stopped");
            }
        }
        let mark = shell.mark.clone();
        if !stopped {
            until("begun", || std::fs::read(&log).ok()?.starts_with(b"up-2").then_some(()));
        }
        let mut process = shell.shell;
        terminal.hang_up();
        until("the shell's end", || process.try_wait().expect("wait"));
        crate::watch::gone(&mark);
        let kept = place.snapshots().iter().any(|one| one.0 == "kept");
        let said = place.said(&["ps", "--json"]).code(0).out;
        assert_eq!((kept, said.contains("\"kept\"")), (!stopped, stopped), "{said}");
    }
}

/// What has to be ended in time cannot stop whoever ends it.
fn watched() {
    let (place, terminal) = (Place::new(), Terminal::new());
    let shell = Shell::new(&place, &terminal);
    shell.types(&shell.line(&["run", "--timeout", "3s", "--", "sh", "-c", "kill -STOP $$"]));
    shell.says("echo code-$?", "code-143");
    shell.exit();
    place.pristine();
}

/// Who is attached to a run that stays is a job, too; his keys are the command's.
fn attached() {
    let (place, terminal) = (Place::new(), Terminal::new());
    place.said(&["start", "-t", "--name", "s", "--", "cat"]).code(0);
    let shell = Shell::new(&place, &terminal);
    shell.types(&shell.line(&["attach", "s"]));
    let echoed = |text: &str| {
        terminal.write(&format!("{text}\n"));
        // Typed, and said by cat.
        terminal.expect(text);
        terminal.expect(text);
    };
    echoed("first-words");
    // Behind it is its keeper, which has a session of its own.
    let job = *children(shell.shell.id() as i32).first().expect("attach");
    send(job, Signal::TSTP);
    terminal.expect("Stopped");
    is(job, 'T');
    shell.says("stty -a", " icanon");
    shell.types("fg");
    is(job, 'S');
    echoed("other-words");
    terminal.write("\x10\x11");
    shell.says("echo code-$?", "code-0");
    shell.exit();
    place.said(&["stop", "-t", "1", "s"]).code(0);
    place.pristine();
}
