//! Our words in those of libseccomp and of the kernel.

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp};

use super::bpf;
use super::filter::{Action, Arch, Arg, Op};

/// The kernel's name of an architecture (AUDIT_ARCH_).
pub(super) fn token(arch: ScmpArch) -> Option<u32> {
    match arch {
        ScmpArch::X8664 => Some(bpf::X86_64),
        ScmpArch::X86 => Some(bpf::I386),
        ScmpArch::Aarch64 => Some(bpf::AARCH64),
        ScmpArch::Arm => Some(bpf::ARM),
        _ => None,
    }
}

/// Those architectures of the profile whose calls this machine's kernel can take.
pub(super) fn architectures(named: &[Arch]) -> Vec<ScmpArch> {
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

/// A verdict in the words of libseccomp.
pub(super) fn action(action: Action, errno: Option<u16>) -> ScmpAction {
    match action {
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Trap => ScmpAction::Trap,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::KillThread => ScmpAction::KillThread,
        Action::Errno => ScmpAction::Errno(errno.map_or(libc::EPERM, i32::from)),
    }
}

/// A verdict as the kernel sees it: SECCOMP_RET_*.
pub(super) fn returned(action: ScmpAction) -> u32 {
    match action {
        ScmpAction::Allow => 0x7fff_0000,
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::Errno(errno) => 0x0005_0000 | (errno as u32 & 0xffff),
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::KillThread => 0,
        _ => 0x8000_0000,
    }
}

/// A condition in the words of libseccomp.
pub(super) fn comparison(arg: &Arg) -> ScmpArgCompare {
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
