//! Rules to BPF, by libseccomp.
//!
//! libseccomp has one verdict tree in which a rule without conditions swallows those with conditions on
//! the same call, so one tree cannot say "ioctl is allowed, but for these two values". The program is
//! therefore made of up to three trees, one behind the other, and the first that has a verdict decides:
//!
//! 1. what [`super::policy`] refuses or pretends under a condition,
//! 2. the profile's rules with conditions,
//! 3. the profile's rules without, and its default.
//!
//! The first two are compiled with a verdict of their own for "nothing to say" ([`UNDECIDED`]), and each
//! return of that verdict is rewritten to a jump behind the end of its tree. BPF jumps are relative, so
//! nothing else changes. The first two are binary trees by call number (`SCMP_FLTATR_CTL_OPTIMIZE` 2);
//! the third looks at no arguments and is rewritten to a shorter form where [`bpf`] can.

use std::collections::BTreeMap;

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use rustix::io::{read, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::bpf::{self, INSTRUCTION, JUMP, RET};
use super::filter::{Action, Arch, Arg, Op, Seccomp};
use super::policy::{self, Conditional};
use super::seccomp::Request;
use crate::fault::{Context, Fault, Result};

/// "This tree has no verdict". A profile cannot contain it: [`Action`] has no TRACE.
const UNDECIDED: ScmpAction = ScmpAction::Trace(0x5342);
/// [`UNDECIDED`] as the kernel sees it: SECCOMP_RET_TRACE and the number.
const UNDECIDED_RET: u32 = 0x7ff0_5342;
/// BPF_MAXINSNS.
const MOST_INSTRUCTIONS: usize = 4096;
/// More than a program may have, but not more than a message of a socket.
const MOST_EXPORTED: usize = 4 * MOST_INSTRUCTIONS * INSTRUCTION;

/// The verdicts on one call: under conditions, and otherwise.
#[derive(Debug, Default)]
struct Verdicts {
    conditions: Vec<(Vec<Arg>, ScmpAction)>,
    otherwise: Option<ScmpAction>,
}

impl Verdicts {
    fn plain(action: ScmpAction) -> Self {
        Self { conditions: Vec::new(), otherwise: Some(action) }
    }
}

type Table<'a> = BTreeMap<&'a str, Verdicts>;

/// Compiles the filter: an array of struct sock_filter as bytes.
pub(super) fn compile(seccomp: &Seccomp, request: &Request) -> Result<Vec<u8>> {
    let default = action(seccomp.default_action, seccomp.default_errno_ret);
    let mut table = profile_table(seccomp);
    if request.nesting {
        replace(&mut table, policy::NESTED, ScmpAction::Allow);
    }
    replace(&mut table, policy::REFUSED, ScmpAction::Errno(libc::EPERM));
    let mut before = conditional_table(policy::REFUSED_IF);
    if request.single {
        replace(&mut table, policy::PRETENDED, ScmpAction::Errno(0));
        before.append(&mut conditional_table(policy::PRETENDED_IF));
    }
    let mut conditions = Table::new();
    for (name, verdicts) in &mut table {
        if !verdicts.conditions.is_empty() {
            let conditions_of_name = std::mem::take(&mut verdicts.conditions);
            conditions.insert(*name, Verdicts { conditions: conditions_of_name, otherwise: None });
        }
    }
    if conditions.keys().all(|name| !before.contains_key(name)) {
        // No call stands in both, so one tree can hold them.
        before.append(&mut conditions);
    }

    let architectures = architectures(&seccomp.architectures);
    let mut program = Vec::new();
    for table in [before, conditions] {
        if !table.is_empty() {
            let tree = tree(&table, &architectures, UNDECIDED, UNDECIDED)?;
            program.extend(pass_on(tree));
        }
    }
    let unknown_architecture = ScmpAction::Errno(libc::ENOSYS);
    program.extend(shortened(
        tree(&table, &architectures, default, unknown_architecture)?,
        &architectures,
    ));
    if program.len() > MOST_INSTRUCTIONS * INSTRUCTION {
        return Err(Fault::usage("seccomp: the profile's filter is longer than the kernel takes"));
    }
    Ok(program)
}

/// Whether the library knows a system call of that name, on any architecture.
pub(super) fn is_known(name: &str) -> bool {
    ScmpSyscall::from_name(name).is_ok()
}

fn profile_table(seccomp: &Seccomp) -> Table<'_> {
    let mut table = Table::new();
    for rule in &seccomp.syscalls {
        let verdict = action(rule.action, rule.errno_ret);
        for name in rule.names.iter().filter(|name| is_known(name)) {
            let verdicts = table.entry(name.as_str()).or_default();
            if rule.args.is_empty() {
                verdicts.otherwise = Some(verdict);
            } else {
                verdicts.conditions.push((rule.args.clone(), verdict));
            }
        }
    }
    table
}

