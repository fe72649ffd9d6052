//! What a command may not do, and what it does not see.

use crate::common::{Env, debian, ids};

/// The build profile, as the kernel numbers capabilities.
const BUILD: &str = "00000000880405fb";

#[test]
fn capabilities_are_those_of_the_profile() {
    let env = Env::filled();
    let line = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status";
    let expected = |set: &str| {
        format!(
            "CapInh:\t{zero}\nCapPrm:\t{set}\nCapEff:\t{set}\nCapBnd:\t{set}\nCapAmb:\t{zero}\nNoNewPrivs:\t1\nSeccomp:\t2\n",
            zero = "0".repeat(16)
        )
    };
    drop(env.line(&[], line).run().ok().stdout(&expected(BUILD)));
    drop(env.line(&["--profile", "dev"], line).run().ok().stdout(&expected("00000000880c05fb")));
    let strict = env.line(&["--profile", "strict"], line).run();
    if ids() == crate::common::Ids::Identity && crate::common::mode::real_root() {
        // Root inside would be root of this machine.
        drop(strict.fault(125, "is root of this machine", "--ids range"));
        let out = env.sandbox(&["run", "--strict", "--", "true"]).run();
        drop(out.fault(125, "is root of this machine", ""));
    } else {
        drop(strict.ok().stdout(&expected(&"0".repeat(16))));
    }
    drop(env.sandbox(&["run", "--profile", "nope", "--", "true"]).run().fault(125, "nope", ""));
}

#[test]
fn the_first_process_is_closed() {
    let env = Env::filled();
    for path in ["fd", "fd/0", "environ", "exe", "maps", "cwd", "root", "mem"] {
        let line = format!("(ls -l /proc/1/{path}/ || cat /proc/1/{path}) 2>&1");
        let out = env.line(&[], &line).run();
        // A number that it has not open shows as such to the machine's own root, who may list the others.
        let refused = out.text().contains("Permission denied")
            || (path == "fd/0" && out.text().contains("No such file"));
        drop(out.check(refused, &format!("/proc/1/{path} can be read")));
    }
    // Nor is it ended from inside.
    drop(env.line(&[], "kill -9 1; kill -TERM 1; echo alive").run().ok().says("alive"));
}

#[test]
fn the_hosts_processes_and_files_are_not_there() {
    let env = Env::filled();
    let out = env.line(&[], "ls /proc | grep -c '^[0-9]'; cat /proc/self/mountinfo").run().ok();
    let text = out.text();
    let few = text.lines().next().unwrap().parse::<u32>().unwrap() < 8;
    let dir = env.dir().to_str().unwrap();
    // Paths of the store are shown as of its own mount; never with the host's way to it.
    drop(out.check(few && !text.contains(dir), "host paths"));
    drop(env.sandbox(&["run", "--", "ls", dir]).run().code(2).stdout(""));
    drop(env.line(&[], "ls /sys/firmware 2>/dev/null | wc -l; cat /proc/kcore 2>/dev/null | head -c 1 | wc -c; cat /proc/keys").run().ok().stdout("0\n0\n"));
}

#[test]
fn the_kernels_settings_cannot_be_changed() {
    let env = Env::filled();
    let line = "for f in /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /proc/sys/vm/drop_caches; \
                do (echo 1 >$f) 2>/dev/null && echo wrote $f; done; mount -t tmpfs none /tmp 2>/dev/null && echo mounted; \
                unshare -r true 2>/dev/null && echo unshared; mknod /dev/sda b 8 0 2>/dev/null && test -b /dev/sda && echo made; exit 0";
    drop(env.line(&[], line).run().ok().stdout(""));
}

#[test]
fn devices_are_the_harmless_ones() {
    let env = Env::filled();
    drop(env.line(&[], "ls /dev").run().ok().stdout(
        "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n",
    ));
    drop(env.line(&[], "echo x >/dev/null && head -c 4 /dev/zero | od -An -tx1 && head -c 9 /dev/urandom | wc -c && echo y >/dev/shm/y && (echo z >/dev/full) 2>/dev/null || echo full").run().ok().stdout(" 00 00 00 00\n9\nfull\n"));
}

/// Input cannot be pushed into the caller's terminal: refused by number, also with bits above the low 32.
#[test]
fn terminal_injection_is_refused() {
    let store = debian();
    let perl = "my $c = 'x'; for my $n (0x5412, 0x541C, 0x15412 & 0xffff | (1 << 32)) { \
                syscall(16, 0, $n, $c) == -1 or die; print 0+$!, \"\\n\" }";
    if cfg!(target_arch = "x86_64") {
        drop(store.sandbox(&["run", "--", "perl", "-e", perl]).run().ok().stdout("1\n1\n1\n"));
    }
}

