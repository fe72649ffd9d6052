//! The filters as the kernel applies them: each child loads one and makes real calls, or runs real
//! programs. Not threaded (`harness = false`), because the children go on after fork.

#![allow(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the results of a test without harness")]

#[cfg(target_arch = "x86_64")]
mod cases;
#[cfg(target_arch = "x86_64")]
mod golden;
#[cfg(target_arch = "x86_64")]
mod probe;
mod programs;

use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

#[cfg(not(target_arch = "x86_64"))]
mod golden {
    //! There are golden tables of x86 only.

    pub(crate) fn every_kind_of_verdict_is_told() -> Vec<String> {
        Vec::new()
    }

    pub(crate) fn golden_tables() -> Vec<String> {
        Vec::new()
    }
}

use programs::{capabilities_and_loopback, programs, times};
use sandbox::isolate::profile::Profile;
use sandbox::isolate::seccomp::{Request, compiled};
use sandbox::sys::process::exit_now;
use sandbox::sys::seccomp::load;

const EPERM: i32 = libc::EPERM;
const ENOSYS: i32 = libc::ENOSYS;
const EFAULT: i32 = libc::EFAULT;
const EBADF: i32 = libc::EBADF;
const PLAIN: Request = Request { single: false, nesting: false };
const SINGLE: Request = Request { single: true, nesting: false };
const NESTING: Request = Request { single: false, nesting: true };

/// A test: gives what is wrong.
type Test = fn() -> Vec<String>;
/// A call, and what it must say: 0, or an errno.
type Call<'a> = (&'a str, i64, Vec<u64>, i32);

fn main() -> ExitCode {
    let tests: [(&str, Test); 11] = [
        ("always_refused", always_refused),
        ("namespaces", namespaces),
        ("differences", differences),
        ("single_id", single_id),
        ("fifo_is_real", fifo_is_real),
        ("i386_by_int_80", i386_by_int_80),
        ("every_kind_of_verdict_is_told", golden::every_kind_of_verdict_is_told),
        ("golden_tables", golden::golden_tables),
        ("programs", programs),
        ("capabilities_and_loopback", capabilities_and_loopback),
        ("times", times),
    ];
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests {
        let wrong = test();
        let word = if wrong.is_empty() { "ok" } else { "FAILED" };
        println!("test {name} ... {word}");
        wrong.iter().for_each(|line| println!("    {line}"));
        if wrong.is_empty() { passed += 1 } else { failed += 1 }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn filter(profile: &str, request: Request) -> Vec<u8> {
    let profile = Profile::builtin(profile).expect("built in");
    compiled(&profile, &request).expect("compiles")
}

fn enter(program: &[u8]) {
    rustix::thread::set_no_new_privs(true).expect("no_new_privs");
    load(program).expect("load filter");
}

/// Forks, runs `job` in the child, and gives the lines that it returned.
fn forked(job: impl FnOnce() -> Vec<String>) -> Vec<String> {
    let (mut reader, mut writer) = std::io::pipe().expect("pipe");
    std::io::stdout().flush().expect("flush");
    // SAFETY: this process has one thread; the child ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let lines = job();
        for line in lines {
            writeln!(writer, "{line}").expect("report");
        }
        writeln!(writer, "done").expect("report");
        exit_now(0);
    }
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("report");
    // SAFETY: waits for our own child, and wants no status.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    if lines.pop().as_deref() != Some("done") {
        lines.push("the child died".to_owned());
    }
    lines
}

