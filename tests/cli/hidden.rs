//! Mounts at places that a layer hides: where it has removed what was beneath, or has a symlink instead.

use std::fs;

use crate::common::{Env, Ids, ids};

/// A box with a snapshot `gone`, in which `line` was run.
fn without(line: &str) -> Env {
    let env = Env::filled();
    drop(env.line(&["--commit", "gone"], line).run().ok());
    env
}

#[test]
fn a_target_that_a_layer_has_removed_is_made() {
    let env = Env::filled();
    let made = "mkdir -p /mnt/a /var/tmp /srv/x";
    drop(env.line(&["--commit", "made"], made).run().ok());
    let gone = "rm -rf /mnt /var/tmp /srv";
    drop(env.line(&["--from", "made", "--commit", "hidden"], gone).run().ok());
    let host = env.folder("host");
    let file = env.file("host/file", "outside\n");
    let (bind, deep, overlay) =
        (format!("{host}:/mnt"), format!("{file}:/srv/x/y/f"), format!("{host}:/mnt/o:overlay"));
    for (flags, line, told) in [
        (["--bind", &bind], "cat /mnt/file", "outside\n"),
        (["--bind", &deep], "cat /srv/x/y/f; ls /srv/x/y", "outside\nf\n"),
        (["--bind", &overlay], "cat /mnt/o/file", "outside\n"),
        (["--tmpfs", "/mnt/t"], "echo x >/mnt/t/f; cat /mnt/t/f", "x\n"),
        (["--cache", "c:/mnt"], "echo x >/mnt/f; cat /mnt/f", "x\n"),
        (
            ["--profile", "strict"],
            "echo x >/var/tmp/f; cat /var/tmp/f; ls /mnt 2>/dev/null; (>/f) 2>/dev/null || echo no",
            "x\nno\n",
        ),
        (["--profile", "strict"], "(>/var/f) 2>/dev/null || echo no", "no\n"),
    ] {
        // Root of this machine has no profile for code that nobody trusts.
        if flags[1] == "strict" && ids() == Ids::Identity {
            continue;
        }
        let out = env.line(&[&["--from", "hidden"], &flags[..]].concat(), line).run();
        drop(out.ok().stdout(told).stderr(""));
    }
    let both = ["--from", "hidden", "--read-only", "--bind", &bind];
    drop(
        env.line(&both, "cat /mnt/file; (>/x) 2>/dev/null || echo no")
            .run()
            .ok()
            .stdout("outside\nno\n"),
    );
    assert_eq!(fs::read_dir(&host).unwrap().count(), 1);
}

/// A place that was made is no change; what the command has put beside it is.
#[test]
fn a_place_that_was_made_is_in_no_layer() {
    let env = Env::filled();
    drop(env.line(&["--commit", "made"], "mkdir -p /mnt/a /srv/x /srv/kept").run().ok());
    let gone = "rm -r /mnt /srv/x /etc/hostname /etc/hosts 2>/dev/null; rm -r /opt";
    drop(env.line(&["--from", "made", "--commit", "hidden"], gone).run());
    let file = env.file("host/file", "outside\n");
    let host = env.path("host").display().to_string();
    let (bind, deep) = (format!("{host}:/mnt"), format!("{file}:/srv/x/y/f"));
    let flags = ["--from", "hidden", "--bind", &bind, "--bind", &deep, "--tmpfs", "/opt/deep/t"];
    let layers = env.entries("layers").len();
    let out = env.line(&[&flags[..], &["--commit", "same"]].concat(), "ls /mnt /srv/x/y /opt/deep");
    drop(out.run().ok().warns("no layer was made"));
    assert_eq!(env.entries("layers").len(), layers);
    // What the command has made is kept, and with it the way to it, and nothing else.
    let line = "echo new >/srv/x/y/new; mkdir /opt/mine";
    drop(env.line(&[&flags[..], &["--commit", "new"]].concat(), line).run().ok());
    let changes = env.sandbox(&["diff", "hidden", "new"]).run().ok();
    drop(changes.stdout("A /opt\nA /opt/mine\nA /srv/x\nA /srv/x/y\nA /srv/x/y/new\n"));
    // A kept run, which goes on with another place: what it has changed itself stays, empty as it may be.
    let kept = [&flags[..], &["--keep-on-failure"]].concat();
    drop(env.line(&kept, "mkdir -p /mine/empty; exit 1").run().code(1));
    let run = env.entries("runs").pop().unwrap();
    drop(env.sandbox(&["diff", "--run", &run]).run().ok().stdout("A /mine\nA /mine/empty\n"));
    let again = ["shell", "--run", &run, "--bind", &format!("{host}:/mine/empty/at")];
    drop(env.sandbox(&again).run().code(0));
    drop(env.sandbox(&["recover", &run, "--as", "mine"]).run().ok());
    drop(env.sandbox(&["diff", "hidden", "mine"]).run().ok().stdout("A /mine\nA /mine/empty\n"));
}

