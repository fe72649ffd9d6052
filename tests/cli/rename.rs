//! A directory of a lower layer cannot be renamed (EXDEV): what programs make of that.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{Env, debian, packages};

/// mv copies, and takes the old one away.
#[test]
fn mv_moves_directories_of_layers() {
    let env = Env::filled();
    for way in ["fd", "fd-attached", "lowerdir+", "mount"] {
        let name = format!("moved-{}", way.trim_end_matches('+'));
        let line = "set -e; stat -c '%a %u %Y' /opt/deep/a >/before; mv /opt /opt2; test ! -e /opt; \
                    stat -c '%a %u %Y' /opt2/deep/a >/after; cat /before | grep -q \"$(cat /after)\"; \
                    rm /before /after; mv /opt2 /opt3; mkdir -p /new/er; mv /new /new2; ls /opt3 /opt3/deep";
        let flags = ["--overlay-way", way, "--commit", &name];
        let all = "/opt3:\ndeep\nplain\ntype\n\n/opt3/deep:\na\nb\n";
        drop(env.line(&flags, line).run().ok().stdout(all).warns(&name));
        let diff = env.sandbox(&["diff", &name]).run().ok().text();
        for line in ["D /opt", "D /opt/deep/a", "A /opt3/deep/a", "A /opt3/plain", "A /new2/er"] {
            assert!(diff.lines().any(|found| found == line), "{line} in:\n{diff}");
        }
        assert!(!diff.contains("/opt2") && !diff.contains("/new\n"), "{diff}");
        // What was moved once lies in a layer itself, and under its old name something new may come.
        let line = "set -e; mv /opt3 /opt; cat /opt/deep/a; mv /opt/deep /opt3; ls /opt3 /opt";
        let out = env.line(&["--from", &name, "--overlay-way", way], line).run().ok();
        drop(out.stdout("a\n/opt:\nplain\ntype\n\n/opt3:\na\nb\n"));
    }
}

/// The system call says what it is; what was made since then can be renamed.
#[test]
fn rename_tells_which_directories_it_cannot_move() {
    let store = debian();
    let made = "mkdir -p /srv/lower/sub && echo x >/srv/lower/sub/file && mkdir /srv/other";
    drop(store.line(&["--commit", "renamed"], made).run().ok());
    let code = r#"
        sub try { print join(' -> ', @_), ': ', (rename($_[0], $_[1]) ? 'done' : $!), "\n" }
        try('/srv/lower', '/srv/moved');
        try('/srv/lower/sub', '/srv/sub');
        try('/srv/lower/sub/file', '/srv/other/file');
        mkdir '/srv/fresh' or die; mkdir '/srv/fresh/deep' or die;
        try('/srv/fresh', '/srv/other/fresh');
        rmdir '/srv/lower/sub' or die; mkdir '/srv/lower/sub' or die;
        try('/srv/lower/sub', '/srv/again');
    "#;
    let expected = "/srv/lower -> /srv/moved: Invalid cross-device link\n\
                    /srv/lower/sub -> /srv/sub: Invalid cross-device link\n\
                    /srv/lower/sub/file -> /srv/other/file: done\n\
                    /srv/fresh -> /srv/other/fresh: done\n\
                    /srv/lower/sub -> /srv/again: done\n";
    let words = ["run", "--from", "renamed", "--commit", "renamed2", "--", "perl", "-e", code];
    drop(store.sandbox(&words).run().ok().stdout(expected));
    let line = "find /srv/lower /srv/other /srv/again | sort; cat /srv/other/file";
    drop(store.line(&["--from", "renamed2"], line).run().ok().stdout(
        "/srv/again\n/srv/lower\n/srv/other\n/srv/other/file\n/srv/other/fresh\n/srv/other/fresh/deep\nx\n",
    ));
}

/// An rpm whose version `version` has its files in another directory than the one before.
fn moving_rpm(env: &Env, version: u32) -> String {
    let spec = format!(
        "Name: moving\nVersion: {version}\nRelease: 1\nSummary: Moves\nLicense: MIT\nBuildArch: noarch\n\
         AutoReqProv: no\n%description\nMoves.\n%install\nmkdir -p %{{buildroot}}/srv/moving/v{version}/deep\n\
         echo {version} >%{{buildroot}}/srv/moving/v{version}/deep/file\n\
         %files\n/srv/moving\n"
    );
    packages::rpm_of(env, &format!("moving{version}"), &spec)
}

