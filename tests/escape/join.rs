//! Rows about joining a run that stays: whose run it is, which root it has, and who looks while somebody enters.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output, Stdio};

use crate::common::{Ids, ids, left, mode};
use crate::host::{Host, refused, rounds, text};

/// A run that stays, with a shell line; it is ended with the value.
struct Stays<'a> {
    host: &'a Host,
}

impl<'a> Stays<'a> {
    fn new(host: &'a Host, flags: &[&str], line: &str) -> Self {
        let words = ["start", "--name", "web", "--bind", "/usr:/usr"];
        let mut start = host.sandbox(&words);
        let out = start.args(flags).args(["--", "/bin/sh", "-c", line]).output().unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
        Self { host }
    }

    fn exec(&self, flags: &[&str], line: &str) -> Output {
        let mut exec = self.host.sandbox(&["exec"]);
        exec.args(flags).args(["web", "--", "/bin/sh", "-c", line]).output().unwrap()
    }

    /// Waits until the command has written this.
    fn logged(&self, word: &str) -> String {
        let log = || text(&self.host.sandbox(&["logs", "web"]).output().unwrap().stdout);
        left::eventually(word, || if log().contains(word) { Vec::new() } else { vec![log()] });
        log()
    }

    /// The run's directory in the store.
    fn dir(&self) -> std::path::PathBuf {
        let runs = self.host.path("store/runs");
        let names = left::names(&runs);
        runs.join(names.iter().find(|name| name.starts_with("r-")).unwrap())
    }
}

impl Drop for Stays<'_> {
    fn drop(&mut self) {
        let stopped = self.host.sandbox(&["stop", "--time", "0", "web"]).output().unwrap();
        if !std::thread::panicking() {
            assert!(stopped.status.success(), "{}", text(&stopped.stderr));
            left::eventually("the run", || left::names(&self.host.path("store/runs")));
        }
    }
}

pub(crate) fn profiles() -> &'static [&'static str] {
    let identity = ids() == Ids::Identity && mode::real_root();
    if identity { &["build", "dev"] } else { &["build", "dev", "strict"] }
}

