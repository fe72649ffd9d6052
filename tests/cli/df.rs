//! Space: the parts add up to what du(1) says, and what is foretold is what is freed.

use serde_json::Value;

use crate::common::{Env, Ids, ids};

/// What du(1) says of paths beneath the store, together, in bytes. Inside the user namespace where files are
/// out of our reach outside.
#[track_caller]
fn du(env: &Env, paths: &[String]) -> u64 {
    let enter: &[&str] = match ids() {
        Ids::Subuid => &["unshare", "--map-root-user", "--map-auto"],
        Ids::Single => &["unshare", "--map-root-user"],
        Ids::Range | Ids::Identity => &[],
    };
    let words = enter.iter().copied().chain(["du", "--block-size=1", "-s", "-c", "--"]);
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    words.extend(paths.iter().map(|path| env.base().join(path).to_str().unwrap().to_owned()));
    let out = env.program(&words[0]).args(&words[1..]).run().ok();
    let last = out.text().lines().last().unwrap().to_owned();
    last.split_whitespace().next().unwrap().parse().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}"))
}

#[track_caller]
fn snapshot<'a>(df: &'a Value, name: &str) -> &'a Value {
    let all = df["boxes"][0]["snapshots"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap()
}

/// A budget of the store's own, so that the disk of this machine does not matter.
#[test]
fn commits_are_refused_before_the_disk_is_full() {
    let env = Env::filled();
    let own: u64 = env.json(&["show"])["own_bytes"].as_u64().unwrap();
    let run = |words: &[&str]| {
        env.sandbox(&["run"])
            .args(words)
            .args(["--", "touch", "/new"])
            .unset("SANDBOX_BUDGET")
            .run()
    };
    let set = |percent: u64, more: &[&str]| {
        let size = (own * 100 / percent).to_string();
        drop(env.sandbox(&["df", "--budget", &size]).args(more).run().ok());
    };
    set(60, &[]);
    let out = run(&["--commit", "a"]).ok();
    let warned = out.errors().contains("budget");
    drop(out.check(!warned, "it warns too early"));
    set(80, &[]);
    drop(run(&["--commit", "b"]).ok().warns("80 % of the budget of the store is used"));
    drop(env.sandbox(&["df", "--json"]).run().ok().says("\"percent\":80"));
    set(95, &[]);
    let state = env.state();
    drop(run(&["--commit", "c"]).fault(125, "95 % of the budget", "sandbox gc"));
    drop(run(&["--keep"]).fault(125, "95 % of the budget", "sandbox rm"));
    let other = env.init(&["--from", "scratch", "other"]).unset("SANDBOX_BUDGET").run();
    drop(other.fault(6, "95 % of the budget", "sandbox gc"));
    assert_eq!(env.state(), state);
    // What is thrown away, and what makes room, is never refused.
    drop(run(&[]).ok().stderr(""));
    drop(
        env.sandbox(&["run", "--keep-on-failure", "--", "sh", "-c", "touch /x; exit 1"])
            .unset("SANDBOX_BUDGET")
            .run()
            .code(1),
    );
    let kept = env.entries("runs").remove(0);
    let recover = ["recover", &kept, "--as", "r"];
    drop(env.sandbox(&recover).unset("SANDBOX_BUDGET").run().fault(6, "95 %", "sandbox gc"));
    drop(env.sandbox(&["rm", "b"]).unset("SANDBOX_BUDGET").run().ok());
    drop(env.sandbox(&["gc", "--all"]).unset("SANDBOX_BUDGET").run().ok());
    set(95, &["--refuse", "100"]);
    drop(env.sandbox(&recover).unset("SANDBOX_BUDGET").run().ok());
    let df = env.json(&["df", "--budget", "none", "--warn", "20", "--refuse", "30"]);
    assert_eq!(df["budget"], serde_json::json!({"size": null, "warn": 20, "refuse": 30}));
    for words in [["--warn", "40"], ["--refuse", "101"], ["--budget", "x"], ["--budget", "0"]] {
        drop(env.sandbox(&["df"]).args(words).run().code(2).stdout(""));
    }
    std::fs::write(env.base().join("settings.json"), "{").unwrap();
    drop(run(&["--commit", "d"]).fault(125, "settings.json", "fsck --repair"));
    drop(env.sandbox(&["fsck", "--repair"]).run().ok());
    drop(env.sandbox(&["df"]).run().ok().says("warns at 75 %, refuses at 90 %"));
}

#[test]
fn the_parts_add_up_to_what_du_says() {
    let env = Env::filled();
    let fill =
        "mkdir /d; dd if=/dev/zero of=/d/big bs=1000 count=300; ln /d/big /d/same; touch /d/empty";
    drop(env.line(&["--commit", "a"], fill).run().ok());
    drop(env.line(&["--from", "a", "--commit", "b"], "rm /d/same; echo x >/d/small").run().ok());
    drop(
        env.line(
            &["--keep-on-failure", "--cache", "c:/c"],
            "echo kept >/kept; echo c >/c/c; exit 1",
        )
        .run()
        .code(1),
    );
    drop(env.sandbox(&["run", "--wait-trash", "--", "true"]).run().ok());
    let df = env.json(&["df"]);
    let sum: u64 =
        ["layers", "trash", "runs", "cache", "records"].iter().map(|name| number(&df[name])).sum();
    assert_eq!(number(&df["total"]), sum, "{df}");
    assert_eq!(sum, du(&env, &[String::new()]), "{df}");
    for folder in ["layers", "runs", "cache"] {
        let parts: Vec<_> =
            env.entries(folder).iter().map(|name| format!("{folder}/{name}")).collect();
        assert_eq!(number(&df[folder]), du(&env, &parts), "{folder}: {df}");
    }
    for name in ["postinit", "a", "b"] {
        let chain = env.json(&["show", name])["chain"].clone();
        let chain: Vec<_> = chain
            .as_array()
            .unwrap()
            .iter()
            .map(|id| format!("layers/{}", id.as_str().unwrap()))
            .collect();
        let one = snapshot(&df, name);
        assert_eq!(number(&one["own"]) + number(&one["shared"]), du(&env, &chain), "{name}: {df}");
        assert_eq!(number(&one["own"]), du(&env, &chain[chain.len() - 1..]), "{name}: {df}");
    }
    // b stands on a, and head and the kept run on postinit.
    assert_eq!(number(&snapshot(&df, "a")["reclaimable"]), 0);
    assert_eq!(number(&snapshot(&df, "postinit")["reclaimable"]), 0);
    assert_eq!(snapshot(&df, "b")["reclaimable"], snapshot(&df, "b")["own"]);
    assert_eq!(df["unused"], 0);
    let freed = number(&snapshot(&df, "b")["reclaimable"]);
    drop(env.sandbox(&["rm", "b"]).run().ok());
    assert_eq!(number(&env.json(&["df"])["unused"]), freed);
    assert_eq!(number(&env.json(&["gc", "--all"])["freed"]), freed);
    let text = env.sandbox(&["df", "default"]).run().ok().says("default").says("in all: layers");
    drop(text.check(true, ""));
    drop(env.sandbox(&["df", "nobox"]).run().fault(3, "nobox", "sandbox init"));
    let run = env.entries("runs").remove(0);
    drop(env.sandbox(&["recover", &run, "--as", "kept"]).run().ok());
}
