//! The few BPF instructions of a seccomp program: running it, and a shorter form of it.
//!
//! libseccomp compares call numbers one by one, about two instructions a call. The time to load a filter
//! grows with its length (the kernel translates it), and that is paid by every run. Verdicts come in
//! stretches of neighbouring numbers, so [`by_number`] asks (libseccomp's program, for one) for the verdict
//! on every number and writes the answers down as a binary search among stretches.

use std::collections::BTreeMap;

/// The size of struct sock_filter.
pub(super) const INSTRUCTION: usize = 8;
/// BPF_LD | BPF_W | BPF_ABS: loads 32 bits of struct seccomp_data.
const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K.
const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA.
pub(super) const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ, BPF_JGT, BPF_JGE and BPF_JSET with BPF_K.
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_NOT_LESS: u16 = 0x35;
const IF_BITS: u16 = 0x45;
/// BPF_RET | BPF_K.
pub(super) const RET: u16 = 0x06;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64 and AUDIT_ARCH_ARM.
pub(super) const X86_64: u32 = 0xc000_003e;
pub(super) const I386: u32 = 0x4000_0003;
pub(super) const AARCH64: u32 = 0xc000_00b7;
pub(super) const ARM: u32 = 0x4000_0028;
/// Call numbers of x86 end far below; what is above has the verdict of this one.
const NUMBERS: u32 = 1024;
/// __X32_SYSCALL_BIT.
pub(super) const X32: u32 = 0x4000_0000;

/// Code, jump if true, jump if false, value.
type Instruction = (u16, u8, u8, u32);

fn instruction(program: &[u8], at: usize) -> Option<Instruction> {
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
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let (code, if_true, if_false, value) = instruction(program, at)?;
        at += 1;
        let holds = match code {
            LOAD => {
                let from = value as usize;
                accumulator = u32::from_ne_bytes(data.get(from..from + 4)?.try_into().ok()?);
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
            IF_EQUAL => accumulator == value,
            IF_GREATER => accumulator > value,
            IF_NOT_LESS => accumulator >= value,
            IF_BITS => accumulator & value != 0,
            _ => return None,
        };
        at += usize::from(if holds { if_true } else { if_false });
    }
}

/// Numbers of calls, for which [`by_number`] asks: all of x86 and of the generic table, one that stands for
/// what is above them, and one of x32. `last` is another that verdicts may change at.
fn numbers(last: u32) -> impl Iterator<Item = u32> {
    let above = (last > NUMBERS && last < X32).then_some([last, last + 1]);
    (0..=NUMBERS).chain(above.into_iter().flatten()).chain([X32])
}

/// A program that decides by architecture and number alone: for each of `architectures` as `verdict` says
/// of its numbers, and for all others `otherwise`.
pub(super) fn by_number(
    architectures: &[(u32, u32)],
    otherwise: u32,
    verdict: impl Fn(u32, u32) -> Option<u32>,
) -> Option<Vec<u8>> {
    let mut backwards = Backwards::default();
    let mut entries = Vec::new();
    for &(arch, last) in architectures {
        let mut intervals: Vec<(u32, u32)> = Vec::new();
        for number in numbers(last) {
            let verdict = verdict(arch, number)?;
            if intervals.last().is_none_or(|(_, last)| *last != verdict) {
                intervals.push((number, verdict));
            }
        }
        let search = backwards.search(&intervals);
        entries.push((arch, backwards.load(NUMBER, search)));
    }
    let mut next = backwards.ret(otherwise);
    for (arch, entry) in entries {
        next = backwards.branch(IF_EQUAL, arch, entry, next);
    }
    backwards.load(ARCHITECTURE, next);
    Some(backwards.finish())
}

/// A program written from its end, so that every jump's target is known when the jump is written.
/// Places count from the end.
#[derive(Debug, Default)]
struct Backwards {
    instructions: Vec<Instruction>,
    returns: BTreeMap<u32, usize>,
}

impl Backwards {
    /// The furthest that a conditional jump reaches is 255; some room for the jumps of [`Self::near`].
    const REACH: usize = 250;

    fn push(&mut self, instruction: Instruction) -> usize {
        self.instructions.push(instruction);
        self.instructions.len() - 1
    }

    fn distance(&self, place: usize) -> usize {
        self.instructions.len() - place - 1
    }

    /// The place of a return of `verdict`: one in reach, or a new one.
    fn ret(&mut self, verdict: u32) -> usize {
        match self.returns.get(&verdict) {
            Some(place) if self.distance(*place) < Self::REACH => *place,
            _ => {
                let place = self.push((RET, 0, 0, verdict));
                self.returns.insert(verdict, place);
                place
            }
        }
    }

    /// `place`, or that of a far jump to it.
    fn near(&mut self, place: usize) -> usize {
        if self.distance(place) < Self::REACH {
            return place;
        }
        let distance = self.distance(place);
        self.push((JUMP, 0, 0, distance as u32))
    }

    /// Loads a field of struct seccomp_data and goes on at `next`.
    fn load(&mut self, field: u32, next: usize) -> usize {
        if self.distance(next) != 0 {
            let distance = self.distance(next);
            self.push((JUMP, 0, 0, distance as u32));
        }
        self.push((LOAD, 0, 0, field))
    }

    /// Compares the loaded field with `value` by `code`.
    fn branch(&mut self, code: u16, value: u32, if_true: usize, if_false: usize) -> usize {
        let (if_true, if_false) = (self.near(if_true), self.near(if_false));
        let jumps = (self.distance(if_true) as u8, self.distance(if_false) as u8);
        self.push((code, jumps.0, jumps.1, value))
    }

    /// A binary search for the stretch of the accumulator.
    fn search(&mut self, intervals: &[(u32, u32)]) -> usize {
        if let [(_, verdict)] = intervals {
            return self.ret(*verdict);
        }
        let (low, high) = intervals.split_at(intervals.len() / 2);
        let if_high = self.search(high);
        let if_low = self.search(low);
        self.branch(IF_NOT_LESS, high[0].0, if_high, if_low)
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.instructions.len() * INSTRUCTION);
        for (code, if_true, if_false, value) in self.instructions.into_iter().rev() {
            bytes.extend(code.to_ne_bytes());
            bytes.extend([if_true, if_false]);
            bytes.extend(value.to_ne_bytes());
        }
        bytes
    }
}
