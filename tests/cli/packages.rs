//! The main job: a package on a snapshot, tried, forgotten, and kept. On the Debian tree.

use std::os::unix::fs::MetadataExt;

use crate::common::{Env, Ids, debian, ids, packages};

/// Every path but the mounts of a run, with type, mode, owners, size, time, link and content.
const FINGERPRINT: &str = "skip='( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /etc/hostname \
    -o -path /etc/hosts -o -path /etc/resolv.conf ) -prune -o'; set -f; \
    { find / -xdev -mindepth 1 $skip -printf '%p %y %m %U %G %s %T@ %l\\n'; \
      find / -xdev $skip -type f -exec sha256sum {} +; } | LC_ALL=C sort | sha256sum";

#[test]
fn an_rpm_is_tried_forgotten_and_kept() {
    let (store, own) = (debian(), Env::empty());
    let rpm = packages::rpm(&own);
    let bind = format!("{rpm}:/probe.rpm");
    let run = |flags: &[&str], words: &[&str]| {
        store.sandbox(&["run"]).args(flags).arg("--").args(words).run()
    };
    let before = run(&["--from", "postinit"], &["sh", "-c", FINGERPRINT]).ok().text();

    let install = ["rpm", "-i", "--nodeps", "/probe.rpm"];
    drop(run(&["--from", "postinit", "--bind", &bind], &install).ok().stdout(""));
    drop(run(&["--from", "postinit"], &["rpm", "-q", "probe"]).code(1).says("not installed"));
    drop(
        run(&["--from", "postinit", "--bind", &bind, "--commit", "rpm-devel"], &install)
            .ok()
            .stdout(""),
    );
    drop(
        run(&["--from", "rpm-devel"], &["rpm", "-q", "probe"]).ok().stdout("probe-1.0-1.noarch\n"),
    );
    drop(run(&["--from", "rpm-devel"], &["probe"]).ok().stdout("probe 1.0\n"));
    let line = "stat -c '%n %a %u %g' /usr/bin/probe /etc/probe /etc/probe/scores.conf /var/lib/probe /var/lib/probe/state";
    let expected = match ids().many() {
        true => {
            "/usr/bin/probe 2755 0 8\n/etc/probe 755 0 0\n/etc/probe/scores.conf 644 1 60\n\
                 /var/lib/probe 2770 33 33\n/var/lib/probe/state 640 33 33\n"
        }
        false => {
            "/usr/bin/probe 2755 0 0\n/etc/probe 755 0 0\n/etc/probe/scores.conf 644 0 0\n\
                  /var/lib/probe 2770 0 0\n/var/lib/probe/state 640 0 0\n"
        }
    };
    drop(run(&["--from", "rpm-devel"], &["sh", "-c", line]).ok().stdout(expected));

    // Outside, in the layer: the mapped ids.
    let fs = store.layer("rpm-devel");
    let outside = |path: &str| {
        let meta = std::fs::symlink_metadata(fs.join(path)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    let map = store.json(&["show", "rpm-devel"])["id_map"].clone();
    let mapped = |kind: &str, inside: u64| -> u32 {
        let extents = map[kind].as_array().unwrap();
        let number = |extent: &serde_json::Value, key: &str| extent[key].as_u64().unwrap();
        extents
            .iter()
            .find_map(|extent| {
                let (first, count) = (number(extent, "inside"), number(extent, "count"));
                (first..first + count)
                    .contains(&inside)
                    .then(|| number(extent, "outside") + inside - first)
            })
            .unwrap()
            .try_into()
            .unwrap()
    };
    let owner = |uid: u64, gid: u64| match ids() {
        Ids::Single => (mapped("uids", 0), mapped("gids", 0)),
        _ => (mapped("uids", uid), mapped("gids", gid)),
    };
    for (path, uid, gid, mode) in [
        ("usr/bin/probe", 0, 8, 0o2755),
        ("etc/probe/scores.conf", 1, 60, 0o644),
        ("var/lib/probe", 33, 33, 0o2770),
    ] {
        assert_eq!(outside(path), (owner(uid, gid).0, owner(uid, gid).1, mode), "{path}");
    }

    let diff = store.sandbox(&["diff", "rpm-devel"]).run().ok().stderr("").text();
    for line in ["A /usr/bin/probe", "A /etc/probe/scores.conf", "A /var/lib/probe/state"] {
        assert!(diff.lines().any(|found| found == line), "{line} in:\n{diff}");
    }
    let unrelated: Vec<_> =
        diff.lines().filter(|line| !line.contains("probe") && !line.contains("rpm")).collect();
    let parents = ["/usr", "/usr/bin", "/etc", "/var", "/var/lib", "/var/cache"];
    assert!(unrelated.iter().all(|line| parents.contains(&&line[2..])), "{unrelated:?}");
    let after = run(&["--from", "postinit"], &["sh", "-c", FINGERPRINT]).ok().text();
    assert_eq!(before, after, "postinit has changed");
}

#[test]
fn a_deb_is_installed_and_purged() {
    let (store, own) = (debian(), Env::empty());
    let deb = packages::deb(&own);
    let bind = format!("{deb}:/probe.deb");
    let flags = ["run", "--bind", &bind, "--commit", "deb-one", "--", "dpkg", "-i", "/probe.deb"];
    drop(store.sandbox(&flags).run().ok().says("Setting up probe-deb"));
    let owner = if ids().many() { "33:60" } else { "0:0" };
    let line = "stat -c %u:%g /var/lib/probe-deb; cat /etc/probe-deb.conf; dpkg -s probe-deb | grep Status";
    let out = store.line(&["--from", "deb-one"], line).run().ok();
    drop(out.stdout(&format!("{owner}\na = 1\nStatus: install ok installed\n")));
    let flags =
        ["run", "--from", "deb-one", "--commit", "deb-two", "--", "dpkg", "--purge", "probe-deb"];
    drop(store.sandbox(&flags).run().ok());
    let diff = store.sandbox(&["diff", "deb-one", "deb-two"]).run().ok().text();
    assert!(diff.contains("D /etc/probe-deb.conf\n"), "{diff}");
    drop(
        store
            .sandbox(&["run", "--from", "deb-two", "--", "ls", "/etc/probe-deb.conf"])
            .run()
            .code(2),
    );
}

/// No bit on a file gives more than the command has.
#[test]
fn setuid_programs_give_nothing() {
    if !ids().many() {
        // There is nobody to become root from.
        return;
    }
    let store = debian();
    let line =
        "cp /usr/bin/id /usr/bin/id4 && chown root:root /usr/bin/id4 && chmod 4755 /usr/bin/id4";
    drop(store.line(&["--commit", "setuid"], line).run().ok());
    let out = store
        .sandbox(&["run", "--from", "setuid", "--user", "daemon", "--", "/usr/bin/id4", "-u"])
        .run();
    drop(out.ok().stdout("1\n"));
}

#[test]
fn accounts_can_be_made_and_used() {
    let store = debian();
    let line = "useradd -m -u 1234 someone && echo hi >/home/someone/file && chown someone: /home/someone/file";
    drop(store.line(&["--commit", "account"], line).run().ok());
    if ids().many() {
        let words = [
            "run",
            "--from",
            "account",
            "--user",
            "someone",
            "-w",
            "/home/someone",
            "--",
            "sh",
            "-c",
            "id -un; cat file; echo x >own; stat -c %U own",
        ];
        drop(store.sandbox(&words).run().ok().stdout("someone\nhi\nsomeone\n"));
    } else {
        // Names are there, ids are not.
        drop(
            store
                .sandbox(&["run", "--from", "account", "--user", "someone", "--", "true"])
                .run()
                .fault(125, "someone", "uid 0 only"),
        );
    }
}