fn raw(number: i64, args: &[u64]) -> i32 {
    let mut six = [0; 6];
    six[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = six;
    // SAFETY: the calls of this file either pass null pointers, which the kernel refuses, or valid ones.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer >= 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) }
}

fn check(profile: &str, request: Request, calls: &[Call<'_>]) -> Vec<String> {
    let program = filter(profile, request);
    forked(|| {
        enter(&program);
        let mut wrong = Vec::new();
        for (what, number, args, expected) in calls {
            let got = raw(*number, args);
            if got != *expected {
                wrong.push(format!("{profile}: {what}: {got} instead of {expected}"));
            }
        }
        wrong
    })
}

fn always_refused() -> Vec<String> {
    const HIGH: u64 = 0xdead_beef_0000_0000;
    const NO_FD: u64 = u32::MAX as u64;
    let calls: Vec<Call<'_>> = vec![
        ("TIOCSTI", libc::SYS_ioctl, vec![NO_FD, 0x5412], EPERM),
        ("TIOCSTI with high bits", libc::SYS_ioctl, vec![NO_FD, 0x5412 | HIGH], EPERM),
        ("TIOCLINUX with high bits", libc::SYS_ioctl, vec![NO_FD, 0x541c | HIGH], EPERM),
        ("another ioctl", libc::SYS_ioctl, vec![NO_FD, 0x5401], EBADF),
        ("AF_ALG", libc::SYS_socket, vec![38, 5, 0], libc::EAFNOSUPPORT),
        ("AF_ALG with high bits", libc::SYS_socket, vec![38 | HIGH, 5, 0], libc::EAFNOSUPPORT),
        ("AF_VSOCK", libc::SYS_socket, vec![40, 1, 0], libc::EAFNOSUPPORT),
        ("AF_UNIX", libc::SYS_socket, vec![1, 1, 0], 0),
        ("io_uring_setup", libc::SYS_io_uring_setup, vec![1], EPERM),
        ("bpf", libc::SYS_bpf, vec![], EPERM),
        ("keyctl", libc::SYS_keyctl, vec![], EPERM),
        ("add_key", libc::SYS_add_key, vec![], EPERM),
        ("request_key", libc::SYS_request_key, vec![], EPERM),
        ("userfaultfd", libc::SYS_userfaultfd, vec![1], EPERM),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, vec![], EPERM),
        ("kexec_load", libc::SYS_kexec_load, vec![], EPERM),
        ("number 9999", 9999, vec![], ENOSYS),
        // The kernel of the machine may well know it: the filter does not.
        ("statmount", 457, vec![], ENOSYS),
        ("x32 getpid", 0x4000_0000 | libc::SYS_getpid, vec![], ENOSYS),
        ("personality", libc::SYS_personality, vec![u64::MAX], 0),
        ("ADDR_NO_RANDOMIZE", libc::SYS_personality, vec![0x4_0000], EPERM),
    ];
    ["build", "dev", "strict"]
        .into_iter()
        .flat_map(|profile| check(profile, PLAIN, &calls))
        .chain(["build", "dev"].into_iter().flat_map(|p| check(p, SINGLE, &calls)))
        .chain(["build", "dev"].into_iter().flat_map(|p| check(p, NESTING, &calls)))
        .collect()
}

fn namespaces() -> Vec<String> {
    let new_user = libc::CLONE_NEWUSER as u64;
    let closed: Vec<Call<'_>> = vec![
        ("unshare user", libc::SYS_unshare, vec![new_user], EPERM),
        ("unshare files", libc::SYS_unshare, vec![libc::CLONE_FILES as u64], 0),
        ("clone user", libc::SYS_clone, vec![new_user | libc::SIGCHLD as u64], EPERM),
        ("clone3", libc::SYS_clone3, vec![0, 64], ENOSYS),
        ("setns", libc::SYS_setns, vec![u64::MAX], EPERM),
        ("fsopen", libc::SYS_fsopen, vec![], EPERM),
        ("mount", libc::SYS_mount, vec![], EPERM),
        ("pivot_root", libc::SYS_pivot_root, vec![], EPERM),
    ];
    let open: Vec<Call<'_>> = vec![
        ("clone3", libc::SYS_clone3, vec![0, 64], EFAULT),
        ("setns", libc::SYS_setns, vec![u64::MAX], EBADF),
        ("unshare user", libc::SYS_unshare, vec![new_user], 0),
        ("unshare mount", libc::SYS_unshare, vec![libc::CLONE_NEWNS as u64], 0),
        ("fsopen", libc::SYS_fsopen, vec![], EFAULT),
    ];
    ["build", "dev", "strict"]
        .into_iter()
        .flat_map(|profile| check(profile, PLAIN, &closed))
        .chain(check("build", NESTING, &open))
        .collect()
}

fn differences() -> Vec<String> {
    let calls = |traced, perf, chrooted| -> Vec<Call<'static>> {
        vec![
            ("ptrace", libc::SYS_ptrace, vec![libc::PTRACE_PEEKDATA as u64, 0], traced),
            ("perf_event_open", libc::SYS_perf_event_open, vec![], perf),
            ("chroot", libc::SYS_chroot, vec![], chrooted),
        ]
    };
    let mut wrong = check("build", PLAIN, &calls(EPERM, EPERM, EFAULT));
    wrong.extend(check("dev", PLAIN, &calls(libc::ESRCH, EFAULT, EFAULT)));
    wrong.extend(check("strict", PLAIN, &calls(EPERM, EPERM, EPERM)));
    wrong
}

