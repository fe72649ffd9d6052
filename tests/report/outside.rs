//! The other side: starts the checker in each profile, and compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use crate::common::{Ids, ids, mode};
use crate::host::{Host, text};

/// Compares every report; words choose some by a part of their name.
pub(crate) fn compare_all(words: &[String]) -> ExitCode {
    let wanted: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let (mut passed, mut failed) = (0, 0);
    for profile in ["build", "dev", "strict"] {
        for terminal in [false, true] {
            let name = if terminal { format!("{profile}.terminal") } else { profile.to_owned() };
            if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
                continue;
            }
            let wrong = one(profile, terminal, &name);
            let word = if wrong.is_none() { "ok" } else { "FAILED" };
            println!("test {name} ... {word}");
            if let Some(wrong) = wrong {
                println!("{wrong}");
                failed += 1;
            } else {
                passed += 1;
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::from(u8::from(failed > 0))
}

/// What is wrong with one report, if anything is.
fn one(profile: &str, terminal: bool, name: &str) -> Option<String> {
    let host = Host::plain();
    let out = report(&host, profile, terminal);
    if profile == "strict" && ids() == Ids::Identity && mode::real_root() {
        let refused = out.contains("root inside is root of this machine");
        return (!refused).then(|| format!("not refused: {out}"));
    }
    let path = golden().join(format!("{name}.txt"));
    let golden = Report::parse(&fs::read_to_string(&path).unwrap_or_default());
    let told = told(&out, &golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        let modes = golden.modes.into_iter().chain(told.modes).collect();
        fs::write(&path, Report { common: told.common, modes }.text()).unwrap();
        return None;
    }
    let of_mode = golden.modes.get(section()).map_or(&[][..], Vec::as_slice);
    let wrong =
        [differences(&golden.common, &told.common), differences(of_mode, &told.modes[section()])]
            .concat();
    (!wrong.is_empty())
        .then(|| format!("    {} (UPDATE_GOLDEN=1 writes it)\n{wrong}", path.display()))
}

/// The section of what is different in this id mode.
fn section() -> &'static str {
    match ids() {
        Ids::Identity if !mode::real_root() => "identity in a user namespace",
        mode => mode.name(),
    }
}

/// A report of what was told. As the machine's own root more can be seen, which no other mode may ever be measured by:
/// what is different there is in its section, line by line.
fn told(out: &str, golden: &Report) -> Report {
    let lines = || out.lines().map(|line| line.trim_end_matches('\r'));
    let owned = |line: &str| line.to_owned();
    let mut common: Vec<_> = lines().filter(|line| !line.starts_with('@')).map(owned).collect();
    let mut own: Vec<_> = lines().filter_map(|line| line.strip_prefix('@')).map(owned).collect();
    if ids() == Ids::Identity {
        let more = differences(&golden.common, &common);
        own.extend(more.lines().map(|line| line.trim().to_owned()));
        common.clone_from(&golden.common);
    }
    Report { common, modes: BTreeMap::from([(section().to_owned(), own)]) }
}

/// Where the reports lie.
fn golden() -> PathBuf {
    let package = || std::env::var_os("CARGO_MANIFEST_DIR").expect("CARGO_MANIFEST_DIR");
    let given = std::env::var_os("SANDBOX_GOLDEN").filter(|path| !path.is_empty());
    given.map_or_else(|| PathBuf::from(package()).join("tests/golden/report"), PathBuf::from)
}

/// Runs the checker inside; what it tells.
fn report(host: &Host, profile: &str, terminal: bool) -> String {
    let checker = std::env::current_exe().unwrap();
    let bind = format!("{}:/checker", checker.display());
    let namespaces: Vec<_> = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .iter()
        .filter_map(|name| fs::read_link(format!("/proc/self/ns/{name}")).ok())
        .map(|link| link.to_str().unwrap().to_owned())
        .collect();
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let canary = host.word("canary");
    let command = ["/checker", "--inside", &canary, &namespaces.join(","), &limits];
    let mut run = host.running(&["--profile", profile, "--bind", &bind], &command);
    for (key, value) in [
        ("TERM", "vt100"),
        ("LANG", "C.UTF-8"),
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("SECRET", "x"),
        ("LD_LIBRARY_PATH", "/nowhere"),
    ] {
        run.env(key, value);
    }
    for key in [
        "COLORTERM",
        "NO_COLOR",
        "LANGUAGE",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "SOURCE_DATE_EPOCH",
        "EDITOR",
        "PAGER",
        "VISUAL",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "ftp_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "FTP_PROXY",
        "ALL_PROXY",
    ] {
        run.env_remove(key);
    }
    let out =
        if terminal { on_terminal(&run) } else { run.stdout(Stdio::piped()).output().unwrap() };
    format!("{}{}", text(&out.stdout), text(&out.stderr))
}

/// The same on a terminal whose keyboard nobody touches.
fn on_terminal(run: &Command) -> std::process::Output {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let words = std::iter::once(run.get_program()).chain(run.get_args());
    let line: Vec<_> = words.map(|word| quoted(word.to_str().unwrap())).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &line.join(" "), "/dev/null"]).current_dir(run.get_current_dir().unwrap());
    for (key, value) in run.get_envs() {
        match value {
            Some(value) => script.env(key, value),
            None => script.env_remove(key),
        };
    }
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = script.spawn().unwrap();
    // Held open until the end: nobody types, and nobody hangs up.
    let keyboard = child.stdin.take();
    let out = child.wait_with_output().unwrap();
    drop(keyboard);
    out
}

/// A report: what holds in all id modes, and what differs by them.
struct Report {
    common: Vec<String>,
    modes: BTreeMap<String, Vec<String>>,
}

impl Report {
    fn parse(text: &str) -> Self {
        let mut report = Self { common: Vec::new(), modes: BTreeMap::new() };
        let mut mode = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(name) =
                line.strip_prefix("[id mode ").and_then(|rest| rest.strip_suffix(']'))
            {
                mode = Some(name.to_owned());
                report.modes.insert(name.to_owned(), Vec::new());
            } else {
                match &mode {
                    None => report.common.push(line.to_owned()),
                    Some(name) => report.modes.get_mut(name).unwrap().push(line.to_owned()),
                }
            }
        }
        report
    }

    fn text(&self) -> String {
        let mut text = self.common.join("\n") + "\n";
        for (mode, lines) in &self.modes {
            write!(text, "\n[id mode {mode}]\n{}\n", lines.join("\n")).unwrap();
        }
        text
    }
}

/// Lines that are in one only.
fn differences(golden: &[String], told: &[String]) -> String {
    let mut wrong = String::new();
    for line in golden.iter().filter(|line| !told.contains(line)) {
        writeln!(wrong, "    - {line}").unwrap();
    }
    for line in told.iter().filter(|line| !golden.contains(line)) {
        writeln!(wrong, "    + {line}").unwrap();
    }
    if wrong.is_empty() && golden != told {
        wrong.push_str("    the same lines in another order, or another number of times\n");
    }
    wrong
}
