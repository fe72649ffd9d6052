//! Where a container refuses pivot_root(2) or a fresh /proc: what stands in holds, is told, and --strict
//! does without.

use std::process::Command;

use serde_json::Value;

use crate::Case;
use crate::nested;
use crate::watch;
use crate::world::{Place, Said, ids, program, tree};

pub(crate) const CASES: &[Case] = &[
    ("masked_proc", masked_proc),
    ("masked_proc_of_others", masked_proc_of_others),
    ("no_pivot_root", no_pivot_root),
    ("no_sys_admin", no_sys_admin),
    ("no_listener", no_listener),
    ("no_landlock", no_landlock),
];

/// Ways out of a chroot that others have had, in Perl, whose `chdir` takes a descriptor, too. Each goes up as far
/// as it can and looks for the canary.
const BREAK_OUTS: &str = r#"
use strict;
my $canary = shift @ARGV;
my @out;
# syscall() takes no literals.
my ($root, $dot) = ('/', '.');
sub look { my $how = shift; push @out, $how if -e $canary || -e "./$canary"; }
sub up { chdir '..' for 1..64; chroot '.'; }
sub attempt {
    my ($how, $do) = @_;
    my $pid = fork;
    if (!$pid) { $do->(); look($how); print "$_\n" for @out; exit 0; }
    waitpid $pid, 0;
}
mkdir '/tmp/a'; mkdir '/tmp/a/b';
attempt('plain', sub { up() });
attempt('nested chroot', sub { chdir '/'; chroot '/tmp/a' or die "chroot: $!"; up() });
attempt('chroot twice', sub { chroot '/tmp/a'; chdir '/'; mkdir 'c'; chroot 'c'; up() });
attempt('old descriptor', sub { opendir(my $d, '/') or die; chroot '/tmp/a'; chdir $d or die "fchdir: $!"; up() });
attempt('moved away', sub { chdir '/tmp/a/b'; chroot '/tmp/a'; rename('/b', '/../d'); up() });
attempt('proc 1', sub { chdir '/proc/1/root'; up(); chdir '/proc/1/cwd'; up() });
attempt('proc self', sub { chdir '/proc/self/root/..'; up(); chdir '/proc/self/cwd/..'; up() });
attempt('every process', sub { for (glob '/proc/[0-9]*/root /proc/[0-9]*/cwd') { chdir $_ and up(); look($_) } });
attempt('descriptors', sub { for my $n (0..1023) { chdir "/proc/self/fd/$n" and up(); look("fd $n") } });
# setns(2), unshare(2), umount2(2), pivot_root(2), open_tree(2) by their numbers on x86-64.
if (`uname -m` =~ /x86_64/) {
    attempt('setns', sub { open(my $n, '<', '/proc/self/ns/mnt') or return; syscall(308, fileno $n, 0); up() });
    attempt('unshare', sub { syscall(272, 0x10020000); syscall(166, $root, 2); up() });
    attempt('umount', sub { syscall(166, $root, 2); syscall(166, $root, 0); up() });
    attempt('pivot', sub { chdir '/'; syscall(155, $dot, $dot); syscall(166, $dot, 2); up() });
    attempt('open tree', sub { my $f = syscall(428, -100, $root, 1); chdir "/proc/self/fd/$f" if $f > 0; up() });
}
print "tried\n";
"#;

fn report(place: &Place) -> Value {
    let text = std::fs::read(place.work().join("report")).expect("a report");
    serde_json::from_slice(&text).expect("json")
}

fn lost(place: &Place) -> Vec<String> {
    let report = report(place);
    let lost = report["lost"].as_array().expect("lost").iter();
    let mut names: Vec<_> =
        lost.map(|one| one["protection"].as_str().expect("text").to_owned()).collect();
    names.sort();
    names
}

/// As many runs as a box of this mode may have, where pivot_root answers ENOSYS.
fn no_pivot_root() {
    nested::inside("no_pivot_root");
}

