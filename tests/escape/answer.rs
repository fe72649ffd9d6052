//! Rows about the handler of remembered owners: it looks at files that the payload names, with more rights than
//! the payload has.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use serde_json::Value;

use crate::common::{Ids, ids};
use crate::host::{Host, rounds};

/// A user and a group that the map does not hold, so that the handler has to remember them; in `identity` mode there
/// are none, and the kernel gives files to these.
fn far() -> (u32, u32) {
    match ids() {
        Ids::Single | Ids::Identity => (33, 8),
        _ => (3_000_000_000, 3_000_000_001),
    }
}

/// What the newest layer remembers an owner or a device of, by path.
fn remembered(host: &Host) -> Vec<String> {
    let text = fs::read_to_string(host.layer().join("owners")).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["path"].as_str().unwrap().to_owned()).collect()
}

/// What can be told of a file that nobody has touched; without its times if only an owner counts.
fn state(host: &Host, name: &str, times: bool) -> (u32, u32, Option<(i64, i64)>, Vec<u8>) {
    let path = host.path(name);
    let found = fs::metadata(&path).unwrap();
    let changed = times.then(|| (found.ctime(), found.ctime_nsec()));
    let mut getfattr = Command::new("getfattr");
    let attributes = getfattr.args(["--absolute-names", "-d", "-m", "-"]).arg(path).output();
    (found.uid(), found.gid(), changed, attributes.unwrap().stdout)
}

