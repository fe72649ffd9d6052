//! Names of snapshots and boxes: what they may look like. Checked before anything is touched, because
//! they become names of files.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Result};

/// Names that mean something else wherever a snapshot can be named.
pub const RESERVED: [&str; 4] = ["host", "scratch", "head", "current"];

const LONGEST: usize = 128;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self> {
                check($what, text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Fault;

            fn try_from(text: String) -> Result<Self> {
                check($what, &text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// The name of a snapshot: `[A-Za-z0-9][A-Za-z0-9._+-]{0,127}`, and not one of [`RESERVED`].
    SnapshotName, "snapshot name"
}

name! {
    /// The name of a box; the same rule as for [`SnapshotName`].
    BoxName, "box name"
}

name! {
    /// The name of a run that stays; the same rule as for [`SnapshotName`].
    RunName, "run name"
}

fn check(what: &str, text: &str) -> Result<()> {
    let refuse = |why: &str| Err(Fault::usage(format!("{what}: {}: {why}", escaped(text))));
    let Some(first) = text.bytes().next() else {
        return refuse("is empty");
    };
    if text.len() > LONGEST {
        return refuse("longer than 128 characters");
    }
    if !first.is_ascii_alphanumeric() {
        return refuse("does not start with a letter or digit");
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte)) {
        return refuse("has other characters than letters, digits and . _ + -");
    }
    if RESERVED.contains(&text) {
        return refuse("is reserved");
    }
    Ok(())
}

/// A text from outside as it may stand in a message: in quotes, plain ASCII, cut after 40 characters.
pub(crate) fn escaped(text: &str) -> String {
    let start: String = text.chars().take(40).flat_map(char::escape_default).collect();
    let rest = if text.chars().nth(40).is_some() { "..." } else { "" };
    format!("\"{start}{rest}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;

    #[test]
    fn good_names() {
        for text in
            ["a", "0", "postinit", "deb-13.1", "g++", "A_b.c-d+e", "heads", &"x".repeat(128)]
        {
            assert_eq!(text.parse::<SnapshotName>().expect(text).as_str(), text);
            assert_eq!(text.parse::<BoxName>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn bad_names_are_a_usage_error_that_shows_them_escaped() {
        let cases = [
            ("", "\"\""),
            (".", "\".\""),
            ("..", "\"..\""),
            ("../x", "\"../x\""),
            ("a/b", "\"a/b\""),
            ("/etc", "\"/etc\""),
            (".hidden", "\".hidden\""),
            ("-x", "\"-x\""),
            ("_x", "\"_x\""),
            ("a b", "\"a b\""),
            (" a", "\" a\""),
            ("a\n", "\"a\\n\""),
            ("a\0", "\"a\\u{0}\""),
            ("a\x1b[0m", "\"a\\u{1b}[0m\""),
            ("\u{e4}", "\"\\u{e4}\""),
            ("a\u{202e}b", "\"a\\u{202e}b\""),
            ("$(reboot)", "\"$(reboot)\""),
            ("host", "\"host\""),
            ("scratch", "\"scratch\""),
            ("head", "\"head\""),
            ("current", "\"current\""),
        ];
        for (text, shown) in cases {
            let fault = text.parse::<SnapshotName>().expect_err(shown);
            assert_eq!(fault.kind, Kind::Usage, "{shown}");
            assert!(fault.message.starts_with(&format!("snapshot name: {shown}: ")), "{fault}");
            assert!(text.parse::<BoxName>().is_err());
            assert!(serde_json::from_value::<BoxName>(text.into()).is_err());
        }
        let long = "x".repeat(200);
        let fault = long.parse::<SnapshotName>().expect_err("too long");
        assert!(fault.message.len() < 120, "{fault}");
    }
}