pub(crate) fn no_pivot_root_inside() {
    let place = Place::new();
    let denied = |words: &[&str]| -> Said {
        nested::denied("pivot_root", &place.command(words)).output().expect("run").into()
    };
    let said = denied(&["run", "--report", "report", "--", "sh", "-c", "touch /x && ls -d /x"]);
    assert_eq!(said.out, "/x\n", "{said:?}");
    assert!(said.err.contains("not enforced: pivot-root: "), "{said:?}");
    assert_eq!(lost(&place), ["pivot-root"]);
    // Also where the payload's process is made late, has the host's network, or a database is copied up.
    for flags in [&["--user", "0"][..], &["--net", "host"], &["--touch-rpmdb=always"]] {
        denied(&[&["run"], flags, &["--", "true"]].concat()).code(0);
    }
    denied(&["run", "--commit", "made", "--", "touch", "/made"]).code(0);
    place.said(&["run", "--from", "made", "--", "ls", "/made"]).code(0);
    denied(&["run", "--", "no-such"]).code(127);
    denied(&["run", "--timeout", "3", "--", "sleep", "100"]).code(143);
    let strict = denied(&["run", "--strict", "--", "true"]);
    // Before that, an identity map of real root is refused.
    strict.refused(125, if ids() == "identity" { "" } else { "docker-nested.json" });

    let said = denied_two(&place, &["run", "--report", "report", "--", "true"]).code(0);
    assert_eq!(said.err.matches("not enforced: hostname: ").count(), 1, "{said:?}");
    assert_eq!(lost(&place), ["hostname", "pivot-root"]);

    let canary = place.work().join("canary");
    std::fs::write(&canary, "untouched").expect("write");
    let canary = canary.to_str().expect("text");
    for profile in ["build", "dev"] {
        let words = [
            "run",
            "--profile",
            profile,
            "--net",
            "none",
            "--bind",
            "/usr:/usr",
            "--",
            "perl",
            "-e",
            BREAK_OUTS,
            canary,
        ];
        let said = denied(&words);
        // Perl and its die() are silent but for what broke out.
        assert_eq!(said.out, "tried\n", "{profile}: {said:?}");
        assert!(!said.err.contains(" at -e line"), "{profile}: {said:?}");
    }
    let line = "while read l; do echo \"$l\"; done </proc/self/mountinfo";
    let said = denied(&["run", "--", "bash", "-c", line]);
    let work = place.work();
    assert!(!said.out.contains(work.to_str().expect("text")), "{said:?}");
    assert_eq!(watch::names(&place.base.join("runs")), Vec::<String>::new());
    place.pristine();
}

/// Where the host name cannot be set either.
fn denied_two(place: &Place, words: &[&str]) -> Said {
    let command = place.command(words);
    nested::denied("pivot_root,sethostname", &command).output().expect("run").into()
}

/// A shell line as root of a user namespace of one id, in a mount and a pid namespace of its own. `$SANDBOX` is the
/// program, `$TREE` the tree.
fn line(place: &Place, line: &str) -> Said {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]);
    command.args(["sh", "-c", line]);
    command.env("SANDBOX_BASE_DIR", &place.base).env("SANDBOX", program()).env("TREE", tree());
    command.env("SANDBOX_BUDGET", "off");
    command.current_dir(place.work()).output().expect("unshare").into()
}

const MASK: &str =
    "mount -t tmpfs none /proc/bus && \"$SANDBOX\" init --from \"$TREE\" >/dev/null &&";

/// A fresh /proc is refused where a part of the outer one is covered (mount_too_revealing in the kernel).
fn masked_proc() {
    let place = Place::empty();
    let words = "--report report --commit made -- sh -c 'touch /made; readlink /proc/self/exe; echo 5 >/proc/self/oom_score_adj'";
    let said = line(&place, &format!("{MASK} \"$SANDBOX\" run {words}; echo $?"));
    // The write is refused: /proc is read-only.
    assert!(said.out.ends_with("/bin/readlink\n2\n"), "{said:?}");
    assert!(said.err.contains("not enforced: fresh-proc: "), "{said:?}");
    assert_eq!(lost(&place), ["fresh-proc", "owners"]);
    let said = line(&place, &format!("{MASK} exec \"$SANDBOX\" run --commit made -- touch /made"));
    let said = said.code(0);
    assert!(said.err.contains("fresh-proc"), "{said:?}");
    for words in ["--strict", "--profile strict"] {
        let strict = format!("{MASK} exec \"$SANDBOX\" run {words} -- true");
        line(&place, &strict).refused(125, "systempaths=unconfined");
    }
    let said = line(
        &place,
        "\"$SANDBOX\" init --from \"$TREE\" >/dev/null; exec \"$SANDBOX\" run --strict -- true",
    );
    let said = said.code(0);
    assert!(!said.err.contains("not enforced"), "{said:?}");
    assert_eq!(watch::names(&place.base.join("runs")), Vec::<String>::new());
}

