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
//! nothing else changes. All are binary trees by call number (`SCMP_FLTATR_CTL_OPTIMIZE` 2). On x86 the whole is
//! rewritten then to a form that loads faster ([`search`]).
//!
//! Rules of a file that was written for other runtimes ([`Order::AsRunc`]) are one tree instead of the last
//! two, made as those make it; a program before it knows what libseccomp does not, and what runc does of its
//! own: a call that is newer than all that the file names answers ENOSYS and not the default.

use std::collections::BTreeMap;

use libseccomp::{ScmpAction, ScmpArch, ScmpFilterContext, ScmpSyscall};
use rustix::io::{read, retry_on_intr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::bpf::{self, INSTRUCTION, JUMP, MOST_INSTRUCTIONS, RET};
use super::filter::{Arg, Order, Rule, Seccomp};
use super::newer;
use super::policy::{self, Conditional};
use super::scmp::{action, architectures, comparison, returned, token};
use super::search;
use super::seccomp::Request;
use crate::fault::{Context, Fault, Result};

/// "This tree has no verdict". A profile cannot contain it: [`Action`] has no TRACE.
const UNDECIDED: ScmpAction = ScmpAction::Trace(0x5342);
/// [`UNDECIDED`] as the kernel sees it: SECCOMP_RET_TRACE and the number.
const UNDECIDED_RET: u32 = 0x7ff0_5342;
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
    let architectures = architectures(&seccomp.architectures);
    let program = shortened(in_trees(seccomp, request, &architectures)?, &architectures);
    if program.len() > MOST_INSTRUCTIONS * INSTRUCTION {
        return Err(Fault::usage("seccomp: the profile's filter is longer than the kernel takes"));
    }
    Ok(program)
}

/// The filter as libseccomp writes it.
fn in_trees(seccomp: &Seccomp, request: &Request, architectures: &[ScmpArch]) -> Result<Vec<u8>> {
    match seccomp.order {
        Order::ArgsFirst => args_first(seccomp, request, architectures),
        Order::AsRunc => as_runc(seccomp, request, architectures),
    }
}

/// The kernel's name of this machine.
pub(super) fn native() -> Option<u32> {
    token(ScmpArch::native())
}