/// Perl: calls by number, and a file.
fn prelude() -> String {
    format!(
        "sub own {{ my ($p, $u, $g, $f) = @_; syscall({}, -100, $p, $u, $g, $f // 0) == -1 ? 0+$! : 0 }}
         sub node {{ my $p = $_[0]; syscall({}, -100, $p, 020644, 0x103) == -1 ? 0+$! : 0 }}
         sub exchange {{ my ($a, $b) = @_; syscall({}, -100, $a, -100, $b, 2) }}
         sub touch {{ open(my $f, '>', $_[0]) or die \"$_[0]: $!\"; close $f }}
         $| = 1;",
        libc::SYS_fchownat,
        libc::SYS_mknodat,
        libc::SYS_renameat2
    )
}

/// Places beneath which a process of the payload changes owners and makes nodes are exchanged by another one for
/// links: to the host, to a bind, to the first process; and what is never to be followed, for a link to another file.
#[test]
fn links_that_are_exchanged_do_not_lead_the_handler() {
    let host = Host::plain();
    let given = host.folder("given");
    fs::write(host.path("given/file"), "").unwrap();
    let before = (state(&host, "outside/file", true), state(&host, "given/file", false));
    let (uid, gid) = far();
    let outside = host.word("outside");
    let code = prelude()
        + &format!(
            "my @links = ('{outside}', '../../../..{outside}', '/given', '/proc/1/root');
             mkdir $_ for '/w', '/w/dir', '/victim';
             touch($_) for '/w/dir/file', '/w/leaf', '/victim/file', '/file';
             symlink $links[$_], \"/w/link$_\" for 0 .. $#links;
             symlink '/victim/file', '/w/other';
             my $swapper = fork;
             if (!$swapper) {{ while (1) {{ for my $n (0 .. $#links) {{
                 exchange('/w/dir', \"/w/link$n\"); exchange('/w/leaf', '/w/other');
                 symlink '/victim/node', '/w/node';
                 exchange('/w/dir', \"/w/link$n\"); unlink '/w/node' }} }} }}
             my ($turns, %n) = (0);
             until ($turns >= {} && keys %n == 6 || $turns > 100000) {{
                 $turns++;
                 $n{{own('/w/dir/file', {uid}, {gid}) ? 'not given' : 'given'}}++;
                 own('/w/leaf', {uid}, {gid}, 0x100) and die \"leaf: $!\";
                 $n{{node('/w/dir/node') ? 'not made' : 'made'}}++;
                 $n{{node('/w/node') ? 'there' : 'new'}}++;
                 unlink '/w/dir/node' }}
             kill 9, $swapper; waitpid $swapper, 0;
             print join(' ', map {{ (stat)[4, 5] }} '/victim', '/victim/file', '/file'), \"\\n\";
             print \"followed\\n\" if -e '/victim/node';
             print join(', ', sort keys %n), \"\\n\"",
            50 * rounds()
        );
    let flags = ["--commit", "a", "--bind", &format!("{given}:/given:rw")];
    let shown = host.perl(&flags, &code);
    // Both sides of each race were met.
    let met = "given, made, new, not given, not made, there";
    assert_eq!(shown, format!("0 0 0 0 0 0\n{met}\n"));
    let paths = remembered(&host);
    assert!(paths.iter().all(|path| path.starts_with("w/")), "{paths:?}");
    assert_eq!(paths.contains(&"w/leaf".to_owned()), ids() != Ids::Identity, "{paths:?}");
    assert_eq!(state(&host, "outside/file", true), before.0);
    // What is bound belongs to whom it belongs outside, with his rights: root of the machine may give it away.
    if ids() != Ids::Identity {
        assert_eq!(state(&host, "given/file", false), before.1);
    }
    assert_eq!(crate::common::left::names(&host.path("given")), ["file"]);
}

/// In a user namespace of its own a process has other ids, and maybe other mounts: the kernel answers, nothing is
/// remembered. Such namespaces are there without the filter only.
#[test]
fn calls_from_other_user_namespaces_are_the_kernels() {
    let host = Host::plain();
    let (uid, gid) = far();
    let code = prelude()
        + &format!(
            "sub put {{ open(my $f, '>', $_[0]) or die \"$_[0]: $!\"; syswrite($f, $_[1]) or die \"$_[0]: $!\" }}
             mkdir '/m'; touch($_) for '/f', '/m/f', '/seen';
             if (!fork) {{
                 syscall({unshare}, 0x10000000 | 0x20000) == 0 or die \"unshare: $!\";
                 print own('/f', {uid}, {gid}) ? 'refused' : 'done', \"\\n\";
                 put('/proc/self/uid_map', '0 0 1'); put('/proc/self/setgroups', 'deny'); put('/proc/self/gid_map', '0 0 1');
                 sub all {{ join(' ', own($_[0], {uid}, {gid}), own($_[0], 0, 0), node(\"$_[0]-node\")) . \"\\n\" }}
                 print all('/f');
                 my ($none, $place, $kind) = ('none', '/m', 'tmpfs');
                 syscall({mount}, $none, $place, $kind, 0, 0) == 0 or die \"mount: $!\"; touch('/m/f');
                 print all('/m/f');
                 exit }}
             wait; print own('/seen', {uid}, {gid}), \"\\n\"",
            unshare = libc::SYS_unshare,
            mount = libc::SYS_mount
        );
    let shown = host.perl(&["--commit", "a", "--seccomp", "none"], &code);
    let (invalid, refused) = (libc::EINVAL, libc::EPERM);
    let kernels = format!("{invalid} 0 {refused}\n");
    assert_eq!(shown, format!("refused\n{kernels}{kernels}0\n"));
    let expected: &[&str] = if ids() == Ids::Identity { &[] } else { &["seen"] };
    assert_eq!(remembered(&host), expected);
}

/// In a mount namespace of its own, which takes CAP_SYS_ADMIN too, a name is another file than here, and no file is of the
/// layer: it is as on a bind, where nothing is remembered.
#[test]
fn calls_from_other_mount_namespaces_are_not_remembered() {
    let host = Host::plain();
    let (uid, gid) = far();
    let code = prelude()
        + &format!(
            "mkdir '/m'; touch($_) for '/f', '/m/f';
             if (!fork) {{
                 syscall({unshare}, 0x20000) == 0 or die \"unshare: $!\";
                 my ($none, $place, $kind) = ('none', '/m', 'tmpfs');
                 syscall({mount}, $none, $place, $kind, 0, 0) == 0 or die \"mount: $!\"; touch('/m/f');
                 print join(' ', map {{ own($_, {uid}, {gid}), node(\"$_-node\") }} '/m/f', '/m/f', '/f'), \"\\n\";
                 exit }}
             wait; print join(' ', (stat '/m/f')[4, 5]), \"\\n\"",
            unshare = libc::SYS_unshare,
            mount = libc::SYS_mount
        );
    let flags = ["--commit", "a", "--seccomp", "none", "--cap-add", "SYS_ADMIN"];
    let shown = host.perl(&flags, &code);
    // The first is pretended, or the kernel gives the file away where it can.
    let own = if matches!(ids(), Ids::Single | Ids::Identity) { 0 } else { libc::EINVAL };
    let both = format!("{own} {}", libc::EPERM);
    assert_eq!(shown, format!("{both} {both} {both}\n0 0\n"));
    assert_eq!(remembered(&host), [""; 0]);
}