fn replace<'a>(table: &mut Table<'a>, names: &[&'a str], verdict: ScmpAction) {
    for name in names {
        table.insert(name, Verdicts::plain(verdict));
    }
}

fn conditional_table(rules: &'static [Conditional]) -> Table<'static> {
    let mut table = Table::new();
    for rule in rules {
        let verdict = ScmpAction::Errno(rule.errno.into());
        let verdicts = table.entry(rule.name).or_default();
        if rule.args.is_empty() {
            verdicts.otherwise = Some(verdict);
        } else {
            verdicts.conditions.push((rule.args.to_vec(), verdict));
        }
    }
    table
}

/// One tree over all architectures.
fn tree(
    table: &Table<'_>,
    architectures: &[ScmpArch],
    default: ScmpAction,
    unknown_architecture: ScmpAction,
) -> Result<Vec<u8>> {
    let mut context = ScmpFilterContext::new(default).map_err(|error| failed("begin", &error))?;
    prepare(&mut context, architectures, unknown_architecture)
        .map_err(|error| failed("set up", &error))?;
    for (name, verdicts) in table {
        let call = ScmpSyscall::from_name(name).map_err(|error| failed(name, &error))?;
        for (args, verdict) in &verdicts.conditions {
            let args: Vec<_> = args.iter().map(comparison).collect();
            context
                .add_rule_conditional(*verdict, call, &args)
                .map_err(|error| failed(name, &error))?;
        }
        // libseccomp refuses a rule that only repeats the default.
        if let Some(verdict) = verdicts.otherwise.filter(|verdict| *verdict != default) {
            context.add_rule(verdict, call).map_err(|error| failed(name, &error))?;
        }
    }
    export(&context)
}

fn prepare(
    context: &mut ScmpFilterContext,
    architectures: &[ScmpArch],
    unknown_architecture: ScmpAction,
) -> Result<(), libseccomp::error::SeccompError> {
    // Before any rule: a rule is translated for the architectures present when it is added.
    for arch in architectures {
        context.add_arch(*arch)?;
    }
    if !architectures.contains(&ScmpArch::native()) {
        context.remove_arch(ScmpArch::native())?;
    }
    context.set_act_badarch(unknown_architecture)?;
    // The loader sets no_new_privs itself, much earlier.
    context.set_ctl_nnp(false)?;
    context.set_ctl_optimize(2)?;
    Ok(())
}

/// By a socket that keeps messages whole: libseccomp takes a short write for a success, so a file on a full
/// disk or beyond a limit would give half a program.
fn export(context: &ScmpFilterContext) -> Result<Vec<u8>> {
    let (theirs, ours) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context("create sockets", "for the seccomp program")?;
    context.export_bpf(&theirs).map_err(|error| failed("export", &error))?;
    let mut program = vec![0; MOST_EXPORTED];
    let length = retry_on_intr(|| read(&ours, &mut program)).context("read", "seccomp program")?;
    program.truncate(length);
    Ok(program)
}

/// Turns each "undecided" of a tree into a jump behind its end.
fn pass_on(mut tree: Vec<u8>) -> Vec<u8> {
    let count = tree.len() / INSTRUCTION;
    for (position, instruction) in tree.chunks_exact_mut(INSTRUCTION).enumerate() {
        let code = u16::from_ne_bytes([instruction[0], instruction[1]]);
        let (head, value) = instruction.split_at_mut(4);
        if code == RET && value == UNDECIDED_RET.to_ne_bytes().as_slice() {
            head[..2].copy_from_slice(&JUMP.to_ne_bytes());
            let behind = (count - position - 1) as u32;
            value.copy_from_slice(&behind.to_ne_bytes());
        }
    }
    tree
}

/// The last tree in a shorter form with the same verdicts, on x86; elsewhere as it is, because ARM has
/// calls of its own with large numbers.
fn shortened(tree: Vec<u8>, architectures: &[ScmpArch]) -> Vec<u8> {
    let numbers: Option<Vec<_>> = architectures
        .iter()
        .map(|arch| match arch {
            ScmpArch::X8664 => Some(bpf::X86[0]),
            ScmpArch::X86 => Some(bpf::X86[1]),
            _ => None,
        })
        .collect();
    numbers.and_then(|numbers| bpf::by_intervals(&tree, &numbers)).unwrap_or(tree)
}

/// Those architectures of the profile whose calls this machine's kernel can take.
fn architectures(named: &[Arch]) -> Vec<ScmpArch> {
    let native = ScmpArch::native();
    let here: Vec<_> = named
        .iter()
        .filter_map(|arch| match (arch, native) {
            (Arch::X86_64, ScmpArch::X8664) => Some(ScmpArch::X8664),
            (Arch::X86, ScmpArch::X8664 | ScmpArch::X86) => Some(ScmpArch::X86),
            (Arch::Aarch64, ScmpArch::Aarch64) => Some(ScmpArch::Aarch64),
            (Arch::Arm, ScmpArch::Aarch64 | ScmpArch::Arm) => Some(ScmpArch::Arm),
            _ => None,
        })
        .collect();
    if here.is_empty() { vec![native] } else { here }
}

fn action(action: Action, errno: Option<u16>) -> ScmpAction {
    match action {
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Trap => ScmpAction::Trap,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::KillThread => ScmpAction::KillThread,
        Action::Errno => ScmpAction::Errno(errno.map_or(libc::EPERM, i32::from)),
    }
}

fn comparison(arg: &Arg) -> ScmpArgCompare {
    let (op, datum) = match arg.op {
        Op::NotEqual => (ScmpCompareOp::NotEqual, arg.value),
        Op::Less => (ScmpCompareOp::Less, arg.value),
        Op::LessEqual => (ScmpCompareOp::LessOrEqual, arg.value),
        Op::Equal => (ScmpCompareOp::Equal, arg.value),
        Op::GreaterEqual => (ScmpCompareOp::GreaterEqual, arg.value),
        Op::Greater => (ScmpCompareOp::Greater, arg.value),
        Op::MaskedEqual => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two),
    };
    ScmpArgCompare::new(arg.index, op, datum)
}

