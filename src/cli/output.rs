//! What people read: tables, sizes, times, colours. Writes are buffered and their errors come back, so that
//! a closed pipe ends the command quietly instead of by a panic.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde::Serialize;

use super::report::Stop;
use crate::fault::{Fault, printable, quoted};
pub(super) use crate::ops::words::count;

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether text for stdout is coloured.
    pub(super) fn on_stdout(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
                    || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
                !refused && io::stdout().is_terminal()
            }
        }
    }
}

/// An SGR colour: `\x1b[32m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// Good, added.
    Green,
    /// Bad, deleted.
    Red,
    /// Changed.
    Yellow,
}

/// The text in the colour, or as it is.
pub(super) fn ink(text: &str, ink: Ink, on: bool) -> String {
    let number = match ink {
        Ink::Red => 31,
        Ink::Green => 32,
        Ink::Yellow => 33,
    };
    if on { format!("\x1b[{number}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Writes to stdout all at once.
pub(super) fn print(text: &str) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a value to stdout as one line of JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Stop> {
    let mut text = serde_json::to_string(value)
        .map_err(|error| Fault::failed(format!("write JSON: {error}")))?;
    text.push('\n');
    print(&text)
}

/// Writes a line for people to stderr; if that is closed, nobody wanted it.
pub(super) fn note(line: &str) {
    drop(writeln!(io::stderr().lock(), "{}", aimed(line)));
}

/// `sandbox` as the commands that we propose begin, where the store was given on the command line.
static AIM: OnceLock<String> = OnceLock::new();

/// From now on the commands that we propose name this store: without that they would act in another one.
pub(super) fn aim(base_dir: &Path) {
    if let Some(path) = base_dir.to_str() {
        AIM.get_or_init(|| format!("sandbox --base-dir {} ", quoted(path)));
    }
}

/// A line for people, with the store in the commands that it proposes.
pub(super) fn aimed(line: &str) -> Cow<'_, str> {
    match AIM.get() {
        Some(aim) if line.contains("`sandbox ") => {
            Cow::Owned(line.replace("`sandbox ", &format!("`{aim}")))
        }
        _ => Cow::Borrowed(line),
    }
}

/// Columns under a heading, two blanks apart. The last column is never padded.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; a heading that begins with `>` is set to the right.
    pub(super) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let row = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![row], right }
    }

    /// Adds a row. Control characters are escaped, and what is longer than anybody reads is cut.
    pub(super) fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| cut(printable(cell))).collect());
    }

    /// The text, with a newline after each row.
    pub(super) fn text(&self) -> String {
        let mut widths = vec![0; self.right.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count().min(WIDEST));
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let gap = if at == 0 { "" } else { "  " };
                let width = widths[at];
                // Writing to a string cannot fail.
                let _ = match self.right[at] {
                    true => write!(line, "{gap}{cell:>width$}"),
                    false => write!(line, "{gap}{cell:<width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A cell that is longer than this, in characters, does not move the others of its column.
const WIDEST: usize = 200;
/// What is longer than this, in characters, is cut: a command line may have megabytes.
const LONGEST: usize = 1000;

fn cut(mut cell: String) -> String {
    if let Some((at, _)) = cell.char_indices().nth(LONGEST) {
        cell.truncate(at);
        cell.push('…');
    }
    cell
}

/// Bytes for people: `0 B`, `1.5 KiB`, `38 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be printed as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A time for people, in UTC to the second: `2026-01-31 12:00:00Z`.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 10, "10 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (38 << 20, "38 MiB"),
            (u64::MAX, "16384 PiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn a_cell_of_any_length_is_a_cell() {
        let mut table = Table::new(&["NAME", ">SIZE", "COMMAND"]);
        table.row(&[&"é".repeat(100_000), &"9".repeat(100_000), &"x".repeat(100_000)]);
        table.row(&["b", "1", "c"]);
        let text = table.text();
        let lines: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert!(lines.iter().all(|length| *length < 4000), "{lines:?}");
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with("xx…")));
    }

    #[test]
    fn tables_line_up_and_leave_no_trailing_blanks() {
        let mut table = Table::new(&["NAME", ">SIZE", ""]);
        table.row(&["a", "1 B", "*"]);
        table.row(&["longer", "100 B", ""]);
        table.row(&["b\x1b", "2 B", ""]);
        assert_eq!(
            table.text(),
            "NAME      SIZE\na          1 B  *\nlonger   100 B\nb\\u{1b}    2 B\n"
        );
    }

    #[test]
    fn times_are_utc() {
        let time: Timestamp = "2026-01-31T12:00:00.5Z".parse().unwrap();
        assert_eq!(super::time(time), "2026-01-31 12:00:00Z");
    }
}
