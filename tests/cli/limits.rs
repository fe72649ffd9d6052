//! Limits: by a cgroup where there is one, else by what stands in for it, and then it is said.

use serde_json::Value;

use crate::common::{Env, Ids, ids};

/// `sandbox run FLAGS -- sh -c LINE` and its report.
fn reported(env: &Env, flags: &[&str], line: &str) -> (crate::common::Out, Value) {
    let path = env.path("report.json");
    let report = ["--report", path.to_str().unwrap()];
    let out = env.line(&[flags, &report].concat(), line).run();
    let report = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    (out, report)
}

/// Whether the report says that nothing enforces this in full.
fn is_lost(report: &Value, protection: &str) -> bool {
    let lost = report["lost"].as_array().unwrap();
    lost.iter().any(|one| one["protection"] == protection)
}

#[test]
fn memory_is_limited() {
    let env = Env::filled();
    // 64 MiB in one process.
    let line = "x=$(head -c 67108864 /dev/zero | tr '\\0' x); echo ${#x}";
    let (out, report) = reported(&env, &["--memory", "16M"], line);
    assert!(!out.text().contains("67108864"), "{}", out.text());
    if is_lost(&report, "memory") {
        drop(out.warns("not enforced: memory: ").warns("RLIMIT_DATA"));
    } else {
        drop(out.warns("--memory"));
        assert_eq!(report["error"], "memory");
        assert!(report["limits"]["oom_kills"].as_u64().unwrap() > 0);
    }
    let (out, _) = reported(&env, &["--memory", "256M"], "echo enough");
    drop(out.ok().stdout("enough\n"));
}

#[test]
fn processes_are_limited() {
    let env = Env::filled();
    let line = "for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all";
    let (out, report) = reported(&env, &["--pids", "5"], line);
    if ids() == Ids::Identity && is_lost(&report, "pids") {
        drop(out.ok().stdout("all\n").warns("the machine's root is not limited in processes"));
    } else {
        drop(out.check(report["exit"] != 0, "nine processes were made"));
    }
    // The command is one.
    let (out, _) = reported(&env, &["--pids", "1"], "true && echo x");
    drop(out.ok().stdout("x\n"));
    let (out, _) = reported(&env, &["--pids", "2"], "(exit 3); echo $?");
    drop(out.ok().stdout("3\n"));
}

#[test]
fn processor_time_is_limited_or_it_is_said() {
    let env = Env::filled();
    let (out, report) = reported(&env, &["--cpus", "0.5"], "echo x");
    let out = out.ok().stdout("x\n");
    if is_lost(&report, "cpus") {
        drop(out.warns("not enforced: cpus: ").warns("processor time is not limited"));
        // Nothing is run with less than was asked for, if that is the wish.
        let flags = ["--cpus", "0.5", "--strict"];
        let out = env.line(&flags, "echo x").run().stdout("");
        drop(out.fault(125, "run: strict: cpus: ", "without --strict it runs"));
    }
    let plan = env.sandbox(&["run", "--dry-run", "--json", "--cpus", "0.5", "--", "true"]);
    let plan = plan.run().ok().json();
    assert_eq!(is_lost(&plan, "cpus"), is_lost(&report, "cpus"), "{plan}");
}

#[test]
fn each_process_is_limited() {
    let env = Env::filled();
    let flags = ["--ulimit", "nofile=64:128", "--ulimit", "cpu=60", "--ulimit", "core=0"];
    let line = "ulimit -Sn; ulimit -Hn; ulimit -t; ulimit -c";
    drop(env.line(&flags, line).run().ok().stdout("64\n128\n60\n0\n").stderr(""));
    // The last word holds.
    let flags = ["--ulimit", "nofile=64", "--ulimit", "nofile=32"];
    drop(env.line(&flags, "ulimit -n").run().ok().stdout("32\n"));
}

#[test]
fn limits_that_cannot_be_right() {
    let env = Env::filled();
    let state = env.state();
    for (flag, value, why) in [
        ("--memory", "0", "must be more than 0"),
        ("--memory", "1.5x", "unknown unit `x`"),
        ("--memory", "1.5G", "not a size"),
        ("--memory", "-1", ""),
        ("--memory", "4K", "less than 1M"),
        ("--memory", "1000T", "this machine has"),
        ("--pids", "0", "must be more than 0"),
        ("--pids", "many", "not a number of processes"),
        ("--pids", "4000000000", "room for"),
        ("--cpus", "0", "at least 0.01"),
        ("--cpus", "1x", "not a number of processors"),
        ("--cpus", "100000", "processors for this process"),
        ("--ulimit", "nofile", "NAME=SOFT"),
        ("--ulimit", "files=1", "no such limit: files"),
        ("--ulimit", "nofile=1k", "not a number"),
        ("--ulimit", "nofile=2:1", "above the hard one"),
        ("--ulimit", "nofile=99999999999", "above the caller's hard limit"),
    ] {
        let flag = format!("{flag}={value}");
        drop(env.sandbox(&["run", &flag, "--", "true"]).run().stdout("").fault(125, why, ""));
    }
    assert_eq!(env.state(), state);
}