fn single_id() -> Vec<String> {
    let char_device = u64::from(libc::S_IFCHR | 0o666);
    // Null paths: a call that is really made says EFAULT. Owners are for the filter beside this one.
    let calls: Vec<Call<'static>> = vec![
        ("chown", libc::SYS_chown, vec![0, 12345, 12345], EFAULT),
        ("lchown", libc::SYS_lchown, vec![0, 12345, 12345], EFAULT),
        ("fchown", libc::SYS_fchown, vec![9999, 12345, 12345], EBADF),
        ("fchownat", libc::SYS_fchownat, vec![9999, 0, 1, 1, 0], EFAULT),
        ("mknod device", libc::SYS_mknod, vec![0, char_device, 0x103], EFAULT),
        ("mknodat device", libc::SYS_mknodat, vec![9999, 0, char_device, 0x103], EFAULT),
        ("mknod whiteout", libc::SYS_mknod, vec![0, char_device, 0], EFAULT),
        ("mknod fifo", libc::SYS_mknod, vec![0, libc::S_IFIFO.into(), 0], EFAULT),
    ];
    let ids: Vec<Call<'_>> = vec![
        ("setgroups", libc::SYS_setgroups, vec![1 << 40, 0], 0),
        ("setuid", libc::SYS_setuid, vec![12345], 0),
        ("setresgid", libc::SYS_setresgid, vec![12345, 12345, 12345], 0),
        ("setfsuid", libc::SYS_setfsuid, vec![12345], 0),
    ];
    let mut wrong = check("build", SINGLE, &calls);
    wrong.extend(check("build", PLAIN, &calls));
    wrong.extend(check("strict", SINGLE, &calls));
    wrong.extend(check("build", SINGLE, &ids));
    wrong
}

fn fifo_is_real() -> Vec<String> {
    let dir = tempfile::tempdir().expect("directory");
    let program = filter("build", SINGLE);
    let fifo = dir.path().join("fifo");
    let path = CString::new(fifo.to_str().expect("text")).expect("path");
    let wrong = forked(|| {
        enter(&program);
        let mode = u64::from(libc::S_IFIFO | 0o600);
        let got = raw(libc::SYS_mknod, &[path.as_ptr() as u64, mode, 0]);
        if got == 0 { Vec::new() } else { vec![format!("mknod of a fifo: {got}")] }
    });
    if fifo.exists() { wrong } else { vec!["the fifo is not there".to_owned()] }
}

/// A call of the i386 table from a 64-bit process.
#[cfg(target_arch = "x86_64")]
fn int_80(number: u32, args: [u32; 3]) -> i32 {
    let answer: i64;
    // SAFETY: `int 0x80` enters the kernel's 32-bit table; it changes rax only (and r8-r11 on old
    // kernels). rbx belongs to the compiler, so it is exchanged around the call. Pointers are null.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(args[0]) => _,
            inlateout("rax") u64::from(number) => answer,
            in("rcx") u64::from(args[1]), in("rdx") u64::from(args[2]),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    -(answer as i32).min(0)
}

#[cfg(not(target_arch = "x86_64"))]
fn i386_by_int_80() -> Vec<String> {
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
fn i386_by_int_80() -> Vec<String> {
    if forked(|| {
        int_80(20, [0; 3]);
        Vec::new()
    }) != [""; 0]
    {
        println!("    (skipped: this kernel has no i386 calls)");
        return Vec::new();
    }
    let build = [
        ("getpid", 20, [0; 3], 0),
        ("socketcall", 102, [1, 0, 0], ENOSYS),
        ("AF_ALG", 359, [38, 5, 0], libc::EAFNOSUPPORT),
        ("AF_UNIX", 359, [1, 1, 0], 0),
        ("TIOCSTI", 54, [u32::MAX, 0x5412, 0], EPERM),
        ("unshare user", 310, [libc::CLONE_NEWUSER as u32, 0, 0], EPERM),
        ("clone3", 435, [0, 64, 0], ENOSYS),
        ("chown", 182, [0, 1, 1], EFAULT),
        ("chown32", 212, [0, 1, 1], EFAULT),
        ("bpf", 357, [0; 3], EPERM),
        ("number 600", 600, [0; 3], ENOSYS),
    ];
    let single = [("chown", 182, [0, 1, 1], EFAULT), ("setuid", 213, [1, 0, 0], 0)];
    let strict = [("getpid", 20, [0; 3], ENOSYS), ("AF_UNIX", 359, [1, 1, 0], ENOSYS)];
    let run = |profile: &str, request, calls: &[(&str, u32, [u32; 3], i32)]| {
        let program = filter(profile, request);
        forked(|| {
            enter(&program);
            let judged = calls.iter().map(|call| (call.0, int_80(call.1, call.2), call.3));
            judged
                .filter(|(_, got, expected)| got != expected)
                .map(|(what, got, expected)| {
                    format!("{profile}: i386 {what}: {got}, not {expected}")
                })
                .collect()
        })
    };
    [run("build", PLAIN, &build), run("dev", PLAIN, &build), run("build", SINGLE, &single)]
        .into_iter()
        .chain([run("strict", PLAIN, &strict)])
        .flatten()
        .collect()
}