/// CVE-2019-5736: our program as the dynamic loader of what is joined, also if the file may be executed but not read.
#[test]
fn our_program_is_no_loader_of_what_joins() {
    let host = Host::with(|tree| {
        for (name, mode) in [("loaded", 0o755), ("closed", 0o711)] {
            fs::write(tree.join(name), crate::proc::loaded_by_us()).unwrap();
            fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    });
    for profile in profiles() {
        let _run = Stays::new(&host, &["--profile", profile], "sleep 1000");
        for program in ["/loaded", "/closed"] {
            let out = host.sandbox(&["exec", "web", "--", program, "--version"]).output().unwrap();
            assert_eq!(out.status.code(), Some(126), "{profile} {program}: {}", text(&out.stdout));
        }
    }
}

/// CVE-2026-109569: entered the namespaces of a run, and kept the root of the host. Whatever the payload has done to its
/// own root meanwhile.
#[test]
fn a_joined_command_has_the_root_of_the_run() {
    let host = Host::plain();
    for profile in profiles() {
        let line = "stat -c 'first %d:%i' /; mkdir -p /tmp/jail/usr; \
                    perl -e 'chroot(q(/tmp/jail)); chdir(q(/)); sleep 1000'";
        let run = Stays::new(&host, &["--profile", profile], line);
        let first = run.logged("first ");
        let outside = host.word("outside");
        let line = format!(
            "stat -c 'first %d:%i' /; ls -d {outside} {} 2>/dev/null; ls /proc/self/root/../..{outside} 2>/dev/null; \
             cd ../../..; pwd; readlink /proc/self/cwd; cat /proc/self/mountinfo | grep -c {}",
            host.word("canary"),
            host.path(".").file_name().map_or("escape-", |_| "escape-")
        );
        let out = run.exec(&[], &line);
        let expected = format!("{}/\n/\n0\n", first.lines().next().unwrap().to_owned() + "\n");
        assert_eq!(text(&out.stdout), expected, "{profile}: {}", text(&out.stderr));
    }
}

/// CVE-2022-31214: a forged run is joined. Names are never paths, and what answers at the place of a supervisor is not
/// believed.
#[test]
fn a_forged_run_is_not_joined() {
    let host = Host::plain();
    let forge = "mkdir -p /runs/r-aaaaaaaaaaaaa/layer /tmp/runs; ln -s / /runs/r-aaaaaaaaaaaaa/root; echo ready; sleep 1000";
    let run = Stays::new(&host, &[], forge);
    drop(run.logged("ready"));
    let inside = "/runs/r-aaaaaaaaaaaaa";
    for name in ["r-aaaaaaaaaaaaa", inside, "../runs/web", "../../outside", "", ".", "r-*", "1"] {
        let out = host.sandbox(&["exec", "--", name, "/bin/true"]).output().unwrap();
        assert_eq!(out.status.code(), Some(125), "{name}: {}", text(&out.stderr));
    }
    // In the place of the supervisor's socket: one that says anything, a symlink, nothing.
    let (socket, aside) = (run.dir().join("sock"), host.path("aside"));
    fs::rename(&socket, &aside).unwrap();
    let outside = host.path("outside/file");
    for answer in ["", "{}", "garbage", "{\"joined\":{\"descriptors\":[]}}", "\\0"] {
        let code = "use Socket; my ($p, $a) = @ARGV; socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0) or die; \
                    bind($s, pack_sockaddr_un($p)) or die $!; listen($s, 1) or die; print qq(ready\\n); close STDOUT; \
                    accept(my $c, $s) or die; recv($c, my $b, 65536, 0); send($c, $a, 0) if length $a;";
        let mut server = Command::new("perl");
        server.args(["-e", code]).arg(&socket).arg(answer).stdout(Stdio::piped());
        let mut server = server.spawn().unwrap();
        std::io::Read::read_exact(server.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
        let out = run.exec(&[], "echo joined");
        assert_eq!(out.status.code(), Some(125), "{answer}: {}", text(&out.stderr));
        assert_eq!(text(&out.stdout), "", "{answer}");
        server.kill().ok();
        server.wait().unwrap();
        fs::remove_file(&socket).unwrap();
    }
    symlink(&outside, &socket).unwrap();
    assert_eq!(run.exec(&[], "true").status.code(), Some(125));
    fs::remove_file(&socket).unwrap();
    assert_eq!(run.exec(&[], "true").status.code(), Some(125));
    fs::rename(&aside, &socket).unwrap();
    assert!(run.exec(&[], "true").status.success());
}

/// CVE-2016-9962: a command that enters is looked into before it has given up what it came with. The payload may
/// trace (profile dev), and does nothing else but try.
#[test]
fn who_enters_cannot_be_looked_into() {
    let host = Host::plain();
    // What is found of a process before it is the command: our program, the caller's variables or directory, no filter.
    let code = format!(
        "$| = 1; print qq(ready\\n); my %known = map {{ $_ => 1 }} glob('/proc/[0-9]*'); \
         while (1) {{ opendir(my $d, '/proc'); for my $p (grep {{ /^\\d+$/ && !$known{{qq(/proc/$_)}} }} readdir $d) {{ \
           my $exe = readlink(qq(/proc/$p/exe)) // ''; print qq(LEAK exe $exe\\n) if $exe =~ /sandbox/; \
           my $cwd = readlink(qq(/proc/$p/cwd)) // ''; print qq(LEAK cwd $cwd\\n) if $cwd =~ /escape-|store/; \
           if (open(my $e, '<', qq(/proc/$p/environ))) {{ local $/; my $t = <$e> // ''; print qq(LEAK environ\\n) if $t =~ /sing-no-more/; }} \
           if (opendir(my $f, qq(/proc/$p/fd))) {{ for (readdir $f) {{ my $l = readlink(qq(/proc/$p/fd/$_)) // ''; print qq(LEAK fd $l\\n) if $l =~ /escape-|store|ns:|socket/; }} }} \
           if (open(my $m, '+<', qq(/proc/$p/mem))) {{ my $x = readlink(qq(/proc/$p/exe)) // ''; open(my $s, '<', qq(/proc/$p/status)); my $t = defined fileno($s) ? join('', <$s>) : ''; \
             print qq(LEAK mem $x\\n) if $x !~ m(^/usr/) and $t =~ /^VmSize/m; }} \
           if (!$traced{{$p}} && syscall({ptrace}, 16, $p + 0, 0, 0) == 0) {{ $traced{{$p}} = 1; \
             open(my $s, '<', qq(/proc/$p/status)); my $t = join('', <$s>); \
             print qq(LEAK traced without a filter\\n) if $t =~ /^Seccomp:\\s+0/m; print qq(LEAK traced with rights\\n) if $t =~ /^CapEff:\\s+000001f/m; \
             waitpid($p, 0x40000000); syscall({ptrace}, 17, $p + 0, 0, 0); }} \
           kill('CONT', $p) if $traced{{$p}}; \
         }} }}",
        ptrace = libc::SYS_ptrace
    );
    let quoted = format!("exec perl -e '{}'", code.replace('\'', "'\\''"));
    let run = Stays::new(&host, &["--profile", "dev", "--net", "none"], &quoted);
    drop(run.logged("ready"));
    for _ in 0..rounds().max(40) {
        let exec = host.sandbox(&["exec", "web", "--", "/bin/true"]);
        let mut limited = Command::new("timeout");
        limited.args(["--kill-after=1", "30"]).arg(exec.get_program()).args(exec.get_args());
        limited.env("CANARY", "sing-no-more").env("SANDBOX_BUDGET", "off");
        let out = limited.stdin(Stdio::null()).output().unwrap();
        // (Once it is the command, the payload may trace it in this profile: for that it is asked only once.)
        assert!(out.status.code().is_some(), "{}", text(&out.stderr));
    }
    let log = text(&host.sandbox(&["logs", "web"]).output().unwrap().stdout);
    assert!(!log.contains("LEAK"), "{log}");
}

/// What one who joins was started with shows at no moment, neither of him nor of what his command is made of.
#[test]
fn the_command_line_of_who_joins_does_not_show() {
    let host = Host::plain();
    let stays = Stays::new(&host, &[], "while :; do cat /proc/[0-9]*/cmdline; done 2>/dev/null");
    for _ in 0..rounds().min(1000) {
        assert!(stays.exec(&["-e", "SECRET=swordfish"], ":").status.success());
    }
    let seen = stays.logged("sandbox\0");
    for word in ["swordfish", "exec", "web"] {
        assert!(!seen.contains(word), "{word}: {seen:?}");
    }
}

/// As with the first command: no directory of the host is given open.
#[test]
fn who_joins_is_given_no_directory() {
    let host = Host::plain();
    let stays = Stays::new(&host, &[], "sleep 1000");
    let dir = fs::File::open(host.path(".")).unwrap();
    let mut exec =
        stays.host.sandbox(&["exec", "web", "--", "/bin/sh", "-c", "ls /proc/self/fd/0/.."]);
    refused(&exec.stdin(dir).output().unwrap(), "0: it is a directory");
}
