//! Rows about descriptors that get in from outside all the same: what Landlock keeps the command from.

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::host::{Host, open_to_all, text};
use crate::join::profiles;

/// Receives a descriptor by stdin, a socket, and uses it as a place: what each of these calls said.
fn code() -> String {
    format!(
        "my ($byte, $control) = (' ', chr(0) x 64); my $vector = pack('PQ', $byte, 1); \
         my $message = pack('QLx4PQPQlx4', 0, 0, $vector, 1, $control, 64, 0); \
         syscall({recvmsg}, 0, $message, 0) == 1 or die qq(recvmsg: $!); my $fd = unpack('x16l', $control); \
         sub told {{ print $_[0], $_[1] == -1 ? qq( $!) : ' done', qq(\\n) }} \
         my ($canary, $file, $made, $dir) = ('canary', 'outside/file', 'outside/made', 'outside'); \
         told('read', syscall({openat}, $fd, $canary, 0)); \
         told('write', syscall({openat}, $fd, $file, 513)); \
         told('make', syscall({mkdirat}, $fd, $made, 511)); \
         told('list', syscall({openat}, $fd, $dir, 65536)); \
         told('unlink', syscall({unlinkat}, $fd, $file, 0)); \
         my $inside = '/tmp/inside'; told('inside', syscall({openat}, -100, $inside, 66, 420));",
        recvmsg = libc::SYS_recvmsg,
        openat = libc::SYS_openat,
        mkdirat = libc::SYS_mkdirat,
        unlinkat = libc::SYS_unlinkat,
    )
}

const REFUSED: &str = "read Permission denied\nwrite Permission denied\nmake Permission denied\nlist Permission denied\n\
                       unlink Permission denied\ninside done\n";

/// Whether this kernel has Landlock as we need it, and that each run says so if not.
fn stands(host: &Host) -> bool {
    let version = sandbox::sys::landlock::version();
    let told = text(&host.run(&["--strict", "--net", "none"], &["/bin/true"]).stderr);
    assert_eq!(told.contains("landlock"), version < 2, "{told}");
    version >= 2
}

/// A command whose stdin is a socket, by which it is given the directory of the host.
fn given(host: &Host, command: &mut Command) -> Output {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let dir = fs::File::open(host.path(".")).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sent = [dir.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&sent)));
    sendmsg(&ours, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    command.stdin(OwnedFd::from(theirs)).output().unwrap()
}

/// CVE-2024-21626 was a directory that was left open. One that somebody hands over, as by a socket that is bound, is as good.
#[test]
fn a_directory_that_is_handed_over_leads_nowhere() {
    let host = Host::plain();
    if !stands(&host) {
        return;
    }
    open_to_all(&host.path("canary"), 0o666);
    for profile in profiles() {
        let net = if *profile == "dev" { "host" } else { "none" };
        for user in ["0", "1000"] {
            let flags = ["--profile", profile, "--net", net, "--user", user, "--tmpfs", "/tmp"];
            let out = given(&host, &mut host.running(&flags, &["/usr/bin/perl", "-e", &code()]));
            let told = text(&out.stderr);
            // The map of a box may have one user only.
            assert!(user != "0" || out.status.success(), "{profile}: {told}");
            if out.status.success() {
                assert_eq!(text(&out.stdout), REFUSED, "{profile}: {told}");
            }
        }
    }
}

/// /proc/self/fd/0 opens a file anew, with all the rights that its owner has: what was given to be read would be written.
#[test]
fn a_standard_descriptor_is_opened_anew_for_what_it_is_open_for() {
    let host = Host::plain();
    if !stands(&host) {
        return;
    }
    for (name, content) in [("input", "given\n"), ("output", "older\n")] {
        fs::write(host.path(name), content).unwrap();
        open_to_all(&host.path(name), 0o666);
    }
    let line = "cat /dev/stdin /proc/self/fd/0; echo bad >/proc/self/fd/0; echo bad >>/dev/stdin; cat /dev/stdout; \
                echo more >>/dev/stdout";
    for profile in profiles() {
        let net = if *profile == "dev" { "host" } else { "none" };
        let mut run = host.running(&["--profile", profile, "--net", net], &["/bin/sh", "-c", line]);
        let output = fs::File::options().append(true).open(host.path("output")).unwrap();
        let input = fs::File::open(host.path("input")).unwrap();
        let out = run.stdin(input).stdout(output).output().unwrap();
        let told = text(&out.stderr);
        assert!(out.status.success(), "{profile}: {told}");
        assert_eq!(told.matches("ermission denied").count(), 3, "{profile}: {told}");
        assert_eq!(fs::read_to_string(host.path("input")).unwrap(), "given\n", "{profile}");
        let written = fs::read_to_string(host.path("output")).unwrap();
        assert_eq!(written, "older\ngiven\ngiven\nmore\n", "{profile}: {told}");
        fs::write(host.path("output"), "older\n").unwrap();
    }
}