/// What shows of the processes around cannot be looked into, changed or ended, and all inside still ends with the run.
fn masked_proc_of_others() {
    let place = Place::empty();
    let inside = r#"for p in /proc/[0-9]*; do n=${p#/proc/}
        if [ "$(cat $p/environ 2>/dev/null | head -c 4096)" ] && [ "$n" != "$(readlink /proc/self)" ]; then
            case $(cat $p/environ) in *CANARY*) echo read $p ;; esac; fi
        done
        ls /proc/$OUTER/root/ 2>/dev/null && echo entered
        (echo 7 >/proc/$OUTER/oom_score_adj) 2>/dev/null && echo changed
        kill -9 $OUTER 2>/dev/null && echo killed
        sleep 1000 & exit 0"#;
    let script = format!(
        "{MASK} export CANARY=1; sleep 100 & OUTER=$!; \
         \"$SANDBOX\" run --env OUTER=$OUTER -- bash -c '{inside}'; \
         kill -0 $OUTER && echo alive; kill $OUTER; wait; ps ax | grep -v grep | grep -c 'sleep 1000'; exit 0"
    );
    let said = line(&place, &script).code(0);
    assert_eq!(said.out, "alive\n0\n", "{said:?}");
}

/// A sandbox around this one has the listener that remembering owners takes.
fn no_listener() {
    nested::inside("no_listener");
}

pub(crate) fn no_listener_inside() {
    let place = Place::new();
    let denied = |words: &[&str]| -> Said {
        nested::denied(nested::LISTENER, &place.command(words)).output().expect("run").into()
    };
    for flags in [&[][..], &["--user", "0"]] {
        let said = denied(&[&["run", "--report", "report"], flags, &["--", "true"]].concat());
        let said = said.code(0);
        let line = "not enforced: owners: owners that the id map cannot hold are not remembered: ";
        assert_eq!(said.err.matches(line).count(), 1, "{said:?}");
        assert_eq!(lost(&place), ["owners"]);
    }
    // Before that, an identity map of real root is refused.
    let hint = if ids() == "identity" { "" } else { "a sandbox around this one" };
    denied(&["run", "--strict", "--", "true"]).refused(125, hint);
    let said = place.said(&["run", "--", "true"]).code(0);
    assert!(!said.err.contains("not enforced: owners"), "{said:?}");
    place.pristine();
}

/// Where a filter around it, or the kernel, has no Landlock.
fn no_landlock() {
    nested::inside("no_landlock");
}

pub(crate) fn no_landlock_inside() {
    let place = Place::new();
    let calls = "landlock_create_ruleset,landlock_add_rule,landlock_restrict_self";
    let denied = |words: &[&str]| -> Said {
        nested::denied(calls, &place.command(words)).output().expect("run").into()
    };
    for (flags, gone) in [
        (&[][..], &["landlock"][..]),
        (&["--net", "host"], &["abstract sockets", "landlock"]),
        (&["--profile", "dev", "--net", "none"], &[]),
    ] {
        let words = [&["run", "--report", "report"], flags, &["--", "true"]].concat();
        let said = denied(&words).code(0);
        assert_eq!(said.err.matches("not enforced: ").count(), gone.len(), "{said:?}");
        assert_eq!(lost(&place), gone);
    }
    let hint = if ids() == "identity" { "" } else { "sandbox doctor" };
    denied(&["run", "--strict", "--", "true"]).refused(125, hint);
    place.pristine();
}

/// Root of a container has no CAP_SYS_ADMIN outside the namespaces of a run: what is bound needs none.
fn no_sys_admin() {
    let place = Place::new();
    let run = |words: &[&str]| -> Said {
        let mut command = place.command(words);
        if rustix::process::geteuid().is_root() {
            let mut without = Command::new("setpriv");
            without.args(["--bounding-set=-sys_admin", "--"]).arg("env");
            without.args(command.get_args()).current_dir(place.work());
            for (key, value) in command.get_envs().filter_map(|(key, value)| Some((key, value?))) {
                without.env(key, value);
            }
            command = without;
        }
        command.output().expect("start").into()
    };
    std::fs::write(place.work().join("given"), "text\n").expect("write");
    for flags in [
        &["--bind", ".:/mnt"][..],
        &["--bind", ".:/mnt:overlay"],
        &["--net", "host", "--bind", ".:/mnt"],
    ] {
        let said = run(&[&["run"], flags, &["--", "cat", "/mnt/given"]].concat()).code(0);
        assert_eq!(said.out, "text\n", "{said:?}");
    }
    run(&["run", "--cache", "c:/mnt", "--", "touch", "/mnt/kept"]).code(0);
    run(&["run", "--cache", "c:/mnt", "--", "ls", "/mnt/kept"]).code(0);
    run(&["run", "--commit", "made", "--", "touch", "/made"]).code(0);
    place.said(&["run", "--from", "made", "--", "ls", "/made"]).code(0);
    place.pristine();
}
