//! What the kernel makes of a call under a filter, without ever making the call.
//!
//! A second filter asks a thread of ours about every call that comes from one of two instructions of this
//! file, and that thread answers with an error that the kernel does not have. Of two filters the stricter
//! verdict holds, and to ask is only less strict than to allow: what the first filter refuses is refused with
//! its own errno, what it allows comes back as our error. So calls that would block, exit or kill can be
//! tried like all others. (A verdict of the first filter that asks somebody, too, is told by loading the two in
//! both orders: of two that ask, the later is heard, and a question that nobody hears is ENOSYS.)

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicI32, Ordering};

use sandbox::sys::process::exit_now;
use sandbox::sys::seccomp::load;

/// A call: number and arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) args: [u64; 6],
}

/// The instruction that makes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// `syscall`: x86-64 and x32.
    Syscall,
    /// `int 0x80`: i386.
    Int80,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// Refused with this errno; 0 is the pretence that it worked.
    Errno(i32),
    /// Whoever listens to the filter decides.
    Asked,
    Killed,
}

/// The answer of our thread; below MAX_ERRNO, and no errno.
const ASKED: i32 = 4000;
/// What is sent for a call that ended the process.
const KILLED: i32 = i32::MIN;

std::arch::global_asm!(
    ".globl sandbox_probe_syscall",
    "sandbox_probe_syscall:",
    "mov rax, rdi",
    "mov r11, rsi",
    "mov rdi, [r11]",
    "mov rsi, [r11 + 8]",
    "mov rdx, [r11 + 16]",
    "mov r10, [r11 + 24]",
    "mov r8, [r11 + 32]",
    "mov r9, [r11 + 40]",
    "syscall",
    ".globl sandbox_probe_syscall_behind",
    "sandbox_probe_syscall_behind:",
    "ret",
    ".globl sandbox_probe_int80",
    "sandbox_probe_int80:",
    "push rbx",
    "push rbp",
    "mov rax, rdi",
    "mov r11, rsi",
    "mov ebx, [r11]",
    "mov ecx, [r11 + 8]",
    "mov edx, [r11 + 16]",
    "mov esi, [r11 + 24]",
    "mov edi, [r11 + 32]",
    "mov ebp, [r11 + 40]",
    "int 0x80",
    ".globl sandbox_probe_int80_behind",
    "sandbox_probe_int80_behind:",
    "pop rbp",
    "pop rbx",
    "movsxd rax, eax",
    "ret",
);

unsafe extern "C" {
    fn sandbox_probe_syscall(number: u64, args: *const u64) -> i64;
    fn sandbox_probe_int80(number: u64, args: *const u64) -> i64;
    static sandbox_probe_syscall_behind: u8;
    static sandbox_probe_int80_behind: u8;
}

/// The verdicts of `program` on the calls, by the kernel.
pub(crate) fn verdicts(program: &[u8], entry: Entry, calls: &[Call]) -> Vec<Verdict> {
    let ours_later = answers(program, entry, calls, false);
    let ours_first = answers(program, entry, calls, true);
    let both = ours_later.into_iter().zip(ours_first);
    both.map(|answers| match answers {
        (KILLED, _) => Verdict::Killed,
        (ASKED, ASKED) => Verdict::Allowed,
        (ASKED, libc::ENOSYS) => Verdict::Asked,
        (errno, again) if errno == again => Verdict::Errno(errno),
        other => panic!("two answers: {other:?}"),
    })
    .collect()
}

/// The errno of each call; children make them, a new one behind each that is killed.
fn answers(program: &[u8], entry: Entry, calls: &[Call], ours_first: bool) -> Vec<i32> {
    let mut answers = Vec::with_capacity(calls.len());
    while answers.len() < calls.len() {
        let (mut reader, mut writer) = std::io::pipe().expect("pipe");
        std::io::stdout().flush().expect("flush");
        // SAFETY: this process has one thread; the child ends by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(reader);
            filtered(program, ours_first);
            for call in &calls[answers.len()..] {
                let answer = made(entry, call);
                writer.write_all(&answer.to_ne_bytes()).expect("report");
            }
            exit_now(0);
        }
        drop(writer);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).expect("report");
        let mut status = 0;
        // SAFETY: waits for our own child; the kernel writes an int.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        let words = bytes.chunks_exact(4).map(|word| word.try_into().expect("four bytes"));
        answers.extend(words.map(i32::from_ne_bytes));
        if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS {
            answers.push(KILLED);
        } else {
            assert_eq!(status, 0, "the child of {} calls died", answers.len());
        }
    }
    answers
}

fn made(entry: Entry, call: &Call) -> i32 {
    let args = call.args.as_ptr();
    // SAFETY: both functions are above; they read six words at `args`. No call that gets through the first
    // filter is made, because the second asks our thread, which refuses it.
    let answer = unsafe {
        match entry {
            Entry::Syscall => sandbox_probe_syscall(u64::from(call.number), args),
            Entry::Int80 => sandbox_probe_int80(u64::from(call.number), args),
        }
    };
    assert!((-4095..=0).contains(&answer), "call {call:?} was made: {answer}");
    -(answer as i32)
}

/// Loads both filters for this thread, and starts the one that answers.
fn filtered(program: &[u8], ours_first: bool) {
    static LISTENER: AtomicI32 = AtomicI32::new(-1);
    // Without filters, because it is there before them.
    std::thread::spawn(|| {
        while LISTENER.load(Ordering::Acquire) < 0 {
            std::thread::yield_now();
        }
        answer(LISTENER.load(Ordering::Acquire));
    });
    rustix::thread::set_no_new_privs(true).expect("no_new_privs");
    if !ours_first {
        load(program).expect("load filter");
    }
    LISTENER.store(asking(), Ordering::Release);
    if ours_first {
        load(program).expect("load filter");
    }
}

/// Loads our filter and gives its listener.
fn asking() -> i32 {
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let branch = |k, jt, jf| libc::sock_filter { code: 0x15, jt, jf, k };
    // Where the instruction pointer stands in struct seccomp_data, in halves.
    let (low, high) = (8, 12);
    let places = [&raw const sandbox_probe_syscall_behind, &raw const sandbox_probe_int80_behind];
    let [syscall, int80] = places.map(|place| place as u64);
    let program = [
        statement(0x20, low),
        branch(syscall as u32, 0, 2),
        statement(0x20, high),
        branch((syscall >> 32) as u32, 4, 3),
        branch(int80 as u32, 0, 2),
        statement(0x20, high),
        branch((int80 >> 32) as u32, 1, 0),
        statement(0x06, libc::SECCOMP_RET_ALLOW),
        statement(0x06, libc::SECCOMP_RET_USER_NOTIF),
    ];
    let fprog = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads one sock_fprog and as many instructions as it says.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const fprog,
        )
    };
    assert!(listener >= 0, "load filter: {}", std::io::Error::last_os_error());
    listener as i32
}

/// Refuses every call that is asked about.
fn answer(listener: i32) {
    loop {
        // SAFETY: all zeros is a value of both; the kernel fills in the first, and reads the second.
        unsafe {
            let mut asked: libc::seccomp_notif = std::mem::zeroed();
            if libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) < 0 {
                continue;
            }
            let mut response: libc::seccomp_notif_resp = std::mem::zeroed();
            response.id = asked.id;
            response.error = -ASKED;
            libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response);
        }
    }
}
