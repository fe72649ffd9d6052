//! System call rules as they stand in a profile: the `linux.seccomp` object of the OCI runtime
//! specification (config-linux.md, "Seccomp"), read strictly: an unknown field, action, operator or
//! architecture is an error and never ignored.
//!
//! What the rules mean when several name the same call (the specification leaves it open, and libseccomp
//! silently drops rules that a wider one covers): in a profile of ours, a rule with `args` goes before one
//! without. Rules with `args` for one call must therefore all allow or all refuse, and there may be one
//! verdict without. A file that was written for other runtimes means what they make of it ([`Order`]).

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::fault::{Fault, Result, printable};

/// The `linux.seccomp` object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Seccomp {
    /// The verdict on calls that no rule names, and on those the library does not know.
    pub default_action: Action,
    /// The errno of `default_action` when that is `SCMP_ACT_ERRNO`; EPERM if left out.
    pub default_errno_ret: Option<u16>,
    /// The architectures with a table of their own; those that this machine cannot run are passed over.
    /// Calls of any other architecture get ENOSYS. Empty means the native one.
    #[serde(default)]
    pub architectures: Vec<Arch>,
    /// Only `SECCOMP_FILTER_FLAG_SPEC_ALLOW`, which is always used, may stand here.
    #[serde(default)]
    pub flags: Vec<Flag>,
    /// The rules.
    #[serde(default)]
    pub syscalls: Vec<Rule>,
    /// Which of several rules for one call holds. No key of the object.
    #[serde(skip)]
    pub order: Order,
}

/// Which of several rules for one call holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Those with `args` go before the one without.
    #[default]
    ArgsFirst,
    /// As runc and crun hand them to libseccomp, one after the other: a rule without `args` hides those
    /// with `args`; a rule that compares one argument twice stands for one rule each. A call with a number
    /// above all that are named answers ENOSYS, as with runc.
    AsRunc,
}

/// One rule: a verdict on calls by name, perhaps only with certain arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// Names of system calls, as in syscalls(2).
    pub names: Vec<String>,
    /// The verdict.
    pub action: Action,
    /// The errno of `SCMP_ACT_ERRNO`; EPERM if left out, 0 means "pretend that it worked".
    pub errno_ret: Option<u16>,
    /// Conditions that must all hold.
    #[serde(default)]
    pub args: Vec<Arg>,
}

/// A condition on one argument, compared as 64 bits unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Arg {
    /// Which argument: 0 to 5.
    pub index: u32,
    /// The value; with `SCMP_CMP_MASKED_EQ` the mask.
    pub value: u64,
    /// With `SCMP_CMP_MASKED_EQ` the value that the masked argument must have.
    #[serde(default)]
    pub value_two: u64,
    /// How the argument is compared.
    pub op: Op,
}

/// A verdict. `NOTIFY` and `TRACE` need a handler, which a profile cannot bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of seccomp_rule_add(3)")]
pub enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_KILL_THREAD", alias = "SCMP_ACT_KILL")]
    KillThread,
}

/// An action with its errno.
type Verdict = (Action, Option<u16>);

impl Action {
    /// Whether the call is made.
    pub fn permits(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }
}

/// An operator of [`Arg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of seccomp_rule_add(3)")]
pub enum Op {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// An architecture that a profile may name. x32 is none that can be had: it is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of seccomp_arch_add(3)")]
pub enum Arch {
    X86_64,
    X86,
    Aarch64,
    Arm,
    /// One that we do not run on, or x32.
    Other,
}

/// What libseccomp knows besides, without `SCMP_ARCH_`.
const OTHERS: [&str; 19] = [
    "X32",
    "LOONGARCH64",
    "M68K",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "PPC",
    "PPC64",
    "PPC64LE",
    "RISCV64",
    "S390",
    "S390X",
    "SH",
    "SHEB",
];

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.strip_prefix("SCMP_ARCH_") {
            Some("X86_64") => Ok(Self::X86_64),
            Some("X86") => Ok(Self::X86),
            Some("AARCH64") => Ok(Self::Aarch64),
            Some("ARM") => Ok(Self::Arm),
            Some(other) if OTHERS.contains(&other) => Ok(Self::Other),
            _ => Err(D::Error::custom(format!("{}: no such architecture", printable(&name)))),
        }
    }
}

/// A flag of seccomp(2) that a profile may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Flag {
    /// No speculation mitigation is forced on the payload.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
}

/// The largest errno of the kernel (MAX_ERRNO); a larger one would be cut to it.
const MOST_ERRNO: u16 = 4095;

/// Comparisons of arguments, of all calls in all rules. libseccomp takes minutes for some thousand, and the kernel
/// would not take the program. The files that people have need about ten.
const MOST_COMPARISONS: usize = 512;

impl Seccomp {
    /// Rules that allow everything, on all architectures.
    pub fn open() -> Self {
        Self {
            default_action: Action::Allow,
            default_errno_ret: None,
            architectures: vec![Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm],
            flags: Vec::new(),
            syscalls: Vec::new(),
            order: Order::ArgsFirst,
        }
    }

    /// Whether no system call is refused by these rules.
    pub fn allows_all(&self) -> bool {
        self.default_action.permits() && self.syscalls.iter().all(|rule| rule.action.permits())
    }

    /// Refuses rules that contradict each other or that cannot be expressed.
    ///
    /// # Errors
    /// A fault of kind `usage` that names the system call.
    pub fn check(&self) -> Result<()> {
        self.check_rules()?;
        self.check_contradictions()
    }

