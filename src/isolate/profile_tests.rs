use super::*;
use crate::fault::Kind;

fn edited(from: &str, to: &str) -> Result<Profile> {
    let text = BUILTIN[0].text;
    assert!(text.contains(from), "{from}");
    Profile::from_text("p.json", text.replacen(from, to, 1))
}

#[test]
fn the_built_in_profiles_are_whole() {
    for builtin in &BUILTIN {
        let checked = Profile::from_text(builtin.name, builtin.text.to_owned()).expect("valid");
        assert_eq!(checked.notes(), &[] as &[String], "the library knows every name");
        let profile = Profile::builtin(builtin.name).expect("valid");
        let seccomp = profile.seccomp().expect("valid");
        assert_eq!(seccomp.default_errno_ret, Some(38));
        assert!(!seccomp.default_action.permits());
    }
}

#[test]
fn capabilities_are_those_of_the_design() {
    let build = Profile::builtin("build").expect("valid").capabilities;
    let dev = Profile::builtin("dev").expect("valid").capabilities;
    let strict = Profile::builtin("strict").expect("valid").capabilities;
    assert_eq!(build.names().len(), 12);
    assert_eq!(dev.0 & !build.0, 1 << 19, "CAP_SYS_PTRACE");
    assert_eq!(strict, CapSet::NONE);
    assert!(!build.holds(21), "CAP_SYS_ADMIN");
}

#[test]
fn mistakes_are_told_with_their_place() {
    let fault = edited("\"network\"", "\"netwrok\"").expect_err("unknown field");
    assert_eq!(fault.kind, Kind::Usage);
    assert!(fault.message.starts_with("profile: p.json: "), "{}", fault.message);
    assert!(fault.message.contains("netwrok") && fault.message.contains("line"), "{fault}");
    for (from, to) in [
        ("CAP_CHOWN", "CAP_CHWON"),
        ("\"none\"", "\"some\""),
        ("\"core\"", "\"cores\""),
        ("\"names\"", "\"name\""),
        ("SCMP_ACT_ALLOW", "ALLOW"),
        ("/proc/acpi", "proc/acpi"),
        ("/proc/acpi", "/proc/../acpi"),
        ("/proc/acpi", "/"),
        ("/proc/acpi", "//"),
        ("/proc/bus", "/."),
        ("\"TERM\"", "\"TE=RM\""),
        ("\"set\": {}", "\"set\": {\"\": \"x\"}"),
        // Allowed as well as refused.
        ("\"acct\"", "\"read\""),
    ] {
        let fault = edited(from, to).expect_err(to);
        assert_eq!(fault.kind, Kind::Usage, "{to}");
    }
}

#[test]
fn unknown_calls_are_skipped_with_a_note() {
    let profile = edited("\"acct\"", "\"frobnicate\"").expect("valid");
    assert_eq!(profile.notes(), ["seccomp: frobnicate: unknown system call, skipped"]);
    let deny = |text: &str| {
        let (settings, _) = BUILTIN[0].text.split_once("\"seccomp\":").expect("system calls");
        Profile::from_text("p.json", format!("{settings}\"seccomp\":{text}}}")).expect("valid")
    };
    let rules = r#""syscalls":[{"names":["mkdir","frob","nicate"],"action":"SCMP_ACT_ERRNO"},
        {"names":["frob"],"action":"SCMP_ACT_ERRNO"},{"names":["other"],"action":"SCMP_ACT_ALLOW"},
        {"names":["mseal"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]"#;
    for (default, open) in [
        ("SCMP_ACT_ALLOW", &["frob", "nicate", "mseal"][..]),
        ("SCMP_ACT_LOG", &["frob", "nicate", "mseal"]),
        ("SCMP_ACT_ERRNO", &[]),
    ] {
        let profile = deny(&format!(r#"{{"defaultAction":"{default}",{rules}}}"#));
        assert_eq!(profile.unrefused(), open, "{default}");
    }
}

#[test]
fn only_small_regular_files_are_read() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("p.json");
    assert_eq!(Profile::load(&path).expect_err("absent").kind, Kind::NotFound);
    assert_eq!(Profile::load(dir.path()).expect_err("directory").kind, Kind::Usage);
    let fifo = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR).expect("fifo");
    assert_eq!(Profile::load(&fifo).expect_err("fifo").kind, Kind::Usage);
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).expect("write");
    assert_eq!(Profile::load(&path).expect_err("large").kind, Kind::Usage);
    std::fs::write(&path, BUILTIN[2].text).expect("write");
    let profile = Profile::named(&path.display().to_string()).expect("valid");
    assert_eq!(profile.network, Network::None);
    assert_eq!(Profile::named("nothing").expect_err("unknown").kind, Kind::Usage);
}

#[test]
fn built_in_settings_are_the_whole_ones() {
    for builtin in &BUILTIN {
        let whole: Settings = parse(builtin.name, builtin.text).expect(builtin.name);
        let read = Profile::builtin(builtin.name).expect(builtin.name);
        assert_eq!(format!("{:?}", read.settings), format!("{whole:?}"));
        assert!(without_calls(builtin.text).len() * 3 < builtin.text.len(), "{}", builtin.name);
    }
}
