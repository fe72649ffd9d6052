//! The checker: tells what the process it runs in is, has, sees and may do. Everything is tried, nothing is
//! believed. One fact a line, `section: fact`; what differs by id mode begins with `@`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};

use crate::mounts;

/// What the host is, as the other side knows it: a file that must not be there, the names of the host's
/// namespaces, and its limits.
pub(crate) fn tell(words: &[String]) {
    let [canary, namespaces, limits] = words else { panic!("--inside CANARY NAMESPACES LIMITS") };
    ids();
    rights();
    own_namespaces(namespaces);
    descriptors();
    processes();
    mounts::tell();
    devices();
    sockets();
    keyrings();
    let mut environment: Vec<_> = std::env::vars().collect();
    environment.sort();
    for (name, value) in environment {
        // Of `single` alone.
        let section = if name == "APT_CONFIG" { "@environment" } else { "environment" };
        say(section, &format!("{name}={value}"));
    }
    own_limits(limits);
    kernel();
    say("host", &format!("a file of it: {}", attempt(&fs::metadata(canary))));
    say(
        "host",
        &format!("name: {}", fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim()),
    );
    writable_places();
}

pub(crate) fn say(section: &str, fact: &str) {
    println!("{section}: {fact}");
}

/// What an attempt came to.
pub(crate) fn attempt<T>(result: &std::io::Result<T>) -> &'static str {
    match result {
        Ok(_) => "OPEN",
        Err(error) => match error.kind() {
            ErrorKind::NotFound => "not there",
            ErrorKind::PermissionDenied => "refused",
            ErrorKind::ReadOnlyFilesystem => "read-only",
            _ => "fails",
        },
    }
}

fn status() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.trim().replace('\t', " "))).collect()
}

fn ids() {
    for (key, value) in status() {
        match key.as_str() {
            "Uid" | "Gid" => say("ids", &format!("{key}: {value}")),
            // The caller's own group is 0 here, and those that the map does not hold are 65534.
            "Groups" => {
                let others =
                    value.split_whitespace().filter(|id| !["0", "65534"].contains(id)).count();
                say("ids", &format!("groups that mean something inside: {others}"));
            }
            _ => {}
        }
    }
    for file in ["uid_map", "gid_map"] {
        let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap();
        for line in text.lines() {
            let numbers: Vec<_> = line.split_whitespace().collect();
            // Where the range lies is the machine's business. That 0 is not the host's is what counts.
            let host = if numbers[1] == numbers[0] { "the same" } else { "another" };
            say(
                "@ids",
                &format!(
                    "{file}: {} and {} more, outside {host}",
                    numbers[0],
                    numbers[2].parse::<u64>().unwrap() - 1
                ),
            );
        }
    }
    say(
        "@ids",
        &format!("setgroups: {}", fs::read_to_string("/proc/self/setgroups").unwrap().trim()),
    );
}

const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

fn rights() {
    for (key, value) in status() {
        match key.as_str() {
            "CapInh" | "CapPrm" | "CapEff" | "CapBnd" | "CapAmb" => {
                let bits = u64::from_str_radix(&value, 16).unwrap();
                let names = CAPABILITIES.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
                let names: Vec<_> = names.map(|(_, name)| *name).collect();
                let more = bits >> CAPABILITIES.len();
                assert_eq!(more, 0, "capabilities without a name");
                let shown = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
                say("rights", &format!("{key}: {shown}"));
            }
            "NoNewPrivs" | "Seccomp" | "Umask" | "SigBlk" | "TracerPid" => {
                say("rights", &format!("{key}: {value}"));
            }
            "Seccomp_filters" => say("@rights", &format!("{key}: {value}")),
            _ => {}
        }
    }
    let bits = rustix::thread::capabilities_secure_bits().unwrap();
    say("rights", &format!("secure bits: {}", bits.bits()));
}

/// Which namespaces are the host's.
fn own_namespaces(hosts: &str) {
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let Ok(own) = fs::read_link(format!("/proc/self/ns/{name}")) else { continue };
        let is_hosts = hosts.split(',').any(|one| Path::new(one) == own);
        say("namespaces", &format!("{name}: {}", if is_hosts { "the host's" } else { "its own" }));
    }
}

