//! System call rules as they stand in a profile: the `linux.seccomp` object of the OCI runtime
//! specification (config-linux.md, "Seccomp"), read strictly: an unknown field, action, operator or
//! architecture is an error and never ignored.
//!
//! What the rules mean when several name the same call (the specification leaves it open, and libseccomp
//! silently drops rules that a wider one covers): a rule with `args` goes before one without. Rules with
//! `args` for one call must therefore all allow or all refuse, and there may be one verdict without.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fault::{Fault, Result};

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

/// An architecture that a profile may name. x32 is not among them: it is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of seccomp_arch_add(3)")]
pub enum Arch {
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
}

/// A flag of seccomp(2) that a profile may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Flag {
    /// No speculation mitigation is forced on the payload.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
}

impl Seccomp {
    /// Refuses rules that contradict each other or that libseccomp cannot express.
    ///
    /// # Errors
    /// A fault of kind `usage` that names the system call.
    pub fn check(&self) -> Result<()> {
        let mut plain: BTreeMap<&str, (Action, Option<u16>)> = BTreeMap::new();
        let mut conditional: BTreeMap<&str, bool> = BTreeMap::new();
        for rule in &self.syscalls {
            check_arguments(rule)?;
            for name in &rule.names {
                let verdict = (rule.action, rule.errno_ret);
                let agrees = if rule.args.is_empty() {
                    *plain.entry(name).or_insert(verdict) == verdict
                } else {
                    let permits = rule.action.permits();
                    *conditional.entry(name).or_insert(permits) == permits
                };
                if !agrees {
                    return Err(Fault::usage(format!("seccomp: {name}: two rules contradict")));
                }
            }
        }
        Ok(())
    }
}

fn check_arguments(rule: &Rule) -> Result<()> {
    let name = rule.names.first().map_or("(no name)", String::as_str);
    let mut seen = [false; 6];
    for arg in &rule.args {
        match seen.get_mut(arg.index as usize) {
            None => {
                return Err(Fault::usage(format!("seccomp: {name}: argument index above 5")));
            }
            // libseccomp cannot combine two comparisons of one argument: two rules are needed.
            Some(true) => {
                return Err(Fault::usage(format!(
                    "seccomp: {name}: argument {} is compared twice in one rule",
                    arg.index
                )));
            }
            Some(slot) => *slot = true,
        }
        if arg.op != Op::MaskedEqual && arg.value_two != 0 {
            return Err(Fault::usage(format!(
                "seccomp: {name}: valueTwo is for SCMP_CMP_MASKED_EQ only"
            )));
        }
        if arg.op == Op::MaskedEqual && arg.value_two & !arg.value != 0 {
            return Err(Fault::usage(format!(
                "seccomp: {name}: valueTwo has bits outside the mask, so it never matches"
            )));
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
