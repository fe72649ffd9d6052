//! The one error type that crosses module and process borders.
//!
//! A [`Fault`] is what a person reads: one line that says what was tried, on what and why it failed, and
//! a hint with the next command to type. It is plain data, so that a job that ran in another process (in
//! the user namespace of a box) hands its failure back unchanged. Code that branches on a cause does so on
//! [`Kind`] or, below this level, on the `Errno` itself.

use std::fmt::{self, Display};
use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What sort of failure it is; decides the exit code and the `kind` of the JSON form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The command line or a file given by the user cannot be right.
    Usage,
    /// No such box, snapshot, run or path.
    NotFound,
    /// It exists already, or has changed meanwhile.
    Conflict,
    /// Somebody else holds it.
    Busy,
    /// This machine or its settings do not allow it.
    Host,
    /// The store is not as we left it.
    Damaged,
    /// Anything else that went wrong.
    Failed,
}

impl Kind {
    /// The exit code of every command but those that run a payload.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Busy => 5,
            Self::Host => 6,
            Self::Damaged => 7,
        }
    }
}

/// A failure, told in one line, and what to type next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The sort of failure.
    pub kind: Kind,
    /// `what: on what: why`, lower-case, without a period.
    pub message: String,
    /// The next command to type, if there is one.
    pub hint: Option<String>,
    /// What the kernel said, if it was a system call that failed. No part of the JSON form: the message has it in words.
    #[serde(skip)]
    pub errno: Option<i32>,
}

/// A result whose error is a [`Fault`].
pub type Result<T, E = Fault> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl Fault {
            $(
                #[doc = concat!("A fault of kind [`Kind::", stringify!($kind), "`].")]
                pub fn $name(message: impl Into<String>) -> Self {
                    Self { kind: Kind::$kind, message: message.into(), hint: None, errno: None }
                }
            )*
        }
    };
}

constructors! {
    usage => Usage, not_found => NotFound, conflict => Conflict, busy => Busy,
    host => Host, damaged => Damaged, failed => Failed,
}

/// What to do where a process may open no more files.
pub const MORE_FILES: &str = "end other programs, or raise the limit (`ulimit -n`)";

/// What to do where nothing can be written.
pub const WRITABLE: &str = "choose a writable place with --base-dir";

/// What to do about a full disk, in a store.
pub const FREE_SPACE: &str = "free some space (`sandbox gc`), then try again";

impl Fault {
    /// The same fault of somebody who has no store yet, and so nothing in it that could be freed.
    #[must_use]
    pub fn without_store(self) -> Self {
        match self.hint.as_deref() {
            Some(FREE_SPACE) => {
                self.hint("free some space there, or take another file system with --base-dir")
            }
            _ => self,
        }
    }

    /// The same fault with the next command to type.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same fault, of a system call that said `errno`.
    #[must_use]
    pub fn of(mut self, errno: Errno) -> Self {
        self.errno = Some(errno.raw_os_error());
        self
    }

    /// The fault of a failed system call: `what: on: why`.
    pub fn errno(what: &str, on: impl Display, errno: Errno) -> Self {
        let message = format!("{what}: {}: {}", printable(&on.to_string()), why(errno));
        let fault = Self::failed(message).of(errno);
        match errno {
            Errno::NOSPC | Errno::DQUOT => fault.hint(FREE_SPACE),
            Errno::MFILE | Errno::NFILE => fault.hint(MORE_FILES),
            // No other attempt mends that, and no other command.
            Errno::ROFS => Self { kind: Kind::Host, ..fault }.hint(WRITABLE),
            _ => fault,
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.message))
    }
}

impl std::error::Error for Fault {}

/// Turns the error of a system call into a [`Fault`] that says what was tried and on what.
pub trait Context<T> {
    /// `what` is a verb phrase ("create directory"), `on` names the object; it is asked for its text only if there
    /// is an error.
    fn context(self, what: &str, on: impl Display) -> Result<T>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn context(self, what: &str, on: impl Display) -> Result<T> {
        self.map_err(|errno| Fault::errno(what, on, errno))
    }
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &str, on: impl Display) -> Result<T> {
        self.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => Fault::errno(what, on, errno),
            None => {
                let (on, why) = (printable(&on.to_string()), numberless(&error.to_string()));
                Fault::failed(format!("{what}: {on}: {why}"))
            }
        })
    }
}

/// The text of an error of the standard library without ` (os error 2)`, wherever that stands in it.
pub fn numberless(text: &str) -> String {
    match text.split_once(" (os error ") {
        Some((before, after)) => format!("{before}{}", after.split_once(')').unwrap_or_default().1),
        None => text.to_owned(),
    }
}

/// The reason of an errno in words, without its number: `no space left on device`.
pub fn why(errno: Errno) -> String {
    let text = numberless(&io::Error::from(errno).to_string());
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => format!("errno {}", errno.raw_os_error()),
    }
}

/// Whether it is the disk that cannot read what it was given: EUCLEAN and EBADMSG are how ext4 and xfs tell of
/// broken structures and checksums.
pub fn is_of_the_disk(errno: Errno) -> bool {
    matches!(errno, Errno::IO | Errno::UCLEAN | Errno::BADMSG)
}

/// A name as it may stand in a message: control characters escaped, so that a hostile file name can
/// neither start a new line nor drive the terminal.
pub fn printable(text: &str) -> String {
    // Nearly always there is none: a listing has tens of thousands of cells.
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// A word as a shell would want it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reason_has_a_number() {
        assert_eq!(
            numberless("No such file (os error 2) at path \"/x\""),
            "No such file at path \"/x\""
        );
        assert_eq!(numberless("an odd one (os error"), "an odd one (os error");
        let wrapped = io::Error::other(io::Error::from_raw_os_error(2).to_string());
        let fault = Err::<(), _>(wrapped).context("make", "x").expect_err("failed");
        assert_eq!(fault.message, "make: x: No such file or directory");
    }

    #[test]
    fn says_what_on_what_and_why() {
        let fault = Fault::errno("create directory", "/x", Errno::NOSPC);
        assert_eq!(fault.message, "create directory: /x: no space left on device");
        assert!(fault.hint.is_some());
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let fault = Fault::errno("open", "a\nb\x1b[0m", Errno::NOENT);
        assert_eq!(fault.message, "open: a\\nb\\u{1b}[0m: no such file or directory");
    }

    #[test]
    fn what_succeeds_is_not_named() {
        struct Unnamed;
        impl Display for Unnamed {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("a name was made of what did not fail");
            }
        }
        assert_eq!(Ok::<_, Errno>(1).context("open", Unnamed), Ok(1));
        assert_eq!(io::Result::Ok(2).context("open", Unnamed), Ok(2));
    }

    #[test]
    fn kinds_are_kebab_case_in_json() {
        assert_eq!(serde_json::to_string(&Kind::NotFound).expect("json"), "\"not-found\"");
    }

    #[test]
    fn words_are_quoted_when_a_shell_would_read_them_otherwise() {
        for (word, expected) in
            [("a", "a"), ("", "''"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(word), expected);
        }
    }
}
