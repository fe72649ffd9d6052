//! `format.json`: which sandbox can use a store.

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Result};

/// The format that this version writes.
pub(crate) const CURRENT: u32 = 1;

/// The feature of a store inside a run: `outer.json`, and layers that are mounts.
const NEST: &str = "nest";

/// What `format.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    /// Changes when nothing of an older version can be used.
    pub(crate) format: u32,
    /// Features that a version which does not know them can ignore.
    #[serde(default)]
    pub(crate) compat: Vec<String>,
    /// Features that a version which does not know them can read but must not write.
    #[serde(default)]
    pub(crate) ro_compat: Vec<String>,
    /// Features that a version which does not know them must not touch.
    #[serde(default)]
    pub(crate) incompat: Vec<String>,
}

impl Format {
    /// The format of a new store.
    pub(crate) fn new() -> Self {
        Self { format: CURRENT, compat: vec![], ro_compat: vec![], incompat: vec![] }
    }

    /// The format of a store inside a run.
    pub(crate) fn nest() -> Self {
        Self { incompat: vec![NEST.to_owned()], ..Self::new() }
    }

    /// Whether it is that of a store inside a run.
    pub(crate) fn is_nest(&self) -> bool {
        self.incompat.iter().any(|feature| feature == NEST)
    }

    /// Reads `format.json`; `on` is the path for messages.
    pub(crate) fn parse(bytes: &[u8], on: &str) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| {
            Fault::damaged(format!("read format of the store: {on}: format.json: {error}")).hint(
                "which sandbox wrote it only you can know; for this one the file is {\"format\":1}",
            )
        })
    }

    /// Whether this version may write to the store; refuses one that it may not even read.
    pub(crate) fn writable(&self, on: &str) -> Result<bool> {
        if self.format == 0 {
            return Err(Fault::damaged(format!(
                "open store: {on}: format.json: format 0 never existed"
            ))
            .hint("for this sandbox the file is {\"format\":1}"));
        }
        let newer = |why: String| {
            Err(Fault::failed(format!("open store: {on}: written by a newer sandbox ({why})"))
                .hint("upgrade sandbox, or choose another place with --base-dir"))
        };
        if self.format > CURRENT {
            return newer(format!("format {}", self.format));
        }
        if let Some(feature) = self.incompat.iter().find(|feature| *feature != NEST) {
            return newer(format!("feature {}", feature.escape_default()));
        }
        Ok(self.ro_compat.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;

    #[test]
    fn who_may_do_what() {
        let cases = [
            (r#"{"format":1}"#, Ok(true)),
            (r#"{"format":1,"compat":["x"],"ro_compat":[],"incompat":[]}"#, Ok(true)),
            (r#"{"format":1,"later":1}"#, Ok(true)),
            (r#"{"format":1,"ro_compat":["x"]}"#, Ok(false)),
            (r#"{"format":1,"incompat":["x"]}"#, Err(Kind::Failed)),
            (r#"{"format":1,"incompat":["nest"]}"#, Ok(true)),
            (r#"{"format":1,"incompat":["nest","x"]}"#, Err(Kind::Failed)),
            (r#"{"format":2}"#, Err(Kind::Failed)),
            (r#"{"format":0}"#, Err(Kind::Damaged)),
            (r#"{"format":"1"}"#, Err(Kind::Damaged)),
            ("", Err(Kind::Damaged)),
            ("{", Err(Kind::Damaged)),
        ];
        for (text, expected) in cases {
            let verdict =
                Format::parse(text.as_bytes(), "x").and_then(|format| format.writable("x"));
            assert_eq!(verdict.map_err(|fault| fault.kind), expected, "{text}");
        }
    }

    #[test]
    fn what_we_write_is_what_the_document_says() {
        assert_eq!(
            serde_json::to_string(&Format::new()).expect("json"),
            r#"{"format":1,"compat":[],"ro_compat":[],"incompat":[]}"#
        );
    }
}
