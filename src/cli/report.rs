//! How a failure reaches the caller: text on stderr or JSON on stdout, and the exit code.

use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextValue, Error as ClapError, ErrorKind as ClapKind};
use serde::Serialize;

use super::output::aimed;
use crate::fault::{Fault, Kind, printable, why};

/// Why a command stopped before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// A failure to tell.
    Fault(Fault),
    /// Whoever read our output has gone away (`sandbox list | head -1`): nothing to tell, and no failure.
    ClosedPipe,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Errors of writing to our own output; no other `io::Error` reaches this module without a context.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::PIPE) => Self::ClosedPipe,
            Some(errno) => Self::Fault(Fault::failed(format!("write output: {}", why(errno)))),
            None => Self::Fault(Fault::failed(format!("write output: {error}"))),
        }
    }
}

/// What a command's function gives back.
pub(super) type Outcome = Result<ExitCode, Stop>;

/// Whose exit codes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    /// 0 to 7 by the kind of failure.
    Own,
    /// The payload's; anything of ours is 125, so that it cannot be taken for the payload's.
    Payload,
}

impl Codes {
    fn of(self, kind: Kind) -> ExitCode {
        match self {
            Self::Own => ExitCode::from(kind.exit_code()),
            Self::Payload => ExitCode::from(125),
        }
    }
}

/// Tells a failure and gives the exit code.
pub(super) fn stop(stop: &Stop, codes: Codes, json: bool) -> ExitCode {
    match stop {
        Stop::ClosedPipe => ExitCode::SUCCESS,
        Stop::Fault(fault) => {
            tell(fault, json);
            codes.of(fault.kind)
        }
    }
}

/// Prints a fault: as JSON on stdout, but as text on stderr where that cannot be written, which may be what
/// there is to tell. Nothing can be done about a stderr that cannot be written either.
pub(super) fn tell(fault: &Fault, json: bool) {
    let fault = &with_way_out(fault);
    if json {
        // A fault is three strings; if even those have no JSON, nothing has.
        let text = serde_json::to_string(&Told { error: fault }).unwrap_or_default();
        let mut out = io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_ok() {
            return;
        }
    }
    drop(io::stderr().lock().write_all(text(fault).as_bytes()));
}

#[derive(Serialize)]
struct Told<'a> {
    error: &'a Fault,
}

/// The way out of damage is the same wherever it is met, unless the fault knows a better one.
fn with_way_out(fault: &Fault) -> Fault {
    let hint = match (fault.kind, &fault.hint) {
        (Kind::Damaged, None) => Some(
            "`sandbox fsck` names all damage; `sandbox fsck --repair` mends it, or removes what needs it",
        ),
        (_, hint) => hint.as_deref(),
    };
    let hint = hint.map(|hint| aimed(hint).into_owned());
    Fault { message: aimed(&fault.message).into_owned(), hint, ..fault.clone() }
}

/// A line each, whatever names have come into them.
fn text(fault: &Fault) -> String {
    let message = printable(&fault.message);
    match &fault.hint {
        Some(hint) => format!("sandbox: {message}\nhint: {}\n", printable(hint)),
        None => format!("sandbox: {message}\n"),
    }
}

/// Tells what clap says: help and version on stdout; a mistake in our own form, with clap's usage lines.
/// `command` is what was being typed (`sandbox run`), for the hint.
pub(super) fn clap(mut error: ClapError, command: &str, codes: Codes, json: bool) -> ExitCode {
    escape(&mut error);
    match error.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => stop(&Stop::from(error), Codes::Own, json),
        },
        ClapKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            drop(error.print());
            codes.of(Kind::Usage)
        }
        _ => {
            let mut mistake = Mistake::of(&error.render().to_string(), command);
            if error.kind() == ClapKind::InvalidUtf8 {
                mistake.fault.message = not_text();
            }
            // A value that a parser of ours refused: it may know better what to type.
            let refused = error.source().and_then(|source| source.downcast_ref::<Fault>());
            if let Some(hint) = refused.and_then(|fault| fault.hint.clone()) {
                mistake.fault.hint = Some(hint);
            }
            tell(&mistake.fault, json);
            if let (Some(usage), false) = (&mistake.usage, json) {
                drop(writeln!(io::stderr().lock(), "\n{usage}"));
            }
            codes.of(Kind::Usage)
        }
    }
}

