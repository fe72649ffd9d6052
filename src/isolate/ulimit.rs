//! `--ulimit NAME=SOFT[:HARD]`: the names and numbers of setrlimit(2).

use rustix::process::{Resource, Rlimit, getrlimit};

use crate::fault::{Fault, Result, printable};

/// The limits that can be set, by the names that ulimit(1), docker and podman use.
const NAMES: [(&str, Resource); 15] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// The three standard descriptors, and one to load a library or to make the network with.
const LEAST_FILES: u64 = 4;

/// One limit: none means unlimited. Sizes are bytes, `cpu` is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// Its name.
    pub name: &'static str,
    /// What is limited.
    pub resource: Resource,
    /// What signals and errors follow from.
    pub soft: Option<u64>,
    /// How far a program may raise it.
    pub hard: Option<u64>,
}

/// Reads `NAME=SOFT[:HARD]`; without HARD both are SOFT. A number, or `unlimited`, or `-1` for the same.
///
/// # Errors
/// Usage: an unknown name, what is no number, a soft limit above the hard one.
pub fn parse(text: &str) -> Result<Ulimit> {
    let form = || Fault::usage("write NAME=SOFT or NAME=SOFT:HARD, such as nofile=1024:4096");
    let (name, value) = text.split_once('=').ok_or_else(form)?;
    let Some((name, resource)) = NAMES.into_iter().find(|(known, _)| *known == name) else {
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        return Err(Fault::usage(format!("no such limit: {}", printable(name)))
            .hint(format!("the limits are {}", names.join(", "))));
    };
    let (soft, hard) = match value.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(value)?, number(value)?),
    };
    let above = match (soft, hard) {
        (None, Some(_)) => true,
        (Some(soft), Some(hard)) => soft > hard,
        (_, None) => false,
    };
    if above {
        return Err(Fault::usage(format!("{name}: the soft limit is above the hard one")));
    }
    if resource == Resource::Nofile && soft.is_some_and(|soft| soft < LEAST_FILES) {
        return Err(Fault::usage("nofile: less than 4: no program starts with that"));
    }
    Ok(Ulimit { name, resource, soft, hard })
}

fn number(text: &str) -> Result<Option<u64>> {
    if text == "unlimited" || text == "-1" {
        return Ok(None);
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // The largest number is the kernel's own word for unlimited.
    match text.parse::<u64>() {
        Ok(number) if digits && number != u64::MAX => Ok(Some(number)),
        _ => Err(Fault::usage(format!("not a number: {}", printable(text)))
            .hint("a number without a unit, or unlimited")),
    }
}

impl Ulimit {
    /// As setrlimit(2) takes it.
    ///
    /// # Errors
    /// Usage if it is above what this process may have at most: nobody inside could be given that.
    pub fn plan(&self) -> Result<(Resource, Rlimit)> {
        let most = getrlimit(self.resource).maximum;
        if let Some(most) = most
            && self.hard.is_none_or(|hard| hard > most)
        {
            let name = self.name;
            return Err(Fault::usage(format!(
                "--ulimit: {name}: above the caller's hard limit, {most}"
            ))
            .hint(format!(
                "--ulimit {name}={most}, or raise the limit of the shell you start from"
            )));
        }
        Ok((self.resource, Rlimit { current: self.soft, maximum: self.hard }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let read = |text: &str| parse(text).map(|limit| (limit.name, limit.soft, limit.hard)).ok();
        assert_eq!(read("nofile=64"), Some(("nofile", Some(64), Some(64))));
        assert_eq!(read("nofile=64:128"), Some(("nofile", Some(64), Some(128))));
        assert_eq!(read("core=0:unlimited"), Some(("core", Some(0), None)));
        assert_eq!(read("stack=-1"), Some(("stack", None, None)));
        for bad in [
            "",
            "nofile",
            "nofile=",
            "=1",
            "files=1",
            "nofile=1k",
            "nofile=2:1",
            "nofile=3",
            "nofile=0:64",
            "nofile=1:",
            "nofile=unlimited:5",
            "nofile=+1",
            "nofile= 1",
            "nofile=1:2:3",
            "nofile=-2",
            "nofile=18446744073709551615",
            "nofile=99999999999999999999",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn nobody_gets_more_than_the_caller_has() {
        let most = getrlimit(Resource::Nofile).maximum.expect("descriptors are always limited");
        let plan = |hard| parse(&format!("nofile=10:{hard}")).and_then(|limit| limit.plan());
        assert!(plan(most).is_ok());
        let fault = plan(most + 1).expect_err("too many");
        assert!(fault.message.contains("above the caller's hard limit"), "{fault}");
    }
}
