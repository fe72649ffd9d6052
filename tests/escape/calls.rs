//! Rows about system calls.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::host::{Host, text};

/// EPERM and ENOSYS: both say no.
const NO: [i32; 2] = [libc::EPERM, libc::ENOSYS];

/// Expects that each call is refused by the filter, in every profile; the flags come after the profile.
#[track_caller]
fn all_refused(flags: &[&str], calls: &[(i64, &str)]) {
    let host = Host::plain();
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let flags = [&["--profile", profile], flags].concat();
        for ((number, args), errno) in calls.iter().zip(host.calls(&flags, calls)) {
            assert!(NO.contains(&errno), "{profile}: {number}({args}): {errno}");
        }
    }
}

/// CVE-2021-41133: calls that a list of what is forbidden has forgotten.
#[test]
fn new_ways_to_mount_are_refused() {
    all_refused(
        &[],
        &[
            (libc::SYS_mount, "'none', '/tmp', 'tmpfs', 0, 0"),
            (libc::SYS_umount2, "'/tmp', 0"),
            (libc::SYS_pivot_root, "'.', '.'"),
            (libc::SYS_fsopen, "'tmpfs', 0"),
            (libc::SYS_fsconfig, "3, 6, 0, 0, 0"),
            (libc::SYS_fsmount, "3, 0, 0"),
            (libc::SYS_fspick, "-100, '/', 0"),
            (libc::SYS_open_tree, "-100, '/', 1"),
            (libc::SYS_move_mount, "3, '', -100, '/tmp', 4"),
            (libc::SYS_mount_setattr, "-100, '/', 0, 0, 0"),
            // open_tree_attr(2), statmount(2), listmount(2)
            (467, "-100, '/', 1, 0, 0"),
            (457, "0, 0, 0, 0"),
            (458, "0, 0, 0, 0"),
        ],
    );
}

/// CVE-2021-41133: numbers that nobody knows yet are not there.
#[test]
fn unknown_numbers_are_not_there() {
    let host = Host::plain();
    let numbers: Vec<i64> = (480..1024).collect();
    let calls: Vec<(i64, &str)> =
        numbers.iter().map(|number| (*number, "0, 0, 0, 0, 0, 0")).collect();
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let errnos = host.calls(&["--profile", profile], &calls);
        // x32 has its numbers at 512 to 547, and they are not there either.
        assert!(errnos.iter().all(|errno| *errno == libc::ENOSYS), "{profile}: {errnos:?}");
        // Not EPERM: libc has to fall back to clone.
        assert_eq!(
            host.calls(&["--profile", profile], &[(libc::SYS_clone3, "0, 0")]),
            [libc::ENOSYS]
        );
    }
}

/// CVE-2022-0185, CVE-2022-0492: a namespace of one's own opens the kernel's wide side.
#[test]
fn new_namespaces_are_refused() {
    const NEW: [u64; 8] = [
        0x1000_0000,
        0x0002_0000,
        0x2000_0000,
        0x4000_0000,
        0x0400_0000,
        0x0800_0000,
        0x0200_0000,
        0x80,
    ];
    let unshare: Vec<String> = NEW.iter().map(|flag| flag.to_string()).collect();
    let clone: Vec<String> = NEW.iter().map(|flag| format!("{}, 0, 0, 0, 0", flag | 17)).collect();
    let high: Vec<String> = NEW.iter().map(|flag| (flag | 1 << 32).to_string()).collect();
    let mut calls: Vec<(i64, &str)> =
        unshare.iter().chain(&high).map(|args| (libc::SYS_unshare, args.as_str())).collect();
    // 0x80 is a time namespace to unshare(2) only; to clone(2) it is part of the signal's number.
    calls.extend(clone.iter().take(7).map(|args| (libc::SYS_clone, args.as_str())));
    calls.extend([(libc::SYS_setns, "0, 0"), (libc::SYS_setns, "3, 0x20000000")]);
    calls.extend([
        (libc::SYS_mount, "'none', '/tmp', 'cgroup', 0, 'memory'"),
        (libc::SYS_fsopen, "'cgroup', 0"),
        (libc::SYS_fsopen, "'ext4', 0"),
    ]);
    all_refused(&[], &calls);
    let host = Host::plain();
    let out = host.shell(
        &["--profile", "dev"],
        "ls -d /sys/fs/cgroup /sys/kernel; grep -c cgroup /proc/self/mountinfo",
    );
    assert_eq!(text(&out.stdout), "0\n");
}