    /// Refuses rules that cannot be expressed, each for itself.
    ///
    /// # Errors
    /// A fault of kind `usage` that names the system call.
    pub(super) fn check_rules(&self) -> Result<()> {
        check_errno(self.default_action, self.default_errno_ret)
            .map_err(|why| Fault::usage(format!("seccomp: defaultErrnoRet: {why}")))?;
        self.syscalls.iter().try_for_each(|rule| check_rule(rule, self.order))?;
        let comparisons = self.syscalls.iter().map(|rule| rule.names.len() * rule.args.len());
        if comparisons.sum::<usize>() > MOST_COMPARISONS {
            return Err(Fault::usage(format!(
                "seccomp: more than {MOST_COMPARISONS} comparisons of arguments"
            )));
        }
        Ok(())
    }

    /// Refuses rules that contradict each other.
    ///
    /// # Errors
    /// A fault of kind `usage` that names the system call.
    pub(super) fn check_contradictions(&self) -> Result<()> {
        let mut plain: BTreeMap<&str, Verdict> = BTreeMap::new();
        let mut permits: BTreeMap<&str, bool> = BTreeMap::new();
        let mut conditions: Vec<(&str, &[Arg], Verdict)> = Vec::new();
        for rule in &self.syscalls {
            let verdict = (rule.action, rule.errno_ret);
            for name in &rule.names {
                let agrees = if rule.args.is_empty() {
                    *plain.entry(name).or_insert(verdict) == verdict
                } else if self.order == Order::ArgsFirst {
                    *permits.entry(name).or_insert(rule.action.permits()) == rule.action.permits()
                } else {
                    let same = |other: &&(&str, &[Arg], _)| other.0 == name && other.1 == rule.args;
                    conditions.iter().find(same).is_none_or(|(_, _, known)| *known == verdict)
                };
                if !agrees {
                    return Err(Fault::usage(format!(
                        "seccomp: {}: two rules contradict",
                        printable(name)
                    )));
                }
                if !rule.args.is_empty() {
                    conditions.push((name, &rule.args, verdict));
                }
            }
        }
        Ok(())
    }
}

fn check_errno(action: Action, errno: Option<u16>) -> std::result::Result<(), String> {
    match errno {
        Some(_) if action != Action::Errno => Err("is for SCMP_ACT_ERRNO only".to_owned()),
        Some(errno) if errno > MOST_ERRNO => Err(format!("{errno}: above {MOST_ERRNO}")),
        _ => Ok(()),
    }
}

fn check_rule(rule: &Rule, order: Order) -> Result<()> {
    let name = rule.names.first().map_or("(no name)", String::as_str);
    let wrong = |why: &str| Err(Fault::usage(format!("seccomp: {}: {why}", printable(name))));
    if let Err(why) = check_errno(rule.action, rule.errno_ret) {
        return wrong(&format!("errnoRet: {why}"));
    }
    let mut seen = [false; 6];
    for arg in &rule.args {
        let Some(seen) = seen.get_mut(arg.index as usize) else {
            return wrong("argument index above 5");
        };
        let twice = std::mem::replace(seen, true);
        if order == Order::AsRunc {
            continue;
        }
        // libseccomp cannot combine two comparisons of one argument: two rules are needed.
        if twice {
            return wrong(&format!("argument {} is compared twice in one rule", arg.index));
        }
        if arg.op != Op::MaskedEqual && arg.value_two != 0 {
            return wrong("valueTwo is for SCMP_CMP_MASKED_EQ only");
        }
        if arg.op == Op::MaskedEqual && arg.value_two & !arg.value != 0 {
            return wrong("valueTwo has bits outside the mask, so it never matches");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(syscalls: &str) -> Result<()> {
        let text = format!("{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{syscalls}]}}");
        serde_json::from_str::<Seccomp>(&text)
            .map_err(|error| Fault::usage(error.to_string()))?
            .check()
    }

    #[test]
    fn contradictions_are_refused() {
        let allow = r#"{"names":["read"],"action":"SCMP_ACT_ALLOW"}"#;
        let refuse = r#"{"names":["read"],"action":"SCMP_ACT_ERRNO"}"#;
        let if_one = r#"{"names":["read"],"action":"SCMP_ACT_ALLOW",
            "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}"#;
        let not_two = r#"{"names":["read"],"action":"SCMP_ACT_ERRNO",
            "args":[{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}"#;
        assert!(parse(&format!("{allow},{allow}")).is_ok());
        assert!(parse(&format!("{if_one},{refuse}")).is_ok());
        assert!(parse(&format!("{allow},{refuse}")).is_err());
        assert!(parse(&format!("{if_one},{not_two}")).is_err());
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let rule = |args: &str| {
            format!(r#"{{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{args}]}}"#)
        };
        for bad in [
            r#"{"index":6,"value":1,"op":"SCMP_CMP_EQ"}"#,
            r#"{"index":0,"value":1,"valueTwo":3,"op":"SCMP_CMP_EQ"}"#,
            r#"{"index":0,"value":1,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}"#,
            r#"{"index":0,"value":1,"op":"SCMP_CMP_GE"},{"index":0,"value":3,"op":"SCMP_CMP_LE"}"#,
            r#"{"index":0,"value":1,"op":"EQ"}"#,
            r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ","mask":1}"#,
        ] {
            assert!(parse(&rule(bad)).is_err(), "{bad}");
        }
        assert!(parse(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#).is_err());
    }
}
