//! The golden tables: what each profile says of every system call, compared with what the kernel does.
//!
//! `tests/golden/seccomp/PROFILE.ARCH.txt`; a line has number and arguments, a name, and the verdict. The names are
//! for readers and are not compared: they are the library's. `UPDATE_GOLDEN=1` writes the tables anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use libseccomp::{ScmpArch, ScmpSyscall};
use sandbox::isolate::change::Changes;
use sandbox::isolate::profile::Profile;
use sandbox::isolate::seccomp::{Request, compiled};

use crate::cases::{self, Case};
use crate::probe::{Call, Entry, Verdict, verdicts};
use crate::{NESTING, PLAIN, SINGLE, filter};

/// A table: profile, architecture, and how its calls are made.
struct Table {
    profile: &'static str,
    arch: &'static str,
    text: &'static str,
}

macro_rules! table {
    ($profile:literal, $arch:literal) => {
        Table {
            profile: $profile,
            arch: $arch,
            text: include_str!(concat!("../golden/seccomp/", $profile, ".", $arch, ".txt")),
        }
    };
}

const TABLES: [Table; 9] = [
    table!("build", "x86_64"),
    table!("build", "i386"),
    table!("build", "x32"),
    table!("dev", "x86_64"),
    table!("dev", "i386"),
    table!("dev", "x32"),
    table!("strict", "x86_64"),
    table!("strict", "i386"),
    table!("strict", "x32"),
];

/// __X32_SYSCALL_BIT.
const X32: u32 = 0x4000_0000;
/// uretprobe and uprobe, with which the kernel's own trampolines return. Kernels since 6.14 do not ask filters
/// about them, and end whoever else makes them by SIGILL.
const UNFILTERED: [u32; 2] = [335, 336];
/// A stretch of so many calls with one verdict is one line.
const STRETCH: u32 = 64;

pub(crate) fn golden_tables() -> Vec<String> {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for table in &TABLES {
        let found = text(table);
        if update {
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/seccomp");
            let path = format!("{dir}/{}.{}.txt", table.profile, table.arch);
            std::fs::write(path, found).expect("write");
            continue;
        }
        let (known, found) = (lines(table.text), lines(&found));
        for key in known.keys().chain(found.keys()) {
            let (was, is) = (known.get(key), found.get(key));
            if was != is {
                let line = format!("{}.{}: {key}: {is:?}, not {was:?}", table.profile, table.arch);
                wrong.push(line);
            }
        }
    }
    wrong.dedup();
    wrong
}

/// Verdicts by section and call. A line is `KEY  NAME  VERDICT`, in columns divided by two blanks or more.
fn lines(text: &str) -> BTreeMap<String, String> {
    let mut section = "";
    let mut lines = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            section = line;
            continue;
        }
        let mut columns = line.split("  ").map(str::trim).filter(|column| !column.is_empty());
        let key = columns.next().expect("a key");
        let verdict = columns.last();
        lines.insert(format!("{section} {key}"), verdict.unwrap_or_default().to_owned());
    }
    lines
}

fn text(table: &Table) -> String {
    let mut text = String::new();
    let plain = section(table, PLAIN);
    let title = |text: &mut String, what: &str| {
        writeln!(text, "# {} on {}: {what}", table.profile, table.arch).expect("text");
    };
    title(&mut text, "every number, and arguments that matter");
    render(&mut text, &plain);
    if table.profile != "strict" {
        for (request, what) in
            [(SINGLE, "a map of one id: what differs"), (NESTING, "--nest: what differs")]
        {
            let other = section(table, request);
            let differs = |(one, plain): &(Line, &Line)| one.verdict != plain.verdict;
            let other = other.into_iter().zip(&plain).filter(differs).map(|(line, _)| line);
            let other: Vec<_> = other.collect();
            text.push('\n');
            title(&mut text, what);
            render(&mut text, &other);
        }
    }
    text
}

/// A call of a table.
struct Line {
    key: String,
    name: String,
    /// The number, if it stands for itself and not for arguments.
    number: Option<u32>,
    verdict: Verdict,
}