fn descriptors() {
    // One of them is the directory that is read.
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
        })
        .filter(|(_, path)| !path.starts_with("/proc"))
        .collect();
    found.sort();
    for (number, path) in found {
        let path = path.to_str().unwrap();
        say("descriptors", &format!("{number}: {}", path.split(":[").next().unwrap()));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open("/dev/tty", flags, Mode::empty());
    say(
        "descriptors",
        &format!("controlling terminal: {}", if terminal.is_ok() { "its own" } else { "none" }),
    );
}

fn processes() {
    let mut all: Vec<u32> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    all.sort_unstable();
    say("processes", &format!("{} besides this one", all.len() - 1));
    for name in [
        "environ",
        "maps",
        "mem",
        "auxv",
        "exe",
        "cwd",
        "root",
        "fd",
        "fdinfo",
        "map_files",
        "ns/mnt",
        "ns/user",
        "ns/net",
        "task/1/fd",
        "task/1/mem",
        "syscall",
        "stack",
        "personality",
        "pagemap",
        "io",
        "oom_score_adj",
        "uid_map",
        "mountinfo",
    ] {
        let path = Path::new("/proc/1").join(name);
        let link = ["exe", "cwd", "root", "ns/mnt", "ns/user", "ns/net"].contains(&name);
        let read = if link {
            fs::read_link(&path).map(drop)
        } else if path.is_dir() {
            fs::read_dir(&path).map(drop)
        } else {
            fs::read(&path).map(drop)
        };
        say("first process", &format!("{name}: {}", attempt(&read)));
    }
    for name in [
        "mem",
        "oom_score_adj",
        "uid_map",
        "setgroups",
        "timerslack_ns",
        "comm",
        "clear_refs",
        "coredump_filter",
    ] {
        // Some of them can be opened by everybody, and ask at the write.
        let write = fs::write(Path::new("/proc/1").join(name), "1");
        say("first process", &format!("write to {name}: {}", attempt(&write)));
    }
}

fn devices() {
    let mut found = Vec::new();
    walk(Path::new("/dev"), &mut |path, entry| {
        let kind = entry.file_type();
        let shown = path.display();
        found.push(if kind.is_symlink() {
            format!("{shown} -> {}", fs::read_link(path).unwrap().display())
        } else if kind.is_char_device() || kind.is_block_device() {
            let number = entry.rdev();
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(Into::into);
            format!(
                "{shown} {} {major}:{minor} mode {:o}: {}",
                if kind.is_char_device() { 'c' } else { 'b' },
                entry.permissions().mode() & 0o7777,
                attempt(&opened)
            )
        } else {
            format!("{shown} mode {:o}", entry.permissions().mode() & 0o7777)
        });
    });
    found.sort();
    found.iter().for_each(|line| say("devices", line));
    let made = Command::new("/usr/bin/mknod").args(["/tmp/sda", "b", "8", "0"]).output();
    let kind = fs::symlink_metadata("/tmp/sda").map(|found| found.file_type().is_block_device());
    drop(made);
    say("devices", &format!("a disk can be made: {}", kind.unwrap_or(false)));
}

/// Calls `each` for everything beneath a directory, on this file system or another.
pub(crate) fn walk(dir: &Path, each: &mut dyn FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        each(&path, &found);
        if found.is_dir() {
            walk(&path, each);
        }
    }
}

fn sockets() {
    let mut found = Vec::new();
    for place in ["/dev", "/etc", "/run", "/tmp", "/var", "/root", "/home", "/srv", "/mnt", "/opt"]
    {
        walk(Path::new(place), &mut |path, entry| {
            if entry.file_type().is_socket() {
                found.push(path.display().to_string());
            }
        });
    }
    say(
        "sockets",
        &format!(
            "with a path: {}",
            if found.is_empty() { "none".to_owned() } else { found.join(" ") }
        ),
    );
    let listed = fs::read_to_string("/proc/net/unix").unwrap();
    // Those of the host are there if its network is: how many is its business.
    let hosts = fs::read_to_string("/proc/net/dev").unwrap().lines().count() > 3;
    let named = listed.lines().filter(|line| line.contains('@')).count();
    say(
        "sockets",
        &format!(
            "without a path: {}",
            if hosts { "the host's".to_owned() } else { named.to_string() }
        ),
    );
    let interfaces: Vec<_> = fs::read_to_string("/proc/net/dev")
        .unwrap()
        .lines()
        .skip(2)
        .map(|line| line.split(':').next().unwrap().trim().to_owned())
        .collect();
    say(
        "network",
        &if hosts {
            "the host's".to_owned()
        } else {
            format!("interfaces: {}", interfaces.join(" "))
        },
    );
}

