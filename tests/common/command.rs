//! A command and what came of it. Every expectation prints the whole output when it does not hold.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use serde_json::Value;

/// A command with a clean environment.
#[must_use]
pub(crate) struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>, home: &Path) -> Self {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", home)
            // How full the disk of this machine is must not decide a test.
            .env("SANDBOX_BUDGET", "off")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .env("COLUMNS", "100")
            .current_dir(home);
        Self { command, input: None }
    }

    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command.args(words);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn unset(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// The same, started with this umask.
    pub(crate) fn umask(self, bits: &str) -> Self {
        let words = self.words();
        let mut command = Command::new("sh");
        command.args(["-c", "umask \"$0\" && exec \"$@\"", bits]).args(words).env_clear();
        command.envs(self.command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.current_dir(self.command.get_current_dir().unwrap_or(Path::new("/")));
        Self { command, input: self.input }
    }

    /// Makes it lead a process group of its own, as an interactive shell does.
    pub(crate) fn group(mut self) -> Self {
        self.command.process_group(0);
        self
    }

    /// What the command reads; nothing otherwise.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// The program and its arguments, to be put after another program's.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let program = std::iter::once(self.command.get_program());
        program.chain(self.command.get_args()).map(OsStr::to_owned).collect()
    }

    /// Starts it and leaves it running, with pipes.
    pub(crate) fn start(mut self) -> Child {
        let started = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        started.unwrap_or_else(|error| panic!("start {:?}: {error}", self.command))
    }

    pub(crate) fn run(mut self) -> Out {
        let shown = format!("{:?}", self.command);
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let child = self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("start {shown}: {error}"));
        let writer = self.input.zip(child.stdin.take()).map(|(bytes, mut pipe)| {
            // A command need not read all of it.
            thread::spawn(move || drop(pipe.write_all(&bytes)))
        });
        let out = child.wait_with_output().unwrap_or_else(|error| panic!("wait {shown}: {error}"));
        if let Some(writer) = writer {
            writer.join().expect("writer");
        }
        Out { shown, status: out.status, stdout: out.stdout, stderr: out.stderr }
    }
}

/// What came of a command.
#[derive(Debug)]
#[must_use]
pub(crate) struct Out {
    shown: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Out {
    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        panic!(
            "{why}\n$ {}\n{}\n--- stdout\n{}--- stderr\n{}---",
            self.shown,
            self.status,
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr),
        )
    }

    #[track_caller]
    pub(crate) fn check(self, holds: bool, why: &str) -> Self {
        if !holds {
            self.fail(why);
        }
        self
    }

    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        let found = self.status.code();
        self.check(found == Some(code), &format!("expected exit code {code}, found {found:?}"))
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    /// The whole of stdout.
    #[track_caller]
    pub(crate) fn stdout(self, text: &str) -> Self {
        let holds = self.stdout == text.as_bytes();
        self.check(holds, &format!("expected this on stdout:\n{text}"))
    }

    /// The whole of stderr.
    #[track_caller]
    pub(crate) fn stderr(self, text: &str) -> Self {
        let holds = self.stderr == text.as_bytes();
        self.check(holds, &format!("expected this on stderr:\n{text}"))
    }

    /// A part of stdout.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let holds = self.text().contains(text);
        self.check(holds, &format!("expected on stdout somewhere: {text}"))
    }

    /// A part of stderr.
    #[track_caller]
    pub(crate) fn warns(self, text: &str) -> Self {
        let holds = self.errors().contains(text);
        self.check(holds, &format!("expected on stderr somewhere: {text}"))
    }

    /// A failure of ours: nothing on stdout, on stderr one line that has `what`, and perhaps a hint that
    /// has `hint`.
    #[track_caller]
    pub(crate) fn fault(self, code: i32, what: &str, hint: &str) -> Self {
        let out = self.code(code).stdout("");
        let text = out.errors();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let told = first.strip_prefix("sandbox: ").is_some_and(|line| line.contains(what));
        let out = out.check(told, &format!("expected one line: sandbox: ...{what}..."));
        let second = lines.next().and_then(|line| line.strip_prefix("hint: "));
        out.check(
            hint.is_empty() || second.is_some_and(|line| line.contains(hint)),
            &format!("expected a hint: {hint}"),
        )
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr; without the store in commands that are proposed, which all of these tests name.
    pub(crate) fn errors(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let mut parts = text.split("`sandbox --base-dir ");
        let mut plain = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = if part.starts_with('\'') { "' " } else { " " };
            let rest = part.split_once(end).map_or("", |(_, rest)| rest);
            plain.push_str("`sandbox ");
            plain.push_str(rest);
        }
        plain
    }

    /// Stdout without its last newline.
    pub(crate) fn line(&self) -> String {
        self.text().trim_end_matches('\n').to_owned()
    }

    /// Stdout as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.stdout) {
            Ok(value) => value,
            Err(error) => self.fail(&format!("stdout is no JSON: {error}")),
        }
    }
}
