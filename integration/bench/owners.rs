//! What it costs that a call is answered by the process that remembers owners and devices: the time of one call inside a run,
//! against the same call made by the kernel in such a run. Prints Markdown.
//!
//! The calls are made by a small C program, compiled in the tree. Each is of a file of its own, made just before, as package
//! managers and tar do. Two more figures are what no such process can do without: a call that another process answers at once, and the
//! attribute that remembers the owner. `SANDBOX_BENCH_OWNERS` (21 rounds), `SANDBOX_BENCH_CALLS` (2000 in each).
#![expect(clippy::print_stdout, reason = "the tables are its output")]

#[expect(dead_code, reason = "the other benchmarks need the rest")]
mod common;
#[expect(dead_code, reason = "the other benchmarks need the rest")]
mod native;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Result, Sandbox, Scratch, Times, number, output};
use native::{inside, prepare};

/// Microseconds that a call may cost more.
const BAR: f64 = 12.0;

/// What is measured: name, id mode, argument of the program, and the place of what it is compared with.
const RIVALS: [(&str, &str, &str, Option<usize>); 9] = [
    ("chown by the kernel, subuid", "subuid", "chown 1", None),
    ("chown to an id outside the map, subuid", "subuid", "chown 70000", Some(0)),
    ("chown, single (to subuid's by the kernel)", "single", "chown 1", Some(0)),
    ("mknod of a file by the kernel, subuid", "subuid", "mknod file", None),
    ("mknod of a device, subuid", "subuid", "mknod device", Some(3)),
    ("mknod of a file by the kernel, single", "single", "mknod file", None),
    ("mknod of a device, single", "single", "mknod device", Some(5)),
    ("setxattr by the kernel, subuid", "subuid", "attribute user.x", None),
    ("a call that another process answers at once, natively", NATIVE, "answer at-once", None),
];

/// Not in a sandbox: within one, a second listener is refused.
const NATIVE: &str = "native";

fn main() -> Result<()> {
    let scratch = Scratch::new("owners")?;
    let rounds = number("SANDBOX_BENCH_OWNERS", 21)?;
    let calls = number("SANDBOX_BENCH_CALLS", 2000)?.to_string();
    let Some(sandbox) = Sandbox::new(scratch.path()) else {
        println!("SANDBOX_BIN is not set: there is no other to measure.");
        return Ok(());
    };
    let source = scratch.path().join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("calls.c"), PROGRAM)?;
    for ids in ["subuid", "single"] {
        prepare(&sandbox, ids, &source, "cc -O2 -o /usr/local/bin/calls /in/calls.c")?;
    }
    let native = scratch.path().join("calls");
    output(Command::new("cc").args(["-O2", "-o"]).arg(&native).arg(source.join("calls.c")))?;
    let mut times = vec![Times::default(); RIVALS.len()];
    for round in 0..rounds {
        for turn in 0..RIVALS.len() {
            let at = (turn + round) % RIVALS.len();
            let (_, ids, what, _) = RIVALS[at];
            let words: Vec<_> = ["calls", &calls].into_iter().chain(what.split(' ')).collect();
            let nanoseconds = match ids {
                NATIVE => output(Command::new(&native).args(&words[1..]))?,
                _ => output(&mut inside(&sandbox, ids, &words))?,
            };
            times[at].add(Duration::from_nanos(nanoseconds.trim().parse()?));
        }
    }
    println!("## A call whose effect is remembered, {rounds} rounds of {calls}\n");
    println!(
        "| what | lower quartile, us | median, us | more than the kernel's, us |\n| --- | --- | --- | --- |"
    );
    let mut most: f64 = 0.0;
    for (at, (name, _, _, peer)) in RIVALS.iter().enumerate() {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let (quartile, median) = (us(times[at].quartile()), us(times[at].median()));
        let more = peer.map_or_else(String::new, |peer| {
            let more = quartile - us(times[peer].quartile());
            most = most.max(more);
            format!("{more:.2}, {:.2}", median - us(times[peer].median()))
        });
        println!("| {name} | {quartile:.2} | {median:.2} | {more} |");
    }
    let word = if most <= BAR { "reached" } else { "not reached" };
    println!("\nThe bar is {BAR} us more: {word}, {most:.2} at most.");
    let [attribute, answer] = [7, 8].map(|at| times[at].quartile().as_secs_f64() * 1e6);
    println!("An answer and the attribute alone: {:.2} us.", attribute + answer);
    Ok(())
}

const PROGRAM: &str = r#"#include <err.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* linux/seccomp.h, Linux 6.6. */
#define SET_FLAGS _IOW('!', 4, unsigned long long)
#define SYNC_WAKE_UP 1

static const char *name(int number)
{
	static char path[64];

	snprintf(path, sizeof(path), "/srv/calls/%d", number);
	return path;
}

/* chown of this process is answered by its parent from now on, at once and with yes. */
static void answered(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_chown, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };
	pid_t parent = getpid();
	int listener;

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (listener < 0)
		err(1, "listener");
	if (!fork()) {
		/* The parent is told how long it took; it ends with this one. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ioctl(listener, SET_FLAGS, SYNC_WAKE_UP);
		while (getppid() == parent) {
			struct seccomp_notif asked = { 0 };
			struct seccomp_notif_resp answer = { 0 };

			if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
				break;
			answer.id = asked.id;
			ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
		}
		_exit(0);
	}
	close(listener);
}

static void attribute(int number)
{
	if (setxattr(name(number), "user.x", "33:33 0:0", 9, 0))
		err(1, "%s", name(number));
}

static void call(int number, int owner, mode_t mode)
{
	int failed = mode ? mknod(name(number), mode | 0644, makedev(1, 3))
			  : chown(name(number), owner, owner);

	if (failed)
		err(1, "%s", name(number));
}

int main(int argc, char **argv)
{
	int number, calls = atoi(argv[1]);
	int makes = !strcmp(argv[2], "mknod"), answers = !strcmp(argv[2], "answer");
	int attributes = !strcmp(argv[2], "attribute");
	mode_t mode = !makes ? 0 : !strcmp(argv[3], "device") ? S_IFCHR : S_IFREG;
	struct timespec start, end;

	if (answers)
		answered();
	else
		mkdir("/srv/calls", 0755);
	for (number = 0; number <= calls && !makes && !answers; number++)
		close(open(name(number), O_CREAT | O_WRONLY, 0644));
	/* The first one may start who answers. */
	call(calls, atoi(argv[3]), mode);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (number = 0; number < calls; number++)
		if (attributes)
			attribute(number);
		else
			call(number, atoi(argv[3]), mode);
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%ld\n", ((end.tv_sec - start.tv_sec) * 1000000000L + end.tv_nsec - start.tv_nsec) / calls);
	return argc != 4;
}
"#;