fn keyrings() {
    say(
        "keyrings",
        &format!(
            "listed: {}",
            fs::read_to_string("/proc/keys").map_or(0, |text| text.lines().count())
        ),
    );
    // KEYCTL_GET_KEYRING_ID and KEYCTL_JOIN_SESSION_KEYRING of the session.
    let perl = format!(
        "for (0, 1) {{ print syscall({}, $_, -3, 0) == -1 ? \"$!\\n\" : \"OPEN\\n\" }}",
        libc::SYS_keyctl
    );
    let out =
        Command::new("/usr/bin/perl").args(["-e", &perl]).env("LC_ALL", "C").output().unwrap();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        say("keyrings", &format!("keyctl: {line}"));
    }
}

fn own_limits(hosts: &str) {
    for line in fs::read_to_string("/proc/self/limits").unwrap().lines().skip(1) {
        let name = line[..25].trim();
        let shown = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let same =
            hosts.lines().any(|one| one.split_whitespace().collect::<Vec<_>>().join(" ") == shown);
        if name == "Max open files" {
            let most = shown.split(' ').nth(4).and_then(|hard| hard.parse::<u32>().ok());
            say(
                "limits",
                &format!("{name}: at most 65536: {}", most.is_some_and(|most| most <= 65536)),
            );
            continue;
        }
        // Ours, whatever the caller's are.
        let ours = name == "Max core file size";
        say("limits", &if same && !ours { format!("{name}: the caller's") } else { shown });
    }
}

/// What of the kernel can be read or set.
fn kernel() {
    let mut set = Vec::new();
    let mut count = 0;
    walk(Path::new("/proc/sys"), &mut |path, entry| {
        if entry.is_file() {
            count += 1;
            if fs::OpenOptions::new().write(true).open(path).is_ok() {
                set.push(path.display().to_string());
            }
        }
    });
    assert!(count > 100, "/proc/sys has {count} files");
    say(
        "kernel",
        &format!(
            "settings that can be written: {}",
            if set.is_empty() { "none".to_owned() } else { set.join(" ") }
        ),
    );
    for name in [
        "sysrq-trigger",
        "irq/default_smp_affinity",
        "mtrr",
        "asound/cards",
        "acpi/wakeup",
        "bus/pci/devices",
    ] {
        let path = Path::new("/proc").join(name);
        let write = fs::OpenOptions::new().write(true).open(path);
        let closed = if write.is_ok() { "OPEN" } else { "closed" };
        say("kernel", &format!("write to /proc/{name}: {closed}"));
    }
    for name in [
        "kcore",
        "keys",
        "kmsg",
        "timer_list",
        "interrupts",
        "sched_debug",
        "scsi",
        "acpi",
        "asound",
        "vmallocinfo",
        "slabinfo",
        "pagetypeinfo",
        "kpagecount",
        "kpageflags",
        "latency_stats",
    ] {
        let path = Path::new("/proc").join(name);
        let empty = match fs::metadata(&path) {
            Ok(found) if found.is_dir() => fs::read_dir(&path).map_or(0, Iterator::count) == 0,
            Ok(_) => {
                fs::File::open(&path)
                    .and_then(|mut file| std::io::Read::read(&mut file, &mut [0; 16]))
                    .unwrap_or(0)
                    == 0
            }
            Err(_) => true,
        };
        say("kernel", &format!("/proc/{name}: {}", if empty { "closed" } else { "OPEN" }));
    }
    for place in ["/sys", "/sys/kernel", "/sys/fs/cgroup", "/boot", "/lib/modules"] {
        let found = fs::read_dir(place).map_or(0, Iterator::count);
        say("kernel", &format!("{place}: {}", if found == 0 { "nothing there" } else { "OPEN" }));
    }
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = cgroups.lines().all(|line| line.ends_with(":/"));
    say("kernel", &format!("cgroup: {}", if own { "shown as the top" } else { "SHOWN" }));
}

fn writable_places() {
    for place in [
        "/",
        "/etc",
        "/usr",
        "/bin",
        "/root",
        "/home",
        "/tmp",
        "/var/tmp",
        "/run",
        "/dev",
        "/dev/shm",
        "/proc",
        "/proc/self",
        "/sys",
    ] {
        let path = Path::new(place).join("made-by-the-checker");
        let made = fs::File::create_new(&path);
        say(
            "places",
            &format!("{place}: {}", if made.is_ok() { "can be written" } else { attempt(&made) }),
        );
        fs::remove_file(&path).ok();
    }
}
