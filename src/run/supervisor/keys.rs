//! The keys by which somebody leaves a run that he is attached to, and the run goes on.

use std::str::FromStr;

use crate::fault::{Fault, printable};

/// A sequence of keys, and how much of it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    wanted: Vec<u8>,
    typed: usize,
}

impl Keys {
    /// No key leaves.
    pub fn none() -> Self {
        Self { wanted: Vec::new(), typed: 0 }
    }

    /// Takes what was typed: what of it is for the command, and whether the sequence is complete. Its beginning
    /// is held back until it is clear that it is none.
    pub fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.wanted.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.wanted.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.wanted[..self.typed]);
            self.typed = usize::from(self.wanted.first() == Some(byte));
            if self.typed == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

/// `ctrl-p,ctrl-q`: letters, or `ctrl-` and one of `a` to `z`, `@`, `[`, `\`, `]`, `^`, `_`. Nothing: no key.
impl FromStr for Keys {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        if text.is_empty() {
            return Ok(Self::none());
        }
        let key =
            |word: &str| match (word.strip_prefix("ctrl-").map(str::as_bytes), word.as_bytes()) {
                (Some([letter @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => {
                    Ok(letter & 0x1f)
                }
                (None, [letter]) if letter.is_ascii_graphic() => Ok(*letter),
                _ => Err(Fault::usage(format!("keys: {}: no such key", printable(word)))
                    .hint("write them as ctrl-p,ctrl-q or a,b")),
            };
        let wanted = text.split(',').map(key).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { wanted, typed: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_leave_and_all_else_passes() {
        let mut keys: Keys = "ctrl-p,ctrl-q".parse().unwrap();
        assert_eq!(keys.take(b"a\x10b"), (b"a\x10b".to_vec(), false));
        assert_eq!(keys.take(b"c\x10"), (b"c".to_vec(), false));
        assert_eq!(keys.take(b"\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.take(b"\x11d"), (b"".to_vec(), true));
        let mut none: Keys = "".parse().unwrap();
        assert_eq!(none.take(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn keys_are_written_in_one_way() {
        let keys: Keys = "ctrl-a,x,ctrl-]".parse().unwrap();
        assert_eq!(keys.wanted, [1, b'x', 0x1d]);
        for text in ["ctrl-", "ctrl-A", "ctrl-pq", "ab", "a,,b", "\u{e4}", "a,"] {
            assert!(text.parse::<Keys>().is_err(), "{text}");
        }
    }
}
