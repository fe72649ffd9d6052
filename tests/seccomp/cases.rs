//! Arguments that decide, for the golden tables. Numbers of constants are those of x86.

/// Arguments, and how they are called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) label: &'static str,
    pub(crate) args: [u64; 6],
}

const fn first(label: &'static str, value: u64) -> Case {
    Case { label, args: [value, 0, 0, 0, 0, 0] }
}

const fn second(label: &'static str, value: u64) -> Case {
    Case { label, args: [0, value, 0, 0, 0, 0] }
}

const fn three(label: &'static str, args: [u64; 3]) -> Case {
    Case { label, args: [args[0], args[1], args[2], 0, 0, 0] }
}

const HIGH: u64 = 0xdead_beef_0000_0000;

/// By call; those of one call stand together.
pub(crate) const CASES: &[(&str, &[Case])] = &[
    (
        "ioctl",
        &[
            second("TCGETS", 0x5401),
            second("TIOCSTI", 0x5412),
            second("TIOCSTI, bits above 32", 0x5412 | HIGH),
            second("TIOCLINUX", 0x541c),
            second("TIOCLINUX, bits above 32", 0x541c | HIGH),
            second("TIOCSCTTY", 0x540e),
            second("TIOCCONS", 0x541d),
            second("TIOCSETD", 0x5423),
            second("FS_IOC_SETFLAGS", 0x4008_6602),
            second("FIONREAD", 0x541b),
        ],
    ),
    (
        "socket",
        &[
            first("AF_UNSPEC", 0),
            three("AF_UNIX", [1, 1, 0]),
            three("AF_INET", [2, 1, 0]),
            three("AF_INET SOCK_RAW", [2, 3, 1]),
            three("AF_AX25", [3, 2, 0]),
            three("AF_INET6", [10, 2, 0]),
            three("AF_NETLINK ROUTE", [16, 3, 0]),
            three("AF_NETLINK AUDIT", [16, 3, 9]),
            three("AF_NETLINK NETFILTER", [16, 3, 12]),
            three("AF_NETLINK UEVENT", [16, 3, 15]),
            three("AF_PACKET", [17, 3, 0]),
            three("AF_CAN", [29, 3, 1]),
            three("AF_TIPC", [30, 5, 0]),
            three("AF_BLUETOOTH", [31, 3, 1]),
            three("AF_ALG", [38, 5, 0]),
            three("AF_ALG, bits above 32", [38 | HIGH, 5, 0]),
            three("AF_VSOCK", [40, 1, 0]),
            three("AF_VSOCK, bits above 32", [40 | HIGH, 1, 0]),
            three("AF_KCM", [41, 2, 0]),
            three("AF_QIPCRTR", [42, 2, 0]),
            three("AF_SMC", [43, 1, 0]),
            three("AF_XDP", [44, 3, 0]),
            three("family 99", [99, 1, 0]),
        ],
    ),
    (
        "socketpair",
        &[
            three("AF_UNIX", [1, 1, 0]),
            three("AF_INET", [2, 1, 0]),
            three("AF_TIPC", [30, 1, 0]),
            three("AF_ALG", [38, 5, 0]),
            three("AF_VSOCK", [40, 1, 0]),
        ],
    ),
    (
        "clone",
        &[
            first("SIGCHLD", 0x11),
            first("of a thread", 0x3d_0f00),
            first("of vfork", 0x4111),
            first("CLONE_NEWTIME as signal 128", 0x80),
            first("CLONE_NEWNS", 0x2_0011),
            first("CLONE_NEWCGROUP", 0x200_0011),
            first("CLONE_NEWUTS", 0x400_0011),
            first("CLONE_NEWIPC", 0x800_0011),
            first("CLONE_NEWUSER", 0x1000_0011),
            first("CLONE_NEWUSER, bits above 32", 0x1000_0011 | HIGH),
            first("CLONE_NEWPID", 0x2000_0011),
            first("CLONE_NEWNET", 0x4000_0011),
            first("CLONE_PTRACE", 0x2011),
        ],
    ),
    (
        "unshare",
        &[
            first("CLONE_FS", 0x200),
            first("CLONE_FILES", 0x400),
            first("CLONE_SYSVSEM", 0x4_0000),
            first("CLONE_NEWTIME", 0x80),
            first("CLONE_NEWNS", 0x2_0000),
            first("CLONE_NEWCGROUP", 0x200_0000),
            first("CLONE_NEWUTS", 0x400_0000),
            first("CLONE_NEWIPC", 0x800_0000),
            first("CLONE_NEWUSER", 0x1000_0000),
            first("CLONE_NEWUSER, bits above 32", 0x1000_0000 | HIGH),
            first("CLONE_NEWUSER with FILES", 0x1000_0400),
            first("CLONE_NEWPID", 0x2000_0000),
            first("CLONE_NEWNET", 0x4000_0000),
        ],
    ),
    (
        "personality",
        &[
            first("PER_LINUX", 0),
            first("PER_LINUX, bits above 32", HIGH),
            first("PER_LINUX32", 8),
            first("UNAME26", 0x2_0000),
            first("UNAME26 of PER_LINUX32", 0x2_0008),
            first("asked only", 0xffff_ffff),
            first("asked only, 64 bits", u64::MAX),
            first("ADDR_NO_RANDOMIZE", 0x4_0000),
            first("MMAP_PAGE_ZERO", 0x10_0000),
            first("READ_IMPLIES_EXEC", 0x40_0000),
            first("PER_SVR4", 1),
        ],
    ),
    (
        "prctl",
        &[
            first("PR_SET_PDEATHSIG", 1),
            first("PR_SET_DUMPABLE", 4),
            first("PR_SET_NAME", 15),
            first("PR_SET_SECCOMP", 22),
            first("PR_CAPBSET_DROP", 24),
            first("PR_SET_SECUREBITS", 28),
            first("PR_SET_MM", 35),
            first("PR_SET_NO_NEW_PRIVS", 38),
            first("PR_CAP_AMBIENT", 47),
            first("PR_SET_SPECULATION_CTRL", 53),
        ],
    ),
    (
        "mknod",
        &[
            second("S_IFREG", 0o100_644),
            second("S_IFIFO", 0o10_644),
            second("S_IFSOCK", 0o140_644),
            three("S_IFCHR 1:3", [0, 0o20_666, 0x103]),
            three("S_IFCHR 0:0", [0, 0o20_666, 0]),
            three("S_IFBLK 8:0", [0, 0o60_666, 0x800]),
        ],
    ),
    (
        "mknodat",
        &[
            three("S_IFIFO", [0, 0, 0o10_644]),
            Case { label: "S_IFCHR 1:3", args: [0, 0, 0o20_666, 0x103, 0, 0] },
            Case { label: "S_IFCHR 0:0", args: [0, 0, 0o20_666, 0, 0, 0] },
            Case { label: "S_IFBLK 8:0", args: [0, 0, 0o60_666, 0x800, 0, 0] },
        ],
    ),
    (
        "ptrace",
        &[first("PTRACE_TRACEME", 0), first("PTRACE_ATTACH", 16), first("PTRACE_SEIZE", 0x4206)],
    ),
    ("keyctl", &[first("KEYCTL_JOIN_SESSION_KEYRING", 1), first("KEYCTL_READ", 11)]),
    ("seccomp", &[first("SECCOMP_SET_MODE_FILTER", 1), three("NEW_LISTENER", [1, 8, 0])]),
];
