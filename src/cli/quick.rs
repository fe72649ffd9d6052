//! The plainest lines of `run`, read by hand: to build the flags of a parser takes longer than some runs.
//!
//! `sandbox run --box B --from S --commit N -- CMD ARGS`, with few or many of these. Whatever is not in the
//! table below, or twice, or wrong in any way, is left to the parser, which also tells what is wrong.

use std::ffi::{OsStr, OsString};

use super::args::Common;
use super::{Cli, Command, run};

/// The values of the flags that are known here.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// `--base-dir`.
    pub(super) base_dir: Option<OsString>,
    /// `--box`, `-b`.
    pub(super) box_name: Option<OsString>,
    /// `--from`.
    pub(super) from: Option<OsString>,
    /// `--commit`.
    pub(super) commit: Option<OsString>,
    /// What stands behind `--`.
    pub(super) command: Vec<OsString>,
}

/// The same as the parser says of this line, or nothing.
pub(super) fn parse(words: &[OsString]) -> Option<Cli> {
    let plain = read(words.get(1..)?)?;
    let (common, args) = (Common::plain(&plain)?, run::Args::plain(plain)?);
    Some(Cli { common, command: Command::Run(Box::new(args)) })
}

fn read(words: &[OsString]) -> Option<Plain> {
    let mut plain = Plain::default();
    let mut run = false;
    let mut rest = words.iter();
    loop {
        let word = rest.next()?.to_str()?;
        let value = match word {
            "--base-dir" => &mut plain.base_dir,
            "--box" | "-b" => &mut plain.box_name,
            "--from" if run => &mut plain.from,
            "--commit" if run => &mut plain.commit,
            "run" if !run => {
                run = true;
                continue;
            }
            "--" if run => break,
            _ => return None,
        };
        if value.replace(value_of(rest.next()?)?).is_some() {
            return None;
        }
    }
    plain.command = rest.cloned().collect();
    (!plain.command.is_empty()).then_some(plain)
}

/// A word that can be nothing but a value.
fn value_of(word: &OsStr) -> Option<OsString> {
    let text = word.to_str()?;
    (!text.is_empty() && !text.starts_with('-')).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    /// What both say of a line, as text.
    fn both(line: &str) -> (Option<String>, Option<String>) {
        let words = words(line);
        let text = |cli: Cli| format!("{cli:?}");
        (parse(&words).map(text), super::super::parse_alone(&words).map(text))
    }

    #[test]
    fn plain_lines_are_read_as_the_parser_reads_them() {
        for line in [
            "sandbox run -- true",
            "sandbox run --from a -- true",
            "sandbox --box b run --from a --commit c -- rpm -i x",
            "sandbox --base-dir /x -b run run -- run --from b",
            "sandbox run --base-dir /x --box b --from b/a -- a -- b --json",
            "sandbox run --from  -- true",
        ] {
            let (quick, parsed) = both(line);
            assert!(line.contains("  ") || quick.is_some(), "{line}");
            assert!(quick.is_none() || quick == parsed, "{line}: {quick:?}, {parsed:?}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_parser() {
        for line in [
            "sandbox",
            "sandbox run",
            "sandbox run true",
            "sandbox run --",
            "sandbox list -- x",
            "sandbox --box run list",
            "sandbox run --json -- true",
            "sandbox run --from -- true",
            "sandbox run --from a --from b -- true",
            "sandbox -b a run -b b -- true",
            "sandbox --from a run -- true",
            "sandbox run --from=a -- true",
            "sandbox run --commit head -- true",
            "sandbox run --keep -- true",
            "sandbox run -e A=b -- true",
            "sandbox run run -- true",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }
}