#[test]
fn nothing_is_made_in_what_is_bound() {
    let env = Env::filled();
    let (host, other) = (env.folder("host"), env.folder("other"));
    let flags = ["--bind", &format!("{host}:/data:rw"), "--bind", &format!("{other}:/data/new")];
    let hint = "the target goes through a symlink to nowhere, or into another mount";
    drop(env.line(&flags, "true").run().fault(125, "no such file or directory", hint));
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
    let env = without("ln -s /nowhere /link");
    let bind = format!("{}:/link/x", env.folder("host"));
    drop(env.line(&["--from", "gone", "--bind", &bind], "true").run().fault(125, "/link/x", hint));
}

#[test]
fn names_are_found_whatever_a_layer_has_for_them() {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap();
    let env = Env::filled();
    drop(env.line(&["--commit", "before"], "echo old >/etc/resolv.conf").run().ok());
    for (number, line) in [
        "rm -f /etc/resolv.conf",
        "rm -f /var/run; mkdir -p /var; ln -s /run /var/run; ln -sf /var/run/netconfig/resolv.conf /etc/resolv.conf",
        "ln -sf ../run/a/../b/resolv.conf /etc/resolv.conf",
        "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
        "ln -sf /tmp/resolv.conf /etc/resolv.conf",
        "ln -sf /etc/resolvconf/run/resolv.conf /etc/resolv.conf",
        "ln -sf ../mnt/wsl/resolv.conf /etc/resolv.conf",
        "ln -sf resolv.conf /etc/resolv.conf",
        "ln -sf /dev/null /etc/resolv.conf",
        "echo >/etc/there; ln -sf there /etc/resolv.conf",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("n{number}");
        drop(env.line(&["--from", "before", "--commit", &name], line).run().ok());
        let read = "cat /etc/resolv.conf";
        for (net, told) in [("host", host.as_str()), ("slirp4netns", "nameserver 10.0.2.3\n")] {
            let out = env.line(&["--from", &name, "--net", net], read).run().ok();
            drop(out.says(told).stderr(""));
            let strict = ["--from", &name, "--net", net, "--read-only"];
            drop(env.line(&strict, read).run().ok().says(told).stderr(""));
            let null = "stat -c %F /dev/null";
            drop(env.line(&strict, null).run().ok().stdout("character special file\n"));
        }
    }
}

/// What has no place for it is told, and is no reason not to run.
#[test]
fn names_that_cannot_be_given_are_told() {
    let env = without("rm -f /etc/resolv.conf; mkdir /etc/resolv.conf");
    let report = env.path("report.json");
    for net in ["host", "slirp4netns"] {
        let flags = ["--from", "gone", "--net", net, "--report", report.to_str().unwrap()];
        let out = env.line(&flags, "echo ran").run().ok().stdout("ran\n");
        drop(out.warns("not enforced: names: /etc/resolv.conf is as the layers have it"));
        let report: serde_json::Value =
            serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        let lost = report["lost"].as_array().unwrap();
        assert!(lost.iter().any(|one| one["protection"] == "names"), "{report}");
    }
    // Nobody asked for any.
    let flags = ["--from", "gone", "--net", "none"];
    drop(env.line(&flags, "echo ran").run().ok().stdout("ran\n").stderr(""));
}

/// A place for a mount goes when its run has ended, and only then: what a later command makes there is its own.
#[test]
fn what_a_resumed_run_makes_in_such_a_place_stays() {
    let env = Env::filled();
    let given = env.folder("given");
    drop(env.line(&["--commit", "one"], "mkdir /data").run().ok());
    drop(env.line(&["--from", "one", "--commit", "two"], "rmdir /data").run().ok());
    let bind = format!("{given}:/data");
    let flags = ["--json", "--from", "two", "--keep-on-failure", "--bind", &bind];
    let out = env.line(&flags, "false").run().code(1);
    let all = env.sandbox(&["ps", "--json"]).run().ok().text();
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    let run = all["runs"][0]["run"].as_str().unwrap();
    drop(out);
    drop(env.sandbox(&["diff", "--run", run]).run().ok().stdout(""));
    let typed = "mkdir -m 755 /data /data2\n";
    drop(env.sandbox(&["shell", "--run", run]).input(typed).run());
    drop(env.sandbox(&["recover", run, "--as", "three"]).run().ok());
    drop(env.line(&["--from", "three"], "[ -d /data ] && [ -d /data2 ]").run().ok());
}
