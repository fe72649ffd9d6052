//! Readers of /etc/passwd, /etc/group, /etc/subuid, /etc/subgid and of `uid_map`.
//!
//! Our own, because a static binary has no name service switch. Pure functions of the text: they take
//! whatever it is, skip what they do not understand, and never fail.

use super::span::Span;

/// Who a line of /etc/subuid may speak of: both files name the *user*, also /etc/subgid (subgid(5)).
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// By name, if there is an account.
    pub name: Option<&'a str>,
    /// By number.
    pub uid: u32,
}

impl Owner<'_> {
    fn is(self, field: &str) -> bool {
        self.name == Some(field) || number(field) == Some(u64::from(self.uid))
    }
}

/// The ranges of one user in /etc/subuid or /etc/subgid (subuid(5): `owner:first:count`), in the order of
/// the file, clipped to ids that exist.
pub fn ranges_of(text: &str, owner: Owner<'_>) -> Vec<Span> {
    range_lines(text).filter(|(who, _)| owner.is(who)).map(|(_, span)| span).collect()
}

/// The ranges of all users.
pub fn ranges(text: &str) -> Vec<Span> {
    range_lines(text).map(|(_, span)| span).collect()
}

fn range_lines(text: &str) -> impl Iterator<Item = (&str, Span)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().filter(|owner| !owner.is_empty() && !owner.starts_with('#'))?;
        let span = Span::clipped(number(fields.next()?)?, number(fields.next()?)?)?;
        fields.next().is_none().then_some((owner, span))
    })
}

/// The name of a user by passwd(5): the first line that has the uid, as getpwuid(3).
pub fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    account_lines(passwd).find(|(_, id)| *id == uid).map(|(name, _)| name)
}

/// The ids of all accounts: uids from the text of passwd(5), gids from the text of group(5).
pub fn account_ids(text: &str) -> impl Iterator<Item = u32> {
    account_lines(text).map(|(_, id)| id)
}

fn account_lines(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        // A leading + or - is an entry of NIS compat mode and not an account.
        let name =
            fields.next().filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))?;
        let id = number(fields.nth(1)?)?;
        Some((name, u32::try_from(id).ok()?))
    })
}

/// The ids that a user namespace holds, as its own processes number them: the first and third column of
/// `uid_map` or `gid_map` (user_namespaces(7)).
pub fn held(map: &str) -> Vec<Span> {
    map.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (first, _, count) = (fields.next()?, fields.next()?, fields.next()?);
            Span::clipped(number(first)?, number(count)?)
        })
        .collect()
}

/// Whether this `uid_map` is the one of the initial user namespace.
pub fn is_initial(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// A plain decimal number; a larger one than fits is the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOB: Owner<'_> = Owner { name: Some("bob"), uid: 1000 };

    #[test]
    fn reads_ranges() {
        let table: [(&str, &[(u32, u32)]); 15] = [
            ("", &[]),
            ("bob:100000:65536\n", &[(100_000, 65536)]),
            ("bob:100000:65536", &[(100_000, 65536)]),
            ("1000:5:6\nann:1:2\nbob:300:4\n", &[(5, 6), (300, 4)]),
            ("bobby:1:2\nbo:1:2\n10000:1:2\n100:1:2\n", &[]),
            ("# bob:1:2\n#bob:1:2\n\n \n:\n::\n:::\n:1:2\n", &[]),
            ("bob:1\nbob\nbob:1:\nbob::1\nbob:1:2:3\n", &[]),
            ("bob:-1:5\nbob:+1:5\nbob:0x10:5\nbob:1e3:5\nbob: 1:5\nbob:١:5\n", &[]),
            ("bob:7:0\n", &[]),
            ("bob:4294967295:10\nbob:4294967296:10\n", &[]),
            ("bob:4294967290:65536\n", &[(4_294_967_290, 5)]),
            ("bob:1:99999999999999999999999999\n", &[(1, u32::MAX - 1)]),
            ("bob:99999999999999999999999999:1\n", &[]),
            ("bob:18446744073709551615:18446744073709551615\n", &[]),
            ("bob:100000:65536\r\n\0\0:\u{fffd}\nbob:1:1", &[(100_000, 65536), (1, 1)]),
        ];
        for (text, expected) in table {
            let expected: Vec<_> =
                expected.iter().map(|&(first, count)| Span { first, count }).collect();
            assert_eq!(ranges_of(text, BOB), expected, "{text:?}");
        }
        assert_eq!(ranges("ann:1:2\n1000:5:6\n").len(), 2);
        assert!(ranges_of("bob:1:2\n", Owner { name: None, uid: 7 }).is_empty());
    }

    #[test]
    fn reads_accounts() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n+nis:x:7:7::/:\n#bob:x:7:7::/:\njunk\n::\n\
                      bob:x:1000:100:Bob:/home/bob:/bin/sh\nrob:x:1000:100:::\n\
                      big:x:99999999999:1:::\nneg:x:-1:1:::\n:x:7:7:::\nshort:x:8\n";
        let table = [(0, Some("root")), (1000, Some("bob")), (7, None), (8, Some("short"))];
        for (uid, name) in table {
            assert_eq!(user_name(passwd, uid), name, "{uid}");
        }
        assert_eq!(account_ids(passwd).collect::<Vec<_>>(), [0, 1000, 1000, 8]);
    }

    #[test]
    fn reads_the_map_of_a_namespace() {
        assert!(is_initial("         0          0 4294967295\n"));
        assert!(!is_initial("0 0 65536\n"));
        assert!(!is_initial("0 0 4294967295\n5 5 5\n"));
        assert!(!is_initial(""));
        let spans = held("  0  1000 1\n  1 100000 65536\njunk\n");
        assert_eq!(spans, [Span { first: 0, count: 1 }, Span { first: 1, count: 65536 }]);
        assert_eq!(held("0 0 4294967295\n"), [Span { first: 0, count: u32::MAX }]);
    }

    proptest::proptest! {
        #[test]
        fn takes_whatever_it_is(text in "([a-z0-9:#+-]|\\PC|\n){0,200}") {
            for span in ranges(&text).into_iter().chain(held(&text)) {
                assert!(span.count > 0 && span.end() <= u64::from(u32::MAX));
            }
            let _name = user_name(&text, 0);
        }
    }
}
