//! The environment of a payload, built from nothing.
//!
//! Later entries win: our defaults, then the caller's variables that the profile passes on, then what
//! the profile sets, then what the command line sets.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::profile::Profile;
use crate::fault::{Fault, Result, printable};

/// What every payload has, unless something below says otherwise.
const DEFAULTS: [(&str, &str); 6] = [
    ("HOME", "/root"),
    ("LOGNAME", "root"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("SHELL", "/bin/sh"),
    ("USER", "root"),
    // systemd.io/CONTAINER_INTERFACE: tells programs that they run in a container.
    ("container", "sandbox"),
];

/// What leads to the caller's keys and session: never passed on by a profile, even one that says `*`.
const NEVER: [&str; 5] =
    ["DBUS_SESSION_BUS_ADDRESS", "GPG_AGENT_INFO", "SSH_AGENT_PID", "SSH_AUTH_SOCK", "XAUTHORITY"];

/// The environment as `NAME=value` strings, sorted by name.
///
/// `caller` is the environment we were started with; `overrides` are the command line's, of which the
/// last of a name wins.
///
/// # Errors
/// `usage` if an override has an empty name, one with `=`, or a null byte.
pub fn environment(
    profile: &Profile,
    caller: impl Iterator<Item = (OsString, OsString)>,
    overrides: &[(OsString, OsString)],
) -> Result<Vec<CString>> {
    let mut variables: BTreeMap<OsString, OsString> =
        DEFAULTS.iter().map(|(name, value)| (name.into(), value.into())).collect();
    variables.extend(caller.filter(|(name, _)| passes(profile, name.as_bytes())));
    let set = &profile.environment.set;
    variables.extend(set.iter().map(|(name, value)| (name.into(), value.into())));
    for (name, value) in overrides {
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return Err(bad(name));
        }
        variables.insert(name.clone(), value.clone());
    }
    variables.into_iter().map(|(name, value)| line(name, &value)).collect()
}

/// Adds a variable, unless somebody has set it.
pub fn add(environment: &mut Vec<CString>, line: &CStr) {
    let name = |line: &CStr| line.to_bytes().split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    if let Err(at) = environment.binary_search_by_key(&name(line), |known| name(known)) {
        environment.insert(at, line.to_owned());
    }
}

fn line(name: OsString, value: &OsString) -> Result<CString> {
    let mut bytes = name.clone().into_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    CString::new(bytes).map_err(|_| bad(&name))
}

fn bad(name: &OsString) -> Fault {
    Fault::usage(format!(
        "set variable: {}: not a name and value of a variable",
        printable(&name.to_string_lossy())
    ))
}

fn passes(profile: &Profile, name: &[u8]) -> bool {
    // A name without `=` in front cannot be passed; one with a parenthesis is a shell's function.
    let plain = !name.is_empty() && !name.contains(&b'=') && !name.contains(&b'(');
    let never = NEVER.iter().any(|never| never.as_bytes() == name);
    let listed = profile.environment.pass.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix.as_bytes()),
        None => name == pattern.as_bytes(),
    });
    plain && !never && listed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn built(profile: &str, caller: &[(&str, &str)], overrides: &[(&str, &str)]) -> Vec<String> {
        let profile = Profile::builtin(profile).expect("built in");
        environment(&profile, pairs(caller).into_iter(), &pairs(overrides))
            .expect("valid")
            .into_iter()
            .map(|line| line.into_string().expect("text"))
            .collect()
    }

    #[test]
    fn only_listed_variables_pass() {
        let caller = [
            ("TERM", "xterm"),
            ("LC_TIME", "C"),
            ("https_proxy", "http://p:1"),
            ("SSH_AUTH_SOCK", "/run/agent"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("PATH", "/home/me/bin"),
        ];
        let lines = built("build", &caller, &[]);
        for expected in ["TERM=xterm", "LC_TIME=C", "https_proxy=http://p:1", "container=sandbox"] {
            assert!(lines.iter().any(|line| line == expected), "{expected}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("SSH") || line.starts_with("AWS")));
        assert!(lines.iter().any(|line| line.starts_with("PATH=/usr/local/sbin:")));
        assert!(!built("strict", &caller, &[]).iter().any(|line| line.contains("proxy")));
    }

    #[test]
    fn what_is_added_displaces_nothing() {
        let set = |lines: &[&str]| -> Vec<CString> {
            lines.iter().map(|line| CString::new(*line).expect("no null byte")).collect()
        };
        let mut lines = set(&["APT=x", "HOME=/root"]);
        add(&mut lines, c"APT_CONFIG=/run/ours");
        add(&mut lines, c"HOME=/nowhere");
        assert_eq!(lines, set(&["APT=x", "APT_CONFIG=/run/ours", "HOME=/root"]));
    }

    #[test]
    fn the_command_line_has_the_last_word() {
        let lines = built("dev", &[], &[("HOME", "/a"), ("HOME", "/b"), ("SSH_AUTH_SOCK", "/s")]);
        assert!(lines.contains(&"HOME=/b".to_owned()) && !lines.contains(&"HOME=/a".to_owned()));
        assert!(lines.contains(&"SSH_AUTH_SOCK=/s".to_owned()));
    }

    #[test]
    fn a_bad_override_is_refused() {
        let profile = Profile::builtin("build").expect("built in");
        for (name, value) in [("", "x"), ("a=b", "x"), ("a", "x\0y")] {
            assert!(environment(&profile, std::iter::empty(), &pairs(&[(name, value)])).is_err());
        }
    }
}