fn section(table: &Table, request: Request) -> Vec<Line> {
    let (entry, arch, bit) = match table.arch {
        "i386" => (Entry::Int80, ScmpArch::X86, 0),
        "x32" => (Entry::Syscall, ScmpArch::X32, X32),
        _ => (Entry::Syscall, ScmpArch::X8664, 0),
    };
    let plain = (0..600).chain([999, 1023, 1024, 1025, 4095, 9999, 0xff_ffff, 0x3fff_ffff]);
    let plain =
        plain.filter(|number| bit != 0 || entry == Entry::Int80 || !UNFILTERED.contains(number));
    let plain = plain.map(|number| (number, Case { label: "", args: [0; 6] }));
    let with_args = cases::CASES.iter().flat_map(|(name, cases)| {
        let number = ScmpSyscall::from_name_by_arch(name, arch).expect("known").as_raw_syscall();
        // libseccomp's numbers for what i386 once did by socketcall: the direct calls.
        let number = match (*name, number) {
            ("socket", ..0) => 359,
            ("socketpair", ..0) => 360,
            (_, number) => number,
        };
        cases.iter().map(move |case| (number as u32 & !X32, *case))
    });
    let all: Vec<_> = plain.chain(with_args).collect();
    let calls: Vec<_> =
        all.iter().map(|(number, case)| Call { number: number | bit, args: case.args }).collect();
    let found = verdicts(&filter(table.profile, request), entry, &calls);
    let line = |((number, case), verdict): (&(u32, Case), Verdict)| {
        let name = name(*number, arch);
        let is_number = case.label.is_empty();
        let key = if is_number { number.to_string() } else { format!("{number} {}", case.label) };
        Line { key, name, number: is_number.then_some(*number), verdict }
    };
    all.iter().zip(found).map(line).collect()
}

fn name(number: u32, arch: ScmpArch) -> String {
    let bit = if arch == ScmpArch::X32 { X32 } else { 0 };
    let call = ScmpSyscall::from((number | bit) as i32);
    let known = if number < 512 { call.get_name_by_arch(arch).ok() } else { None };
    known.unwrap_or_else(|| "-".to_owned())
}

fn render(text: &mut String, lines: &[Line]) {
    let first = lines.first().map(|line| line.verdict);
    if let Some(verdict) = first.filter(|first| lines.iter().all(|line| line.verdict == *first)) {
        writeln!(text, "every number and argument  all  {}", told(verdict)).expect("text");
        return;
    }
    let mut at = 0;
    while at < lines.len() {
        let line = &lines[at];
        let next = |(offset, other): (usize, &Line)| {
            let expected = line.number.map(|number| number + offset as u32);
            other.number.is_some() && other.number == expected && other.verdict == line.verdict
        };
        let length = lines[at..].iter().enumerate().take_while(|(o, l)| next((*o, l))).count();
        let last = lines[at..].get(length.wrapping_sub(1)).and_then(|line| line.number);
        let verdict = told(line.verdict);
        match (line.number, last) {
            (Some(first), Some(last)) if length as u32 >= STRETCH => {
                writeln!(text, "{first}-{last}  all  {verdict}").expect("text");
                at += length;
            }
            _ => {
                writeln!(text, "{:<40}  {:<24}  {verdict}", line.key, line.name).expect("text");
                at += 1;
            }
        }
    }
}

fn told(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allowed => "allowed".to_owned(),
        Verdict::Errno(0) => "pretended".to_owned(),
        Verdict::Errno(errno) => format!("{:?}", nix::errno::Errno::from_raw(errno)),
        Verdict::Asked => "asked".to_owned(),
        Verdict::Killed => "killed".to_owned(),
    }
}

/// The way of asking itself: each kind of verdict, and that what is allowed is not made.
pub(crate) fn every_kind_of_verdict_is_told() -> Vec<String> {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("rules.json").display().to_string();
    let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["getpid"],"action":"SCMP_ACT_KILL_PROCESS"},
        {"names":["getppid"],"action":"SCMP_ACT_TRAP"},
        {"names":["getuid"],"action":"SCMP_ACT_LOG"},
        {"names":["gettid"],"action":"SCMP_ACT_ERRNO","errnoRet":0},
        {"names":["getgid"],"action":"SCMP_ACT_ERRNO","errnoRet":133}]}"#;
    std::fs::write(&path, rules).expect("write");
    let changes = Changes { seccomp: Some(path), ..Changes::default() };
    let profile = changes.apply(Profile::builtin("build").expect("built in")).expect("valid");
    let program = compiled(&profile, &Request::default()).expect("compiles");
    let table = [
        (libc::SYS_getpid, Verdict::Killed),
        (libc::SYS_exit_group, Verdict::Allowed),
        (libc::SYS_getppid, Verdict::Killed),
        (libc::SYS_getuid, Verdict::Allowed),
        (libc::SYS_gettid, Verdict::Errno(0)),
        (libc::SYS_getgid, Verdict::Errno(133)),
        (libc::SYS_pause, Verdict::Allowed),
    ];
    let calls = table.map(|(number, _)| Call { number: number as u32, args: [0; 6] });
    let found = verdicts(&program, Entry::Syscall, &calls);
    let pairs = table.iter().zip(found).filter(|((_, expected), found)| expected != found);
    pairs.map(|(expected, found)| format!("{expected:?}: {found:?}")).collect()
}
