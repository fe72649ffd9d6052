//! Seccomp files as Docker and podman have them: the `linux.seccomp` object of the OCI runtime specification
//! with `archMap`, and with rules that hold only for some capabilities (`includes`, `excludes`), machines or
//! kernels. An OCI object itself is read, too: it is the same without these.
//!
//! Docker's fields are those of moby's profiles/seccomp, podman adds names of error codes. Both decide by the
//! bounding set of capabilities, the machine in Go's words, and the first two numbers of the kernel's version.
//! Read strictly: what is not known is an error, so that a typing error never loosens a sandbox.

use serde::Deserialize;

use super::caps::CapSet;
use super::filter::{Action, Arch, Arg, Flag, Order, Rule, Seccomp};
use crate::fault::{Fault, Result, printable};

/// What rules may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// The capabilities that the payload can have.
    pub capabilities: CapSet,
    /// The machine, and its name in the files.
    pub machine: (Arch, &'static str),
    /// The first two numbers of the kernel's version.
    pub kernel: (u32, u32),
}

/// Machines in the words of the files: Go's, and libseccomp's for those of several kinds.
const MACHINES: [&str; 23] = [
    "386",
    "amd64",
    "arm",
    "arm64",
    "loong64",
    "loongarch64",
    "mips",
    "mips3l64n32",
    "mips64",
    "mips64le",
    "mips64n32",
    "mips64p32",
    "mips64p32le",
    "mipsel",
    "mipsel64",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390",
    "s390x",
    "x32",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    default_action: Action,
    default_errno_ret: Option<u16>,
    default_errno: Option<String>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<Family>>,
    flags: Option<Vec<Flag>>,
    syscalls: Option<Vec<Call>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Family {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Call {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: Action,
    errno_ret: Option<u16>,
    errno: Option<String>,
    args: Option<Vec<Arg>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<When>,
    excludes: Option<When>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct When {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Host {
    /// This machine, for a payload with these capabilities.
    pub fn here(capabilities: CapSet) -> Self {
        let machine = match std::env::consts::ARCH {
            "x86_64" => (Arch::X86_64, "amd64"),
            "x86" => (Arch::X86, "x86"),
            "aarch64" => (Arch::Aarch64, "arm64"),
            "arm" => (Arch::Arm, "arm"),
            _ => (Arch::Other, ""),
        };
        let uname = rustix::system::uname();
        let release = uname.release().to_str().ok().and_then(kernel_of_release);
        // A release that cannot be read is as old as can be: no rule that needs a newer kernel.
        Self { capabilities, machine, kernel: release.unwrap_or_default() }
    }
}

/// The first two numbers of `6.18.4-arch1`.
fn kernel_of_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Reads a file's text, and decides its conditions for `host`.
///
/// # Errors
/// `usage` with line and column, or with the rule, for what cannot be right.
pub fn read(text: &str, host: &Host) -> Result<Seccomp> {
    let document: Document =
        serde_json::from_str(text).map_err(|error| Fault::usage(error.to_string()))?;
    let mut seccomp = Seccomp {
        default_action: document.default_action,
        default_errno_ret: errno(document.default_errno_ret, document.default_errno.as_deref())
            .map_err(|why| Fault::usage(format!("seccomp: defaultErrno: {why}")))?,
        architectures: architectures(document.architectures, document.arch_map, host)?,
        flags: document.flags.unwrap_or_default(),
        syscalls: Vec::new(),
        order: Order::AsRunc,
    };
    let calls = document.syscalls.unwrap_or_default();
    let decided = calls.into_iter().map(|call| call.decide(host)).collect::<Result<Vec<_>>>()?;
    // Rules that do not hold here must be right, too.
    seccomp.syscalls = rules(&decided, |_| true);
    seccomp.check_rules()?;
    // podman's own file allows setns, and refuses it to who lacks a capability; libseccomp makes something of
    // it. Two rules without a condition are a mistake.
    seccomp.syscalls = rules(&decided, |decided: &Decided| decided.always);
    seccomp.check_contradictions()?;
    seccomp.syscalls = rules(&decided, |decided| decided.holds);
    Ok(seccomp)
}

fn rules(decided: &[Decided], which: fn(&Decided) -> bool) -> Vec<Rule> {
    decided.iter().filter(|decided| which(decided)).map(|decided| decided.rule.clone()).collect()
}

/// A rule, and what its conditions say.
#[derive(Debug)]
struct Decided {
    rule: Rule,
    /// Whether it holds here.
    holds: bool,
    /// Whether it has no conditions.
    always: bool,
}

fn architectures(
    plain: Option<Vec<Arch>>,
    map: Option<Vec<Family>>,
    host: &Host,
) -> Result<Vec<Arch>> {
    let (plain, map) = (plain.unwrap_or_default(), map.unwrap_or_default());
    if !plain.is_empty() && !map.is_empty() {
        return Err(Fault::usage("seccomp: `architectures` and `archMap` exclude each other"));
    }
    let Some(own) = map.into_iter().find(|family| family.architecture == host.machine.0) else {
        return Ok(plain);
    };
    let mut all = vec![own.architecture];
    all.extend(own.sub_architectures.unwrap_or_default());
    Ok(all)
}

impl Call {
    fn decide(self, host: &Host) -> Result<Decided> {
        let names = match (self.name.filter(|name| !name.is_empty()), self.names) {
            (None, names) => names.unwrap_or_default(),
            (Some(name), None) => vec![name],
            (Some(name), Some(names)) if names.is_empty() => vec![name],
            (Some(name), Some(_)) => {
                return Err(Fault::usage(format!(
                    "seccomp: {}: `name` and `names` exclude each other",
                    printable(&name)
                )));
            }
        };
        let named = |why: String| {
            let first = names.first().map_or("(no name)", String::as_str);
            Fault::usage(format!("seccomp: {}: {why}", printable(first)))
        };
        let excluded = self.excludes.unwrap_or_default().hold(host).map_err(named)?;
        let included = self.includes.unwrap_or_default().hold(host).map_err(named)?;
        let errno_ret = errno(self.errno_ret, self.errno.as_deref()).map_err(named)?;
        let args = self.args.unwrap_or_default();
        Ok(Decided {
            rule: Rule { names, action: self.action, errno_ret, args },
            holds: !excluded.contains(&true) && !included.contains(&false),
            always: excluded.is_empty() && included.is_empty(),
        })
    }
}

impl When {
    /// Which of the conditions hold: one for each capability, one for all machines, one for the kernel.
    fn hold(self, host: &Host) -> Result<Vec<bool>, String> {
        let mut hold = Vec::new();
        for name in self.caps.unwrap_or_default() {
            let set = CapSet::from_names([name.as_str()]).map_err(|fault| fault.message)?;
            hold.push(host.capabilities.0 & set.0 == set.0);
        }
        let arches = self.arches.unwrap_or_default();
        let unknown = |name: &&String| name.as_str() != "x86" && !MACHINES.contains(&name.as_str());
        if let Some(unknown) = arches.iter().find(unknown) {
            return Err(format!("{}: no such machine", printable(unknown)));
        }
        if !arches.is_empty() {
            hold.push(arches.iter().any(|name| name == host.machine.1));
        }
        match self.min_kernel.as_deref() {
            None | Some("") => {}
            Some(text) => hold.push(host.kernel >= kernel(text)?),
        }
        Ok(hold)
    }
}

/// A version as the files write it, `4.8`.
fn kernel(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("minKernel: {}: not two numbers such as 4.8", printable(text));
    let (first, second) = text.split_once('.').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u8>().map(u32::from).map_err(|_| wrong());
    match (number(first)?, number(second)?) {
        (0, 0) => Err(wrong()),
        version => Ok(version),
    }
}

/// An error code by number, by name, or by both if they agree.
fn errno(number: Option<u16>, name: Option<&str>) -> Result<Option<u16>, String> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(number) };
    let known = match name {
        "EWOULDBLOCK" => "EAGAIN",
        "ENOTSUP" => "EOPNOTSUPP",
        "EDEADLOCK" => "EDEADLK",
        other => other,
    };
    let is_it = |code: &u16| format!("{:?}", nix::errno::Errno::from_raw((*code).into())) == known;
    let Some(named) = (1..200).find(is_it).filter(|_| known != "UnknownErrno") else {
        return Err(format!("{}: no such error code", printable(name)));
    };
    match number {
        Some(number) if number != named => Err(format!("{name} is {named} and not {number}")),
        _ => Ok(Some(named)),
    }
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
