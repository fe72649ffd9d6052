//! The few BPF instructions of a seccomp program, and running it.

/// The size of struct sock_filter.
pub(super) const INSTRUCTION: usize = 8;
/// The most instructions that the kernel takes in one program (BPF_MAXINSNS).
pub(super) const MOST_INSTRUCTIONS: usize = 4096;
/// BPF_LD | BPF_W | BPF_ABS: loads 32 bits of struct seccomp_data.
pub(super) const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K.
pub(super) const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA.
pub(super) const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ, BPF_JGT, BPF_JGE and BPF_JSET with BPF_K.
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_GREATER: u16 = 0x25;
pub(super) const IF_NOT_LESS: u16 = 0x35;
pub(super) const IF_BITS: u16 = 0x45;
/// BPF_RET | BPF_K.
pub(super) const RET: u16 = 0x06;

/// Offsets in struct seccomp_data.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;

/// AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64 and AUDIT_ARCH_ARM.
pub(super) const X86_64: u32 = 0xc000_003e;
pub(super) const I386: u32 = 0x4000_0003;
pub(super) const AARCH64: u32 = 0xc000_00b7;
pub(super) const ARM: u32 = 0x4000_0028;
/// __X32_SYSCALL_BIT.
pub(super) const X32: u32 = 0x4000_0000;

/// Code, jump if true, jump if false, value.
pub(super) type Instruction = (u16, u8, u8, u32);

pub(super) fn instruction(program: &[u8], at: usize) -> Option<Instruction> {
    let bytes = program.get(at * INSTRUCTION..(at + 1) * INSTRUCTION)?;
    let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
    let value = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    Some((code, bytes[2], bytes[3], value))
}

/// What the program returns for a call, as the kernel runs it; `None` if it runs out of its end or has
/// an instruction that libseccomp does not write.
pub(super) fn verdict(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> Option<u32> {
    let mut data = [0; 64];
    data[..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (place, arg) in data[16..].chunks_exact_mut(8).zip(args) {
        place.copy_from_slice(&arg.to_ne_bytes());
    }
    run(program, |from| {
        let from = from as usize;
        Some(u32::from_ne_bytes(data.get(from..from + 4)?.try_into().ok()?))
    })
}

/// What the program returns for a call whatever its arguments are; `None` if it looks at one, or as [`verdict`].
pub(super) fn constant(program: &[u8], arch: u32, number: u32) -> Option<u32> {
    run(program, |from| match from {
        NUMBER => Some(number),
        ARCHITECTURE => Some(arch),
        _ => None,
    })
}

/// `load` gives 32 bits of struct seccomp_data from an offset on.
fn run(program: &[u8], load: impl Fn(u32) -> Option<u32>) -> Option<u32> {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let (code, if_true, if_false, value) = instruction(program, at)?;
        at += 1;
        let holds = match code {
            LOAD => {
                accumulator = load(value)?;
                continue;
            }
            AND => {
                accumulator &= value;
                continue;
            }
            JUMP => {
                at += value as usize;
                continue;
            }
            RET => return Some(value),
            _ => holds(code, accumulator, value)?,
        };
        at += usize::from(if holds { if_true } else { if_false });
    }
}

/// Whether a conditional jump is taken; `None` if it is no such instruction that libseccomp writes.
pub(super) fn holds(code: u16, held: u32, value: u32) -> Option<bool> {
    Some(match code {
        IF_EQUAL => held == value,
        IF_GREATER => held > value,
        IF_NOT_LESS => held >= value,
        IF_BITS => held & value != 0,
        _ => return None,
    })
}

/// The program as an array of struct sock_filter.
pub(super) fn encode(program: impl IntoIterator<Item = Instruction>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (code, if_true, if_false, value) in program {
        let ([a, b], [c, d, e, f]) = (code.to_ne_bytes(), value.to_ne_bytes());
        // One constant length each: this runs at every start, and musl's memcpy takes its time for a few bytes.
        let instruction: [u8; INSTRUCTION] = [a, b, if_true, if_false, c, d, e, f];
        bytes.extend_from_slice(&instruction);
    }
    bytes
}