/// Escapes what was typed where clap repeats it: a line break would pass for a paragraph of its text, and more than that
/// could drive a terminal.
fn escape(error: &mut ClapError) {
    let escaped = |value: &ContextValue| match value {
        ContextValue::String(text) => Some(ContextValue::String(printable(text))),
        ContextValue::Strings(all) => {
            Some(ContextValue::Strings(all.iter().map(|text| printable(text)).collect()))
        }
        _ => None,
    };
    let found: Vec<_> =
        error.context().filter_map(|(kind, value)| Some((kind, escaped(value)?))).collect();
    for (kind, value) in found {
        error.insert(kind, value);
    }
}

/// Which word it is that is no text; clap does not say.
fn not_text() -> String {
    let mut words = std::env::args_os().skip(1);
    let word = words.find(|word| word.to_str().is_none()).unwrap_or_default();
    format!("not UTF-8: '{}'", printable(&word.to_string_lossy()))
}

/// clap's text taken apart.
struct Mistake {
    fault: Fault,
    usage: Option<String>,
}

impl Mistake {
    /// The text is paragraphs: `error: ...`, `  tip: ...`, `Usage: ...`, `For more information, ...`.
    fn of(rendered: &str, command: &str) -> Self {
        let mut message = String::new();
        let mut tip = None;
        let mut usage = None;
        for paragraph in rendered.split("\n\n").map(str::trim).filter(|text| !text.is_empty()) {
            if let Some(text) = paragraph.strip_prefix("tip: ") {
                // Of several tips the first is the best.
                tip = tip.or_else(|| text.lines().next());
            } else if paragraph.starts_with("Usage:") {
                usage = Some(paragraph.to_owned());
            } else if message.is_empty() {
                message = one_line(paragraph.strip_prefix("error: ").unwrap_or(paragraph));
            }
        }
        let hint = match tip.map(one_line) {
            // True of the words of a command, but what it stands behind is a flag, mostly.
            Some(tip) if tip.starts_with("to pass '") => dashed(&tip)
                .map(|value| format!("a value with a dash in front is written `--flag={value}`")),
            tip => tip,
        };
        let hint = hint.unwrap_or_else(|| format!("`{command} --help`"));
        Self { fault: Fault::usage(message).hint(hint), usage }
    }
}

/// The number below zero that clap has taken for a flag, from its tip.
fn dashed(tip: &str) -> Option<&str> {
    let word = tip.split('\'').nth(1)?;
    let digits = word.strip_prefix('-')?;
    digits.starts_with(|first: char| first.is_ascii_digit()).then_some(word)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line_and_its_hint() {
        let fault = Fault::not_found("no such snapshot: x").hint("sandbox list");
        assert_eq!(text(&fault), "sandbox: no such snapshot: x\nhint: sandbox list\n");
        assert_eq!(text(&Fault::failed("a")), "sandbox: a\n");
    }

    #[test]
    fn a_mistake_keeps_the_usage_and_turns_a_tip_into_the_hint() {
        let mistake = Mistake::of(
            "error: unexpected argument '--form' found\n\n  tip: a similar argument exists: '--from'\n  tip: to pass '--form' as a value, use '-- --form'\n\n\
             Usage: sandbox run --from <S> <CMD>...\n\nFor more information, try '--help'.\n",
            "sandbox run",
        );
        assert_eq!(mistake.fault.message, "unexpected argument '--form' found");
        assert_eq!(mistake.fault.hint.as_deref(), Some("a similar argument exists: '--from'"));
        assert_eq!(mistake.usage.as_deref(), Some("Usage: sandbox run --from <S> <CMD>..."));
    }

    #[test]
    fn a_number_below_zero_is_told_how_to_be_a_value() {
        let hint = |word: &str| {
            let text = format!(
                "error: unexpected argument '{word}' found\n\n  tip: to pass '{word}' as a value, use '-- {word}'\n"
            );
            Mistake::of(&text, "sandbox run").fault.hint.expect("hint")
        };
        assert_eq!(hint("-1"), "a value with a dash in front is written `--flag=-1`");
        assert_eq!(hint("-x"), "`sandbox run --help`");
        assert_eq!(hint("--bogus"), "`sandbox run --help`");
    }

    #[test]
    fn without_a_tip_the_hint_is_the_help() {
        let mistake = Mistake::of(
            "error: the following required arguments were not provided:\n  <NAME>\n\n\
             Usage: sandbox snapshot <NAME>\n\nFor more information, try '--help'.\n",
            "sandbox snapshot",
        );
        assert_eq!(
            mistake.fault.message,
            "the following required arguments were not provided: <NAME>"
        );
        assert_eq!(mistake.fault.hint.as_deref(), Some("`sandbox snapshot --help`"));
    }
}
