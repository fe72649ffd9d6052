//! Rows about terminals: what is typed into the caller's, by whom.

use std::process::{Command, Stdio};

use crate::host::{Host, text};

/// Shell words for `sandbox` on a terminal of its own.
fn typed(run: &Command) -> String {
    let words = std::iter::once(run.get_program()).chain(run.get_args());
    words
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a line of bash on a terminal of its own whose keyboard nobody touches; all that it shows.
fn on_terminal(line: &str) -> String {
    let mut script = Command::new("script");
    script.args(["-qec", &format!("bash -c {}", quoted(line)), "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).env("SANDBOX_BUDGET", "off");
    let mut child = script.spawn().unwrap();
    // Held open until the end: nobody types, and nobody hangs up.
    let keyboard = child.stdin.take();
    let out = child.wait_with_output().unwrap();
    drop(keyboard);
    text(&out.stdout)
}

fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', "'\\''"))
}

/// Tries ioctl(2) with each command on each standard descriptor and the terminal's own name.
fn pushes(commands: &[u64]) -> String {
    let commands: Vec<_> = commands.iter().map(u64::to_string).collect();
    format!(
        "open(my $t, '+<', '/dev/tty'); my $tty = defined fileno($t) ? fileno($t) : 0; \
         for my $n ({}) {{ for my $fd (0, 1, 2, $tty) {{ my $c = 'x'; \
         my $r = syscall({}, $fd, $n, $c); print $r == -1 ? 0+$! : 'DONE', ' '; }} }} print qq(end\\n);",
        commands.join(", "),
        libc::SYS_ioctl
    )
}

const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
/// Bits that the kernel does not look at, because a command has 32.
const HIGH: [u64; 4] = [1 << 32, 1 << 47, 1 << 62, 0xffff_ffff_0000_0000];

fn disguised(command: u64) -> Vec<u64> {
    std::iter::once(command).chain(HIGH.map(|high| high | command)).collect()
}

/// Every attempt is answered EPERM, and nothing waits in the caller's terminal afterwards.
fn nothing_is_typed(commands: &[u64]) {
    let host = Host::plain();
    for profile in host.profiles(&["build", "dev", "strict"]) {
        let code = pushes(commands);
        let run = host.running(&["--profile", profile], &["/usr/bin/perl", "-e", &code]);
        let line = format!("{}; IFS= read -t 1 -r x; echo \"typed=[$x]\"", typed(&run));
        let shown = on_terminal(&line);
        let answers = "1 ".repeat(4 * commands.len());
        assert!(shown.contains(&format!("{answers}end")), "{profile}: {shown}");
        assert!(shown.contains("typed=[]"), "{profile}: {shown}");
    }
}

/// CVE-2017-5226: TIOCSTI pushes input into the caller's terminal.
#[test]
fn tiocsti_is_refused() {
    nothing_is_typed(&[TIOCSTI]);
}

/// CVE-2023-28100: TIOCLINUX pastes into a virtual console.
#[test]
fn tioclinux_is_refused() {
    nothing_is_typed(&[TIOCLINUX]);
}

/// CVE-2019-7303: a filter that compares 64 bits lets a command through that has a bit above the 32 which count.
#[test]
fn high_bits_disguise_no_command() {
    nothing_is_typed(&[disguised(TIOCSTI), disguised(TIOCLINUX)].concat());
}

/// CVE-2025-52565: the layer's /dev/console and /dev/pts lead the terminal elsewhere. The one inside is of a
/// devpts of its own.
#[test]
fn the_terminal_is_of_our_own_devpts() {
    let host = Host::with(|tree| {
        let outside = tree.parent().unwrap().join("outside");
        std::fs::create_dir(tree.join("dev")).unwrap();
        for name in ["pts", "console", "ptmx", "tty", "tty0", "shm"] {
            std::os::unix::fs::symlink(&outside, tree.join("dev").join(name)).unwrap();
        }
    });
    let line = "tty; stat -f -c %T /dev/pts; ls /dev/pts | cat; test -e /dev/console || echo none; \
                (echo x >/dev/pts/0) && stat -c %F /dev/ptmx";
    let run = host.running(&[], &["/bin/sh", "-c", line]);
    // devpts has no name of its own in stat(1): its number is that of all of them.
    let shown = on_terminal(&format!("tty; {}", typed(&run)));
    let lines: Vec<_> = shown.lines().map(str::trim_end).collect();
    assert_eq!(
        &lines[1..],
        ["/dev/pts/0", "devpts", "0", "ptmx", "none", "x", "symbolic link"],
        "{shown}"
    );
}