/// CVE-2026-31431, CVE-2022-0847: the kernel's crypto and its page cache; and machines beside this one.
#[test]
fn socket_families_are_few() {
    let host = Host::plain();
    // AF_ALG, AF_VSOCK, AF_ALG with bits that do not count, by socket(2) and socketpair(2).
    let families = ["38, 5, 0", "40, 1, 0", "4294967334, 5, 0", "4294967336, 1, 0"];
    let mut calls: Vec<(i64, &str)> =
        families.iter().map(|args| (libc::SYS_socket, *args)).collect();
    calls.extend(families.map(|args| (libc::SYS_socketpair, args)));
    for profile in host.profiles(&["build", "dev", "strict"]) {
        for net in ["none", "host"] {
            let errnos = host.calls(&["--profile", profile, "--net", net], &calls);
            assert!(
                errnos.iter().all(|errno| *errno == libc::EAFNOSUPPORT),
                "{profile}: {errnos:?}"
            );
        }
    }
}

/// What has led out of others' sandboxes and is needed by nobody.
#[test]
fn dangerous_calls_are_refused() {
    all_refused(
        &["--net", "host"],
        &[
            (libc::SYS_bpf, "0, 0, 0"),
            (libc::SYS_io_uring_setup, "1, 0"),
            (libc::SYS_io_uring_enter, "0, 0, 0, 0, 0, 0"),
            (libc::SYS_io_uring_register, "0, 0, 0, 0"),
            (libc::SYS_userfaultfd, "0"),
            (libc::SYS_keyctl, "0, -3, 0"),
            (libc::SYS_add_key, "'user', 'a', 'b', 1, -3"),
            (libc::SYS_request_key, "'user', 'a', 0, -3"),
            (libc::SYS_open_by_handle_at, "-100, 0, 0"),
            (libc::SYS_kexec_load, "0, 0, 0, 0"),
            (libc::SYS_init_module, "0, 0, ''"),
            (libc::SYS_finit_module, "0, '', 0"),
            (libc::SYS_delete_module, "'x', 0"),
            (libc::SYS_quotactl, "0, 0, 0, 0"),
            (libc::SYS_acct, "0"),
            (libc::SYS_swapon, "'/x', 0"),
            (libc::SYS_reboot, "0, 0, 0, 0"),
            (libc::SYS_settimeofday, "0, 0"),
            (libc::SYS_sethostname, "'x', 1"),
            (libc::SYS_syslog, "3, 0, 0"),
            (libc::SYS_personality, "0x0400000"),
            (libc::SYS_fanotify_init, "0, 0"),
        ],
    );
}

/// CVE-2019-7303: arguments of 32 bits, with more bits than count: a check of 64 bits would not know them.
#[test]
fn high_bits_disguise_no_argument() {
    let host = Host::plain();
    let high = 1_u64 << 32;
    let personality = format!("{}", high | 0x0400_0000);
    let newuser = format!("{}", high | 0x1000_0000);
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let errnos = host.calls(
            &["--profile", profile],
            &[(libc::SYS_personality, &personality), (libc::SYS_unshare, &newuser)],
        );
        assert!(errnos.iter().all(|errno| NO.contains(errno)), "{profile}: {errnos:?}");
    }
}

/// CVE-2020-15257: a socket of the host with a name but no path is reached from a network of one's own.
#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    let host = Host::plain();
    let name = format!("sandbox-escape-{}", std::process::id());
    let _listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let code = format!(
        "use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die $!; print connect($s, pack('S', AF_UNIX).qq(\\0).'{name}') ? 'connected' : 0+$!"
    );
    for profile in host.profiles(&["build", "strict"]) {
        let said = host.perl(&["--profile", profile, "--net", "none"], &code);
        assert_eq!(said, libc::ECONNREFUSED.to_string(), "{profile}");
        let listed =
            host.shell(&["--profile", profile, "--net", "none"], "grep -c @ /proc/net/unix");
        assert_eq!(text(&listed.stdout), "0\n", "{profile}: {}", text(&listed.stderr));
    }
}
