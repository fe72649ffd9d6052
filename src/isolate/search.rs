//! Seccomp programs that look for the number of the call first.
//!
//! libseccomp compares call numbers one by one, and behind each other for each of our trees. To load a filter the kernel
//! translates it, and since Linux 5.11 it also walks through it for every number there is, on every architecture, to
//! learn which calls are always allowed. Both are paid by every run, and grow with the length of the program and of its
//! paths. Verdicts come in stretches of neighbouring numbers: so they are written down as a binary search among
//! stretches, and what looks at arguments comes behind that, for its own calls alone.

use std::collections::HashMap;

use super::bpf::{
    AND, ARCHITECTURE, IF_BITS, IF_EQUAL, IF_GREATER, IF_NOT_LESS, Instruction, JUMP, LOAD, NUMBER,
    RET, X32, encode, holds, instruction, verdict,
};

/// Call numbers of x86 end far below; what is above has the verdict of this one.
const NUMBERS: u32 = 1024;
/// So many numbers there are, about, on an architecture: those that the kernel walks through.
const USED: u32 = 470;

/// All of x86 and of the generic table, one that stands for what is above them, one of x32, and that of no call
/// (which a tracer may leave). `last` is another that verdicts may change at.
fn numbers(last: u32) -> impl Iterator<Item = u32> {
    let above = (last > NUMBERS && last < X32).then_some([last, last + 1]);
    (0..=NUMBERS).chain(above.into_iter().flatten()).chain([X32, u32::MAX])
}

/// A program that decides by architecture and number alone: for each of `architectures` as `verdict` says
/// of its numbers, and for all others `otherwise`.
pub(super) fn by_number(
    architectures: &[(u32, u32)],
    otherwise: u32,
    verdict: impl Fn(u32, u32) -> Option<u32>,
) -> Option<Vec<u8>> {
    written(architectures, otherwise, |backwards, arch, number| {
        Some(backwards.ret(verdict(arch, number)?))
    })
}

/// A program with the same verdicts as this one, which has numbers of x86 and no others. `None` if it runs out of its
/// end or has an instruction that libseccomp does not write.
pub(super) fn number_first(program: &[u8], architectures: &[u32]) -> Option<Vec<u8>> {
    let otherwise = verdict(program, 0, 0, [0; 6])?;
    let architectures: Vec<_> = architectures.iter().map(|arch| (*arch, 0)).collect();
    written(&architectures, otherwise, |backwards, arch, number| {
        Known { program, arch, number, behind: HashMap::new() }.write(backwards, 0, None)
    })
}

/// `leaf` writes what becomes of a call when its number is known, and says where that is.
fn written(
    architectures: &[(u32, u32)],
    otherwise: u32,
    mut leaf: impl FnMut(&mut Backwards, u32, u32) -> Option<usize>,
) -> Option<Vec<u8>> {
    let mut backwards = Backwards::default();
    let mut entries = Vec::new();
    for &(arch, last) in architectures {
        let mut stretches: Vec<(u32, usize)> = Vec::new();
        for number in numbers(last) {
            let place = leaf(&mut backwards, arch, number)?;
            if stretches.last().is_none_or(|(_, last)| !backwards.is_same(*last, place)) {
                stretches.push((number, place));
            }
        }
        let search = backwards.search(&stretches, u32::MAX);
        entries.push((arch, backwards.straight(LOAD, NUMBER, search)));
    }
    let mut next = backwards.ret(otherwise);
    for (arch, entry) in entries {
        next = backwards.branch(IF_EQUAL, arch, entry, next);
    }
    backwards.straight(LOAD, ARCHITECTURE, next);
    Some(backwards.finish())
}

/// A program of which number and architecture are known, so that only what it does with arguments is left.
struct Known<'p> {
    program: &'p [u8],
    arch: u32,
    number: u32,
    /// What was written of it from here on, with an argument in the accumulator.
    behind: HashMap<usize, usize>,
}