fn args_first(seccomp: &Seccomp, request: &Request, architectures: &[ScmpArch]) -> Result<Vec<u8>> {
    let default = action(seccomp.default_action, seccomp.default_errno_ret);
    let mut table = profile_table(seccomp);
    if request.nesting {
        replace(&mut table, policy::NESTED, ScmpAction::Allow);
    }
    replace(&mut table, policy::REFUSED, ScmpAction::Errno(libc::EPERM));
    let mut before = conditional_table(policy::REFUSED_IF);
    if request.single {
        replace(&mut table, policy::PRETENDED, ScmpAction::Errno(0));
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
    let mut program = Vec::new();
    for table in [before, conditions] {
        if !table.is_empty() {
            let tree = tree(rules_of(&table), architectures, UNDECIDED, UNDECIDED)?;
            program.extend(pass_on(tree));
        }
    }
    let newer = newer_verdicts(seccomp);
    program.extend(last_tree(&table, architectures, default, &newer)?);
    Ok(program)
}

fn as_runc(seccomp: &Seccomp, request: &Request, architectures: &[ScmpArch]) -> Result<Vec<u8>> {
    let default = action(seccomp.default_action, seccomp.default_errno_ret);
    let mut before = Table::new();
    if request.nesting {
        replace(&mut before, policy::NESTED, ScmpAction::Allow);
    }
    replace(&mut before, policy::REFUSED, ScmpAction::Errno(libc::EPERM));
    before.append(&mut conditional_table(policy::REFUSED_IF));
    if request.single {
        replace(&mut before, policy::PRETENDED, ScmpAction::Errno(0));
    }
    let mut program = pass_on(tree(rules_of(&before), architectures, UNDECIDED, UNDECIDED)?);
    program.extend(pass_on(newest(seccomp, architectures)));
    let unknown_architecture = ScmpAction::Errno(libc::ENOSYS);
    let rules = seccomp.syscalls.iter().flat_map(rules_as_runc);
    program.extend(tree(rules, architectures, default, unknown_architecture)?);
    Ok(program)
}

/// Whether anything can be said of a system call of that name: the library knows it, on any architecture,
/// or it is in our table and the rule has no conditions.
pub(super) fn is_known(name: &str, conditions: bool) -> bool {
    if newer::number(name).is_some() { !conditions } else { by_library(name).is_some() }
}

/// The library's number of a call that is not in our table.
fn by_library(name: &str) -> Option<ScmpSyscall> {
    if newer::number(name).is_some() { None } else { ScmpSyscall::from_name(name).ok() }
}

/// What the rules without conditions say of calls in our table.
fn newer_verdicts(seccomp: &Seccomp) -> BTreeMap<u32, u32> {
    let mut verdicts = BTreeMap::new();
    for rule in seccomp.syscalls.iter().filter(|rule| rule.args.is_empty()) {
        let verdict = returned(action(rule.action, rule.errno_ret));
        let numbers = rule.names.iter().filter_map(|name| newer::number(name));
        verdicts.extend(numbers.map(|number| (number, verdict)));
    }
    verdicts
}

/// Before the tree of a file for other runtimes: calls in our table, and ENOSYS for what is newer than all
/// that the file names, if its default would refuse it.
fn newest(seccomp: &Seccomp, architectures: &[ScmpArch]) -> Vec<u8> {
    let newer = newer_verdicts(seccomp);
    let stub = !seccomp.default_action.permits();
    let names = || seccomp.syscalls.iter().flat_map(|rule| &rule.names);
    let number = |name: &String, arch| match newer::number(name) {
        Some(number) => Some(number),
        None => ScmpSyscall::from_name_by_arch(name, arch)
            .ok()
            .and_then(|call| u32::try_from(call.as_raw_syscall()).ok()),
    };
    let lasts: Vec<_> = architectures
        .iter()
        .filter_map(|arch| {
            let last = names().filter_map(|name| number(name, *arch)).max().filter(|_| stub);
            Some((token(*arch)?, last.unwrap_or(bpf::X32)))
        })
        .collect();
    let program = search::by_number(&lasts, UNDECIDED_RET, |arch, number| {
        let last = lasts.iter().find(|(known, _)| *known == arch)?.1;
        let above = number > last && number < bpf::X32;
        let enosys = above.then(|| returned(ScmpAction::Errno(libc::ENOSYS)));
        Some(newer.get(&number).copied().or(enosys).unwrap_or(UNDECIDED_RET))
    });
    program.unwrap_or_default()
}

/// A rule, as libseccomp takes it.
type Added<'a> = (&'a str, Vec<Arg>, ScmpAction);

/// What runc and crun make of a rule: one comparison of an argument twice, and there is one rule for each
/// comparison.
fn rules_as_runc(rule: &Rule) -> Vec<Added<'_>> {
    let verdict = action(rule.action, rule.errno_ret);
    let twice = (1..rule.args.len())
        .any(|at| rule.args[..at].iter().any(|arg| arg.index == rule.args[at].index));
    let split = || rule.args.iter().map(|arg| vec![*arg]).collect();
    let conditions: Vec<Vec<Arg>> = if twice { split() } else { vec![rule.args.clone()] };
    let names = rule.names.iter().filter(|name| by_library(name).is_some());
    names
        .flat_map(|name| conditions.iter().map(|args| (name.as_str(), args.clone(), verdict)))
        .collect()
}