fn failed(what: &str, error: &libseccomp::error::SeccompError) -> Fault {
    Fault::failed(format!("compile seccomp filter: {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::profile::Profile;
    use super::*;

    #[test]
    fn the_short_form_gives_the_same_verdicts() {
        for name in Profile::builtin_names() {
            let seccomp = Profile::builtin(name).and_then(|p| p.seccomp()).expect("built in");
            let default = action(seccomp.default_action, seccomp.default_errno_ret);
            let architectures = architectures(&seccomp.architectures);
            let bad = ScmpAction::KillProcess;
            // Rules with conditions are no part of the last tree.
            let mut plain = profile_table(&seccomp);
            plain.values_mut().for_each(|verdicts| verdicts.conditions.clear());
            let tree = tree(&plain, &architectures, default, bad).expect("compiles");
            let short = shortened(tree.clone(), &architectures);
            assert!(short.len() < tree.len() / 2, "{} of {}", short.len(), tree.len());
            for arch in [bpf::X86[0], bpf::X86[1], 0xc000_00b7, 0] {
                let x32 = 0x4000_0000;
                for number in (0..5000).chain(x32 - 9..x32 + 1000).chain([0x7fff_ffff, 0xf000_0000])
                {
                    let verdict = bpf::verdict(&tree, arch, number, [0; 6]);
                    assert!(verdict.is_some());
                    assert_eq!(bpf::verdict(&short, arch, number, [0; 6]), verdict, "{number:#x}");
                }
            }
        }
    }
}
