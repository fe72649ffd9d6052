//! Ids of layers and runs: random, sortable by time, never reused.
//!
//! Both are written in Crockford's base 32 in lower case, whose letters stand in the order of their
//! values, so that the order of the names is the order of time.

use std::fmt::{self, Debug, Display};
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::name::escaped;
use crate::fault::{Context, Fault, Result};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Whether this is one of [`ALPHABET`], without a search.
fn is_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z')
}

/// Reads an id from a string of JSON.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = Fault>> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|fault: Fault| E::custom(fault.message))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $prefix:literal, $first:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                str::from_utf8(&self.0).expect("ids are made of ASCII letters only")
            }

            fn encode(mut value: u128) -> Self {
                let mut text = [0; $length];
                let (prefix, digits) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                for digit in digits.iter_mut().rev() {
                    *digit = ALPHABET[(value & 31) as usize];
                    value >>= 5;
                }
                Self(text)
            }
        }

        impl FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self> {
                let wrong = || Fault::usage(format!("{}: {}: not an id", $what, escaped(text)));
                let bytes: [u8; $length] = text.as_bytes().try_into().map_err(|_| wrong())?;
                let digits = bytes.strip_prefix($prefix.as_bytes()).ok_or_else(wrong)?;
                // The digits hold more bits than the number: the first one cannot be large.
                let fits = digits.first().is_some_and(|first| *first <= $first);
                if !fits || !digits.iter().all(is_digit) {
                    return Err(wrong());
                }
                Ok(Self(bytes))
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // A chain has hundreds of them: none is copied to be looked at.
                deserializer.deserialize_str(Text(PhantomData))
            }
        }
    };
}

id! {
    /// The id of a layer: 48 bits of milliseconds since 1970 and 80 random bits, as 26 letters.
    LayerId, 26, "", b'7', "layer id"
}

id! {
    /// The id of a run: `r-`, then 42 bits of milliseconds since 1970 and 22 random bits as 13 letters. Two
    /// runs that draw the same id meet at the directory of the run, where the second draws again.
    RunId, 15, "r-", b'f', "run id"
}

id! {
    /// The id of a move in the log of a box: `m-`, then as a [`RunId`].
    MoveId, 15, "m-", b'f', "move id"
}

impl LayerId {
    /// When it was drawn, to the millisecond.
    pub(crate) fn created(&self) -> Option<Timestamp> {
        let digits = self.0.iter().map(|digit| ALPHABET.iter().position(|known| known == digit));
        let mut value: u128 = 0;
        for digit in digits {
            value = value << 5 | digit? as u128;
        }
        Timestamp::from_millisecond(i64::try_from(value >> 80).ok()?).ok()
    }

    /// A new id.
    ///
    /// # Errors
    /// Only if getrandom(2) fails, which it does not after boot.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        random(&mut bytes[..10])?;
        let random = u128::from_le_bytes(bytes);
        Ok(Self::encode(u128::from(milliseconds() & ((1 << 48) - 1)) << 80 | random))
    }
}

impl RunId {
    /// A new id; errors as [`LayerId::random`].
    pub fn random() -> Result<Self> {
        Ok(Self::encode(short()?))
    }
}

impl MoveId {
    /// A new id; errors as [`LayerId::random`].
    pub fn random() -> Result<Self> {
        Ok(Self::encode(short()?))
    }
}

/// 42 bits of milliseconds, 22 random ones.
fn short() -> Result<u128> {
    let mut bytes = [0; 4];
    random(&mut bytes)?;
    let random = u64::from(u32::from_le_bytes(bytes)) & ((1 << 22) - 1);
    Ok(u128::from(milliseconds() << 22 | random))
}

/// Milliseconds since 1970; 0 before it, which costs the order and nothing else.
fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

fn random(bytes: &mut [u8]) -> Result<()> {
    // getrandom(2) gives up to 256 bytes whole.
    getrandom(bytes, GetRandomFlags::empty()).context("draw an id", "random numbers")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sorted_by_time() {
        let early = LayerId::encode(5 << 80 | 77);
        let late = LayerId::encode(6 << 80 | 3);
        assert!(early.as_str() < late.as_str() && early < late);
        assert_eq!(LayerId::encode(u128::MAX).as_str(), "7zzzzzzzzzzzzzzzzzzzzzzzzz");
        assert_eq!(RunId::encode(u128::from(u64::MAX)).as_str(), "r-fzzzzzzzzzzzz");
    }

    #[test]
    fn digits_are_those_of_the_alphabet() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_digit(&byte), ALPHABET.contains(&byte), "{byte}");
        }
        assert!(serde_json::from_str::<LayerId>("\"x\"").is_err());
        assert!(serde_json::from_str::<LayerId>("7").is_err());
    }

    #[test]
    fn ids_read_back_and_never_repeat() {
        let mut all = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let id = LayerId::random().expect("random");
            assert_eq!(id.as_str().parse::<LayerId>().expect("parse"), id);
            assert!(all.insert(id));
            let run = RunId::random().expect("random");
            assert_eq!(run.as_str().parse::<RunId>().expect("parse"), run);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "..",
            "../../../../../../etc/passw",
            "8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "0zzzzzzzzzzzzzzzzzzzzzzzzi",
            "0ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "0zzzzzzzzzzzzzzzzzzzzzzzz/",
            "r-0zzzzzzzzzzzz\n",
            "r-gzzzzzzzzzzzz",
        ] {
            assert!(text.parse::<LayerId>().is_err(), "{text:?}");
            assert!(text.parse::<RunId>().is_err(), "{text:?}");
        }
        assert!(serde_json::from_str::<LayerId>("\"../x\"").is_err());
    }
}