/// System calls that have led out of sandboxes: not there, or not permitted.
#[test]
fn dangerous_calls_are_refused() {
    let store = debian();
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let calls = [
        ("bpf", 321),
        ("keyctl", 250),
        ("add_key", 248),
        ("io_uring_setup", 425),
        ("mount", 165),
        ("setns", 308),
        ("kexec_load", 246),
        ("init_module", 175),
        ("open_by_handle_at", 304),
        ("userfaultfd", 323),
        ("ptrace", 101),
        ("perf_event_open", 298),
        ("process_vm_readv", 310),
        ("fsopen", 430),
        ("pivot_root", 155),
        ("reboot", 169),
    ];
    for (name, number) in calls {
        let perl = format!("syscall({number}, 0, 0, 0, 0, 0) == -1 or die; print 0+$!");
        let out = store.sandbox(&["run", "--", "perl", "-e", &perl]).run().ok();
        let refused = matches!(out.line().as_str(), "1" | "38");
        drop(out.check(refused, &format!("{name} is not refused")));
    }
    // Families of sockets: AF_ALG, AF_VSOCK.
    for family in [38, 40] {
        let perl = format!("syscall(41, {family}, 5, 0) == -1 or die; print 0+$!");
        let out = store.sandbox(&["run", "--net", "host", "--", "perl", "-e", &perl]).run().ok();
        let refused = out.line() != "0";
        drop(out.check(refused, "socket family"));
    }
}

#[test]
fn owners_and_devices_in_every_mode() {
    let env = Env::filled();
    // In `single` these succeed without effect.
    let line =
        "touch /f && chown 1:5 /f && chown 1 /f && stat -c %u:%g /f; mknod /null c 1 3 && ls /f";
    let owner = if ids().many() { "1:5" } else { "0:0" };
    let out = env.line(&[], line).run();
    let first = out.text().starts_with(&format!("{owner}\n"));
    drop(out.check(first, "owner"));
}

/// Memory in a file system is given back by no death of a process: all of them together leave a quarter.
#[test]
fn file_systems_in_memory_are_limited() {
    let env = Env::filled();
    let line = "grep MemTotal /proc/meminfo; stat -f -c '%b %S %c' /dev /run /tmp /var/tmp; \
        stat -c %d /dev /dev/shm";
    let out = env.line(&["--read-only"], line).run().ok();
    let text = out.text();
    let numbers = |line: &str| -> Vec<u64> {
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let lines: Vec<_> = text.lines().map(numbers).collect();
    let total = lines[0][0] * 1024;
    let most: u64 = lines[1..5].iter().map(|fs| fs[0] * fs[1]).sum();
    let entries: u64 = lines[1..5].iter().map(|fs| fs[2]).sum();
    assert!(most > total / 2 && most <= total * 3 / 4, "{most} of {total}");
    assert!(entries <= 3 << 20, "{entries} entries");
    assert_eq!(lines[5], lines[6], "shm is of /dev, and limited with it");
}

/// The one id of real root is no more of a boundary than all of them are.
#[test]
fn roots_only_id_is_root() {
    let env = Env::filled();
    if !crate::common::mode::real_root() {
        // Here it is an id like any other.
        drop(env.line(&["--profile", "strict"], "id -u").run().ok().stdout("0\n"));
        return;
    }
    let from = format!("tar:{}", std::env::var("SANDBOX_TEST_TREE").unwrap());
    drop(env.sandbox(&["init", "one", "--ids", "single", "--from", &from]).run().ok());
    let run = |flags: &[&str], line: &str| {
        let words = [&["--box", "one", "run"], flags, &["--", "sh", "-c", line]].concat();
        env.sandbox(&words).run()
    };
    for flags in [&["--profile", "strict"][..], &["--strict"], &["--nest"]] {
        drop(run(flags, "true").fault(125, "is root of this machine", "--ids range"));
    }
    let line = "for f in sysrq-trigger sys/kernel/core_pattern irq/default_smp_affinity; do \
        (: >>/proc/$f) 2>/dev/null && echo open $f; done; head -c1 /proc/kcore | wc -c";
    drop(run(&[], line).ok().stdout("0\n"));
}