#[test]
fn rpm_upgrades_and_erases_directories_of_layers() {
    let (store, own) = (debian(), Env::empty());
    let binds: Vec<String> = [1, 2]
        .iter()
        .map(|number| format!("{}:/{number}.rpm", moving_rpm(&own, *number)))
        .collect();
    let run = |flags: &[&str], line: &str| {
        let binds = binds.iter().flat_map(|bind| ["--bind", bind]);
        store.sandbox(&["run"]).args(flags).args(binds).args(["--", "sh", "-c", line]).run()
    };
    drop(run(&["--commit", "moving1"], "rpm -i --nodeps /1.rpm").ok());
    let line = "rpm -U --nodeps /2.rpm && find /srv/moving | sort && rpm -V --nodeps --nouser --nogroup moving";
    let all = "/srv/moving\n/srv/moving/v2\n/srv/moving/v2/deep\n/srv/moving/v2/deep/file\n";
    drop(run(&["--from", "moving1", "--commit", "moving2"], line).ok().stdout(all));
    let line = "rpm -e moving && test ! -e /srv/moving && ! rpm -q moving";
    drop(run(&["--from", "moving2", "--commit", "moving3"], line).ok());
    drop(run(&["--from", "moving1"], "cat /srv/moving/v1/deep/file").ok().stdout("1\n"));
    drop(run(&["--from", "moving3"], "ls /srv").ok().stdout(""));
}

/// A deb of this version: the second has a directory where the others have a file.
fn turning_deb(env: &Env, version: u32) -> String {
    let root = env.folder(&format!("turning{version}"));
    let control = format!(
        "Package: turning\nVersion: {version}\nArchitecture: all\nMaintainer: n <n@example.org>\nDescription: t\n"
    );
    env.file(&format!("turning{version}/DEBIAN/control"), control);
    let data = format!("turning{version}/usr/share/turning/data");
    env.file(&if version == 2 { format!("{data}/file") } else { data }, "data\n");
    for folder in ["", "/DEBIAN"] {
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(format!("{root}{folder}"), mode).expect("mode");
    }
    let out = format!("{root}.deb");
    drop(env.program("dpkg-deb").args(["--root-owner-group", "-b", &root, &out]).run().ok());
    out
}

/// dpkg renames a directory that a file takes the place of, and does not copy instead: within one run that
/// works, over a lower layer it fails, changes nothing and says why.
#[test]
fn dpkg_and_a_directory_that_becomes_a_file() {
    let (store, own) = (debian(), Env::empty());
    let binds: Vec<String> =
        (1..4).map(|number| format!("{}:/{number}.deb", turning_deb(&own, number))).collect();
    let run = |flags: &[&str], line: &str| {
        let binds = binds.iter().flat_map(|bind| ["--bind", bind]);
        store.sandbox(&["run"]).args(flags).args(binds).args(["--", "sh", "-c", line]).run()
    };
    drop(run(&["--commit", "turn1"], "dpkg -i /1.deb").ok());
    drop(run(&["--from", "turn1", "--commit", "turn2"], "dpkg -i /2.deb").ok());
    drop(run(&["--from", "turn2"], "cat /usr/share/turning/data/file").ok().stdout("data\n"));
    drop(run(&[], "dpkg -i /2.deb && dpkg -i /3.deb && cat /usr/share/turning/data").ok());
    let out = run(&["--from", "turn2", "--commit", "turn3"], "dpkg -i /3.deb").code(1);
    drop(out.warns("cross-device link").warns("nothing kept"));
    assert!(!store.snapshots().contains(&"turn3".to_owned()));
    // The way out that the README names.
    let line = "mv /usr/share/turning/data /tmp/data && mv /tmp/data /usr/share/turning/data && dpkg -i /3.deb";
    drop(run(&["--from", "turn2", "--commit", "turn3"], line).ok());
    drop(
        run(&["--from", "turn3"], "cat /usr/share/turning/data; dpkg --audit")
            .ok()
            .stdout("data\n"),
    );
    drop(run(&["--from", "turn3"], "dpkg -P turning && test ! -e /usr/share/turning").ok());
}