fn rules_of<'a>(table: &'a Table<'a>) -> impl Iterator<Item = Added<'a>> {
    table.iter().flat_map(|(name, verdicts)| {
        let conditions = verdicts.conditions.iter().cloned();
        let conditions = conditions.map(|(args, verdict)| (*name, args, verdict));
        conditions.chain(verdicts.otherwise.map(|verdict| (*name, Vec::new(), verdict)))
    })
}

fn profile_table(seccomp: &Seccomp) -> Table<'_> {
    let mut table = Table::new();
    for rule in &seccomp.syscalls {
        let verdict = action(rule.action, rule.errno_ret);
        for name in rule.names.iter().filter(|name| by_library(name).is_some()) {
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
fn tree<'a>(
    rules: impl Iterator<Item = Added<'a>>,
    architectures: &[ScmpArch],
    default: ScmpAction,
    unknown_architecture: ScmpAction,
) -> Result<Vec<u8>> {
    // libseccomp refuses a rule that only repeats the default.
    let rules: Vec<_> = rules.filter(|(_, _, verdict)| *verdict != default).collect();
    let mut context = ScmpFilterContext::new(default).map_err(|error| failed("begin", &error))?;
    prepare(&mut context, architectures, unknown_architecture)
        // A binary tree without rules is a wrong program up to libseccomp 2.5.4.
        .and_then(|()| context.set_ctl_optimize(if rules.is_empty() { 1 } else { 2 }).map(drop))
        .map_err(|error| failed("set up", &error))?;
    for (name, args, verdict) in rules {
        let call = ScmpSyscall::from_name(name).map_err(|error| failed(name, &error))?;
        let args: Vec<_> = args.iter().map(comparison).collect();
        let added = if args.is_empty() {
            context.add_rule(verdict, call)
        } else {
            context.add_rule_conditional(verdict, call, &args)
        };
        added.map_err(|error| match error.errno() {
            Some(libseccomp::error::SeccompErrno::EEXIST) => {
                Fault::usage(format!("seccomp: {name}: two rules contradict"))
            }
            _ => failed(name, &error),
        })?;
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

/// The last tree, behind the verdicts on calls in our table.
fn last_tree(
    table: &Table<'_>,
    architectures: &[ScmpArch],
    default: ScmpAction,
    newer: &BTreeMap<u32, u32>,
) -> Result<Vec<u8>> {
    let unknown_architecture = ScmpAction::Errno(libc::ENOSYS);
    let tree = tree(rules_of(table), architectures, default, unknown_architecture)?;
    let tokens: Vec<_> = architectures.iter().filter_map(|arch| token(*arch)).collect();
    let tokens: Vec<_> = tokens.into_iter().map(|token| (token, 0)).collect();
    let ours = |_, number| Some(newer.get(&number).copied().unwrap_or(UNDECIDED_RET));
    let ours = search::by_number(&tokens, UNDECIDED_RET, ours);
    let mut program = ours.map(pass_on).unwrap_or_default();
    program.extend(tree);
    Ok(program)
}

/// The same in a form that loads faster, if there is one: ARM has calls of its own with large numbers, and x32 is a whole
/// table of them.
fn shortened(program: Vec<u8>, architectures: &[ScmpArch]) -> Vec<u8> {
    let tokens: Vec<_> = architectures.iter().filter_map(|arch| token(*arch)).collect();
    let is_x86 = tokens.iter().all(|token| [bpf::X86_64, bpf::I386].contains(token));
    // One that is so long will not fit anyway, and is walked through by recursion.
    let longest = 2 * MOST_INSTRUCTIONS * INSTRUCTION;
    if !is_x86 || tokens.len() != architectures.len() || program.len() > longest {
        return program;
    }
    match search::number_first(&program, &tokens) {
        // Blocks that many calls share may have become one for each.
        Some(other) if other.len() <= program.len() => other,
        _ => program,
    }
}

fn failed(what: &str, error: &libseccomp::error::SeccompError) -> Fault {
    Fault::failed(format!("compile seccomp filter: {what}: {error}"))
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