impl Known<'_> {
    /// Writes what is left from `at` on, where the accumulator holds this, if it is known.
    fn write(&mut self, out: &mut Backwards, at: usize, held: Option<u32>) -> Option<usize> {
        if let (None, Some(place)) = (held, self.behind.get(&at)) {
            return Some(*place);
        }
        let (code, if_true, if_false, value) = instruction(self.program, at)?;
        let next = at + 1;
        let place = match (code, held) {
            (LOAD, _) if value == NUMBER => self.write(out, next, Some(self.number))?,
            (LOAD, _) if value == ARCHITECTURE => self.write(out, next, Some(self.arch))?,
            (AND, Some(held)) => self.write(out, next, Some(held & value))?,
            (LOAD | AND, _) => {
                let behind = self.write(out, next, None)?;
                out.straight(code, value, behind)
            }
            (JUMP, _) => self.write(out, next + value as usize, held)?,
            (RET, _) => out.ret(value),
            (_, Some(held)) => {
                let jump = if holds(code, held, value)? { if_true } else { if_false };
                self.write(out, next + usize::from(jump), Some(held))?
            }
            (IF_EQUAL | IF_GREATER | IF_NOT_LESS | IF_BITS, None) => {
                let if_true = self.write(out, next + usize::from(if_true), None)?;
                let if_false = self.write(out, next + usize::from(if_false), None)?;
                out.branch(code, value, if_true, if_false)
            }
            _ => return None,
        };
        if held.is_none() {
            self.behind.insert(at, place);
        }
        Some(place)
    }
}

/// A program written from its end, so that every jump's target is known when the jump is written.
/// Places count from the end.
#[derive(Debug, Default)]
struct Backwards {
    instructions: Vec<Instruction>,
    returns: HashMap<u32, usize>,
    /// Where what goes on at these places was written.
    written: HashMap<(u16, u32, usize, usize), usize>,
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

    /// Whether it is the same to go on here or there.
    fn is_same(&self, one: usize, other: usize) -> bool {
        one == other
            || self.instructions[one].0 == RET && self.instructions[one] == self.instructions[other]
    }

    /// `place`, or that of a far jump to it.
    fn near(&mut self, place: usize) -> usize {
        match self.instructions[place] {
            // A return of its own is a step less than a jump to one.
            (RET, _, _, verdict) => self.ret(verdict),
            _ if self.distance(place) < Self::REACH => place,
            _ => {
                let distance = self.distance(place);
                self.push((JUMP, 0, 0, distance as u32))
            }
        }
    }

    /// An instruction that changes the accumulator and goes on at `next`.
    fn straight(&mut self, code: u16, value: u32, next: usize) -> usize {
        if let Some(place) = self.written.get(&(code, value, next, next)) {
            return *place;
        }
        if self.distance(next) != 0 {
            let distance = self.distance(next);
            self.push((JUMP, 0, 0, distance as u32));
        }
        let place = self.push((code, 0, 0, value));
        self.written.insert((code, value, next, next), place);
        place
    }

    /// Compares the accumulator with `value` by `code`.
    fn branch(&mut self, code: u16, value: u32, if_true: usize, if_false: usize) -> usize {
        if self.is_same(if_true, if_false) {
            return if_true;
        }
        let key = (code, value, if_true, if_false);
        if let Some(place) = self.written.get(&key) {
            return *place;
        }
        let (if_true, if_false) = (self.near(if_true), self.near(if_false));
        let jumps = (self.distance(if_true) as u8, self.distance(if_false) as u8);
        let place = self.push((code, jumps.0, jumps.1, value));
        self.written.insert(key, place);
        place
    }

    /// A binary search for the stretch of the accumulator, with as many numbers in use on either side. `end` is where
    /// the last stretch ends.
    fn search(&mut self, stretches: &[(u32, usize)], end: u32) -> usize {
        if let [(_, place)] = stretches {
            return *place;
        }
        let half = stretches[0].0.min(USED).midpoint(end.min(USED));
        let far = |at: &usize| stretches[*at].0.min(USED).abs_diff(half);
        let (low, high) = stretches.split_at((1..stretches.len()).min_by_key(far).unwrap_or(1));
        let if_high = self.search(high, end);
        let if_low = self.search(low, high[0].0);
        self.branch(IF_NOT_LESS, high[0].0, if_high, if_low)
    }

    fn finish(self) -> Vec<u8> {
        encode(self.instructions.into_iter().rev())
    }
}
