//! Rows about what is exchanged between a check and its use. `SANDBOX_ESCAPE_ROUNDS` says how often.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use crate::host::{Host, refused, rounds, text};

/// A program that exchanges names as fast as it can.
struct Swapper(Child);

impl Swapper {
    fn new(a: &str, b: &str) -> Self {
        let code = format!(
            "my ($a, $b) = @ARGV; while (1) {{ syscall({}, -100, $a, -100, $b, 2) }}",
            libc::SYS_renameat2
        );
        let mut perl = Command::new("perl");
        Self(perl.args(["-e", &code, a, b]).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// CVE-2024-42472: the source of a bind becomes a symlink after it was looked at. Were it followed, what is
/// never bound (the store) would be.
#[test]
fn a_source_that_is_exchanged_is_not_followed() {
    let host = Host::plain();
    host.folder("given/dir");
    fs::write(host.path("given/dir/mine"), "").unwrap();
    symlink(host.path("store"), host.path("given/link")).unwrap();
    let swapper = Swapper::new(&host.word("given/dir"), &host.word("given/link"));
    // As a directory it is shown; as a link it leads to what is never bound; and it may be the one when it is looked at,
    // and the other when it is taken: all three have to happen.
    let (mut shown, mut never, mut exchanged, mut round) = (0, 0, 0, 0);
    while round < rounds() || shown * never * exchanged == 0 {
        assert!(
            round < 100 * rounds(),
            "{shown} shown, {never} never bound, {exchanged} exchanged"
        );
        let mode = ["ro", "rw", "overlay"][round as usize % 3];
        let out = host.run(
            &["--bind", &format!("{}:/mnt:{mode}", host.word("given/dir"))],
            &["/bin/ls", "/mnt"],
        );
        if out.status.success() {
            assert_eq!(text(&out.stdout), "mine\n");
            shown += 1;
        } else {
            let link = text(&out.stderr).contains("part of the store");
            refused(&out, if link { "bind" } else { "too many levels of symbolic links" });
            never += u32::from(link);
            exchanged += u32::from(!link);
        }
        round += 1;
    }
    drop(swapper);
}

/// CVE-2021-30465, CVE-2024-23651, CVE-2026-41568: two runs share a directory; one exchanges a directory in it for a symlink, while
/// the other is started with a mount on just that.
#[test]
fn a_target_that_is_exchanged_stays_inside() {
    let host = Host::plain();
    let shared = host.folder("shared");
    host.folder("shared/dir");
    let given = host.folder("given");
    fs::write(host.path("given/mark"), "").unwrap();
    let volume = format!("{shared}:/shared:rw");
    let code = format!(
        "symlink('/', '/shared/link'); symlink('/proc/1/root', '/shared/magic'); symlink('../../../..', '/shared/up'); \
         open(my $f, '>', '/shared/begun'); close $f; my @l = ('/shared/link', '/shared/magic', '/shared/up'); my $d = '/shared/dir'; \
         while (1) {{ for my $l (@l) {{ syscall({0}, -100, $d, -100, $l, 2); syscall({0}, -100, $d, -100, $l, 2) }} }}",
        libc::SYS_renameat2
    );
    let mut swapper =
        host.running(&["--bind", &volume], &["/usr/bin/perl", "-e", &code]).spawn().unwrap();
    let begun = host.path("shared/begun");
    crate::common::left::eventually("the start", || {
        if begun.exists() { Vec::new() } else { vec!["no start".to_owned()] }
    });
    // Whatever is mounted where: the host's own files do not appear, and what must not be changed is not.
    let line = format!(
        "test -e {} && echo ESCAPED; cat {} 2>/dev/null; true",
        host.word("canary"),
        host.word("outside/file")
    );
    for _ in 0..rounds() {
        for flag in ["--bind", "--tmpfs"] {
            let what = if flag == "--bind" {
                format!("{given}:/shared/dir")
            } else {
                "/shared/dir".into()
            };
            let out = host.shell(&["--bind", &volume, flag, &what], &line);
            assert!(matches!(out.status.code(), Some(0 | 125)), "{}", text(&out.stderr));
            assert_eq!(text(&out.stdout), "", "{}", text(&out.stderr));
        }
    }
    // Its supervisor: all inside ends with it.
    swapper.kill().unwrap();
    swapper.wait().unwrap();
}

/// CVE-2019-5736: a hostile run exchanges the command of another one, between a look at it and its exec, for a link to
/// our own program, in what both are given.
#[test]
fn a_command_that_is_exchanged_is_not_our_program() {
    let host = Host::plain();
    let shared = host.folder("shared");
    let volume = format!("{shared}:/shared:rw");
    let code = format!(
        "for my $d ('/cache', '/shared') {{ system(\"cp /usr/bin/true $d/prog; cp $d/prog $d/mixed; \
         ln -s /proc/self/exe $d/link; echo '#!/proc/self/exe' >$d/script; chmod 755 $d/script\") }} \
         open(my $f, '>', '/shared/begun'); close $f; \
         my @l = map {{ my $d = $_; (\"$d/prog\", \"$d/link\", \"$d/mixed\", \"$d/script\") }} ('/cache', '/shared'); \
         while (1) {{ for (my $i = 0; $i < @l; $i += 2) {{ my ($a, $b) = @l[$i, $i + 1]; \
         syscall({}, -100, $a, -100, $b, 2) }} }}",
        libc::SYS_renameat2
    );
    let flags = ["--bind", &volume, "--cache", "c:/cache"];
    // Its supervisor: all inside ends with it.
    let swapper = Swapper(host.running(&flags, &["/usr/bin/perl", "-e", &code]).spawn().unwrap());
    let begun = host.path("shared/begun");
    crate::common::left::eventually("the start", || {
        if begun.exists() { Vec::new() } else { vec!["no start".to_owned()] }
    });
    let binds = ["rw", "ro", "overlay"].map(|mode| ("--bind", format!("{shared}:/given:{mode}")));
    for _ in 0..rounds() {
        for (flag, what) in binds.iter().chain(&[("--cache", "c:/given".to_owned())]) {
            for command in ["/given/prog", "/given/mixed"] {
                let out = host.run(&[flag, what], &[command, "--version"]);
                // The one or the other, never ours.
                let told = text(&out.stderr);
                assert!(matches!(out.status.code(), Some(0 | 126)), "{what}: {told}");
                assert!(!text(&out.stdout).contains("sandbox"), "{what}: {out:?}");
            }
        }
    }
    drop(swapper);
}
