//! Files that are copied up before a command, so that what is mapped and then written is one file; and what
//! leaves the upper again. With perl, Berkeley DB and rpm of the Debian tree.

use std::os::unix::fs::PermissionsExt;

use crate::common::mode::real_root;
use crate::common::{Env, Ids, debian, ids, left, packages};

/// Maps `$1` read-only, then writes it through another descriptor; says what it was, what the mapping shows
/// and what read(2) shows after that.
const MAP: &str = r#"
use POSIX ();
open my $in, '<', $ARGV[0] or die "open: $!";
my $mmap = (POSIX::uname())[4] eq 'x86_64' ? 9 : 222;
my $at = syscall($mmap, 0, 4096, 1, 1, fileno $in, 0);
die "mmap: $!" if $at == -1;
sub mapped { unpack 'P3', pack 'Q', $at }
my $was = mapped();
open my $out, '+<', $ARGV[0] or die "open: $!";
syswrite $out, 'new';
sysread $in, my $read, 3;
print "$was ", mapped(), " $read\n";
"#;

/// What [`MAP`] says of a file that is one, and of one that became two.
const ONE: &str = "old new new\n";
const TWO: &str = "old old new\n";

const WAYS: [&str; 4] = ["fd", "fd-attached", "lowerdir+", "mount"];

/// What the layer of a snapshot holds itself.
fn own_files(env: &Env, snapshot: &str) -> Vec<String> {
    let fs = env.layer(snapshot);
    let mut found: Vec<String> = left::names(&fs);
    let mut next = 0;
    while next < found.len() {
        let name = found[next].clone();
        next += 1;
        if fs.join(&name).is_symlink() {
            continue;
        }
        let deeper = left::names(&fs.join(&name));
        found.extend(deeper.into_iter().map(|one| format!("{name}/{one}")));
    }
    found.sort();
    found
}

#[test]
fn a_mapped_file_that_is_written_is_one_file() {
    let (store, own) = (debian(), Env::empty());
    let line = "mkdir -p /srv/app/deep; echo old >/srv/app/deep/db; ln -s /srv/app /srv/link";
    drop(store.line(&["--commit", "app"], line).run().ok());
    let map = |flags: &[&str]| {
        let flags = [&["--from", "app"], flags].concat();
        store
            .sandbox(&["run"])
            .args(flags)
            .args(["--", "perl", "-e", MAP, "/srv/app/deep/db"])
            .run()
            .ok()
    };
    drop(map(&[]).stdout(TWO));
    for path in ["/srv/app/deep/db", "/srv/app", "/srv/", "/srv/link/deep", "/srv/link/deep/db"] {
        drop(map(&["--copy-up", path]).stdout(ONE).stderr(""));
    }
    drop(map(&["--copy-up", "/nowhere", "--copy-up", "/srv/app/deep"]).stdout(ONE));
    drop(map(&["--copy-up", "/srv/app/deep/other"]).stdout(TWO).stderr(""));
    for way in WAYS {
        drop(map(&["--overlay-way", way, "--copy-up", "/srv/app"]).stdout(ONE));
        drop(map(&["--overlay-way", way]).stdout(TWO));
    }
    drop(map(&["--upper", "tmpfs", "--copy-up", "/srv/app"]).stdout(ONE));
    // By a profile.
    let text =
        include_str!("../../profiles/build.json").replacen('{', "{\"copy_up\": [\"/srv/app\"],", 1);
    let profile = own.file("app.json", text);
    drop(map(&["--profile", &profile]).stdout(ONE));
}

/// By the settings of a box, over which a flag goes.
#[test]
fn a_box_has_databases_of_its_own() {
    let store = debian();
    drop(store.init(&["databases", "--from", "scratch"]).run().ok());
    let line =
        "mkdir -p /srv/app /var/lib/rpm; echo old >/srv/app/db; echo old >/var/lib/rpm/Packages.db";
    let keep = ["-b", "databases", "run", "--from", "default/postinit", "--keep=force", "--"];
    drop(store.sandbox(&keep).args(["sh", "-c", line]).run().ok());
    let map = |flags: &[&str], file: &str| {
        let words = [&["-b", "databases", "run"], flags, &["--", "perl", "-e", MAP, file]].concat();
        store.sandbox(&words).run().ok()
    };
    let set = |word: &str| store.sandbox(&["box", "set", "databases", word]).run();
    drop(set("copy_up=/srv/app").ok());
    drop(map(&[], "/srv/app/db").stdout(ONE));
    drop(map(&[], "/var/lib/rpm/Packages.db").stdout(TWO));
    drop(set("touch_rpmdb=always").ok());
    drop(map(&[], "/var/lib/rpm/Packages.db").stdout(ONE));
    drop(map(&["--touch-rpmdb=mapped"], "/var/lib/rpm/Packages.db").stdout(TWO));
    drop(set("touch_rpmdb=now").fault(2, "touch_rpmdb=now", ""));
    drop(store.sandbox(&["box", "set", "databases", "--unset", "copy_up"]).run().ok());
    drop(map(&[], "/srv/app/db").stdout(TWO));
}

/// What is mapped of a database of packages is known by its name.
#[test]
fn mapped_databases_need_no_flag() {
    let store = debian();
    let folders = ["/var/lib/rpm", "/usr/lib/sysimage/rpm", "/root/.rpmdb"];
    let names = ["Index.db", "data.mdb", "lock.mdb", "rpmdb.sqlite-shm", "rpmdb.sqlite"];
    for (number, folder) in folders.iter().enumerate() {
        let name = format!("mapped{number}");
        let line = format!(
            "mkdir -p {folder}; cd {folder}; for name in {}; do echo old >$name; done",
            names.join(" ")
        );
        drop(store.line(&["--commit", &name], &line).run().ok());
        // Of a Berkeley DB every file.
        let berkeley = format!("{name}-bdb");
        let line = format!("cd {folder}; echo old >Packages; echo old >Name");
        drop(store.line(&["--from", &name, "--commit", &berkeley], &line).run().ok());
        let map = |flags: &[&str], from: &str, file: &str| {
            let path = format!("{folder}/{file}");
            let words = ["--from", from, "--", "perl", "-e", MAP, &path];
            store.sandbox(&["run"]).args(flags).args(words).run().ok()
        };
        for file in &names[..4] {
            drop(map(&[], &name, file).stdout(ONE));
        }
        drop(map(&["--touch-rpmdb=never"], &name, "Index.db").stdout(TWO));
        drop(map(&[], &name, "rpmdb.sqlite").stdout(TWO));
        for flag in ["--touch-rpmdb", "--touch-rpmdb=always"] {
            drop(map(&[flag], &name, "rpmdb.sqlite").stdout(ONE));
        }
        for file in ["Packages", "Name", "rpmdb.sqlite"] {
            drop(map(&[], &berkeley, file).stdout(ONE));
        }
        // Nothing of it is in a layer of something else.
        let from = ["--from", &berkeley];
        let flags = ["--touch-rpmdb", "--commit", &format!("{name}-x")];
        drop(store.line(&[&from[..], &flags].concat(), "echo x >/srv/x").run().ok());
        assert_eq!(own_files(store, &format!("{name}-x")), ["srv", "srv/x"]);
    }
}

/// With the library that rpm used: who reads a table maps it, who writes it opens it anew.
#[test]
fn a_berkeley_db_is_one_file() {
    let store = debian();
    let make = "use DB_File; tie my %h, 'DB_File', '/var/lib/rpm/Packages', O_RDWR|O_CREAT, 0644, \
                $DB_BTREE or die $!; $h{probe} = 'old'; untie %h";
    let words = ["run", "--commit", "bdb", "--", "perl", "-e", make];
    drop(store.sandbox(&words).run().ok());
    let both = "use DB_File; my $path = '/var/lib/rpm/Packages'; \
                tie my %in, 'DB_File', $path, O_RDONLY, 0644, $DB_BTREE or die $!; my $was = $in{probe}; \
                tie my %out, 'DB_File', $path, O_RDWR, 0644, $DB_BTREE or die $!; $out{probe} = 'new'; \
                untie %out; print \"$was $in{probe}\\n\"";
    let run = |flags: &[&str]| {
        store
            .sandbox(&["run", "--from", "bdb"])
            .args(flags)
            .args(["--", "perl", "-e", both])
            .run()
            .ok()
    };
    drop(run(&["--touch-rpmdb=never"]).stdout("old old\n"));
    drop(run(&[]).stdout("old new\n"));
    // Who only reads changes nothing.
    let read = "use DB_File; tie my %h, 'DB_File', '/var/lib/rpm/Packages', O_RDONLY, 0644, $DB_BTREE \
                or die $!; print $h{probe}";
    let words = ["run", "--from", "bdb", "--commit", "bdb-read", "--", "perl", "-e", read];
    drop(store.sandbox(&words).run().ok().stdout("old").warns("nothing changed"));
}

/// A query makes no layer, however the database is opened for it; an installation makes one of what it
/// changed.
#[test]
fn queries_of_rpm_make_no_layer() {
    let (store, own) = (debian(), Env::empty());
    let rpm = packages::rpm(&own);
    let bind = format!("{rpm}:/probe.rpm");
    drop(store.init(&["queries", "--from", "scratch"]).run().ok());
    let run = |flags: &[&str], line: &str| {
        let words = [&["-b", "queries", "run"], flags, &["--", "sh", "-c", line]].concat();
        store.sandbox(&words).run().ok()
    };
    let head = || store.json(&["-b", "queries", "show"])["layer"].clone();
    for (name, dbpath) in [("own", "/root/.rpmdb"), ("var", "/var/lib/rpm")] {
        let rpm = format!("rpm --dbpath {dbpath}");
        let from = ["--from", "default/postinit", "--keep=force", "--bind", &bind];
        drop(run(&from, &format!("{rpm} --initdb && {rpm} -i --nodeps /probe.rpm")));
        let before = head();
        for flags in [&["--keep"][..], &["--keep", "--touch-rpmdb"]] {
            let out =
                run(flags, &format!("{rpm} -qa && {rpm} -q probe && {rpm} -qi probe >/dev/null"));
            drop(out.stdout("probe-1.0-1.noarch\nprobe-1.0-1.noarch\n").warns("nothing changed"));
            drop(
                run(flags, &format!("{rpm} -Va --nouser --nogroup; true")).warns("nothing changed"),
            );
            assert_eq!(head(), before, "{name} {flags:?}");
        }
        // A shell has nothing to show for it, either.
        let shell = store.sandbox(&["-b", "queries", "shell"]).input(format!("{rpm} -qa\n")).run();
        let quiet = !shell.errors().contains("changed:");
        drop(shell.ok().says("probe-1.0").check(quiet, "a query is no change"));
        // Files beside the database that its last user left, or that it takes away.
        let line = format!("rm -f {dbpath}/rpmdb.sqlite-shm {dbpath}/rpmdb.sqlite-wal");
        drop(run(&["--keep"], &line));
        drop(run(&["--keep"], &format!("{rpm} -q probe")).warns("nothing changed"));
        assert_eq!(head(), before, "{name}");
        drop(run(&["--keep"], &format!("{rpm} -e probe")));
        assert_ne!(head(), before);
        drop(run(&[], &format!("! {rpm} -q probe")).says("not installed"));
    }
}

#[test]
fn what_did_not_change_is_in_no_layer() {
    let env = Env::filled();
    let copy = ["--copy-up", "/opt", "--copy-up", "/etc/passwd"];
    drop(env.line(&[&copy[..], &["--keep"]].concat(), "true").run().ok().warns("nothing changed"));
    let flags = [&copy[..], &["--commit", "some"]].concat();
    drop(env.line(&flags, "echo more >>/opt/deep/a; chmod 600 /opt/plain").run().ok());
    let expected = ["opt", "opt/deep", "opt/deep/a", "opt/plain"];
    assert_eq!(own_files(&env, "some"), expected);
    drop(env.sandbox(&["diff", "some"]).run().ok().stdout("M /opt/deep/a\nm /opt/plain\n"));
    // The link is looked at as the command has left it.
    let line = "ln -s opt /new; touch -d @1 /opt/type; touch /opt";
    let flags = ["--copy-up", "/new/deep", "--copy-up", "/opt", "--commit", "linked"];
    drop(env.line(&flags, line).run().ok());
    assert_eq!(own_files(&env, "linked"), ["new", "opt", "opt/type"]);
}

/// A run that failed and a run that was killed know what was copied up for them.
#[test]
fn recovered_runs_hold_no_copies() {
    let env = Env::filled();
    let flags = ["--keep-on-failure", "--copy-up", "/opt"];
    drop(env.line(&flags, "echo x >/x; exit 3").run().code(3));
    let run = env.entries("runs").pop().unwrap();
    drop(env.sandbox(&["diff", "--run", &run]).run().ok().stdout("A /x\n"));
    drop(env.sandbox(&["shell", "--run", &run, "--copy-up", "/etc"]).input("true\n").run().ok());
    drop(env.sandbox(&["recover", &run, "--as", "saved"]).run().ok());
    assert_eq!(own_files(&env, "saved"), ["x"]);
}

/// What is no regular file of a layer is left alone, and nothing leads out.
#[test]
fn only_files_of_layers_are_copied_up() {
    let env = Env::filled();
    let line = "mkfifo /opt/fifo; ln -s /nowhere /opt/dangling; ln -s loop /opt/loop; \
                ln -s ../../../../../etc/passwd /opt/up; mkdir /opt/mounted; echo x >/opt/file";
    drop(env.line(&["--commit", "odd"], line).run().ok());
    let host = env.file("host/data", "host\n");
    let folder = env.folder("host");
    std::fs::set_permissions(&host, std::fs::Permissions::from_mode(0o666)).unwrap();
    let before = std::fs::metadata(&host).unwrap().modified().unwrap();
    let binds = [format!("{folder}:/opt/mounted:rw"), format!("{host}:/opt/file:rw")];
    let mut flags = vec!["--from", "odd", "--commit", "none"];
    flags.extend(binds.iter().flat_map(|bind| ["--bind", bind]));
    for path in [
        "/opt",
        "/opt/fifo",
        "/opt/dangling",
        "/opt/loop",
        "/opt/up",
        "/opt/plain/beneath",
        "/opt/mounted",
        "/opt/file",
        "/dev/null",
        "/dev",
        "/proc/self/environ",
        "/proc",
        "/run",
    ] {
        flags.extend(["--copy-up", path]);
    }
    drop(env.line(&flags, "cat /opt/file").run().ok().stdout("host\n").warns("nothing changed"));
    assert_eq!(std::fs::metadata(&host).unwrap().modified().unwrap(), before);
    assert_eq!(std::fs::read(&host).unwrap(), b"host\n");
}

#[test]
fn a_root_that_is_read_only_has_nothing_to_copy() {
    let env = Env::filled();
    if ids() == Ids::Identity && real_root() {
        // The profile is refused: tests/cli/settings.rs.
        return;
    }
    let flags = ["run", "--profile", "strict", "--copy-up", "/opt", "--touch-rpmdb"];
    drop(env.sandbox(&flags).args(["--", "cat", "/opt/plain"]).run().ok().stdout("plain\n"));
    let flags = [&flags[..], &["--dry-run", "--json", "--", "true"]].concat();
    assert_eq!(env.sandbox(&flags).run().ok().json()["copy_up"], serde_json::json!([]));
}

#[test]
fn what_cannot_be_copied_up_is_named() {
    let env = Env::filled();
    let line = "mkdir /many && cd /many && i=0; while [ $i -le 10000 ]; do : >$i; i=$((i+1)); done; \
                dd if=/dev/zero of=/big bs=1M count=4 2>/dev/null";
    drop(env.line(&["--commit", "much"], line).run().ok());
    let run = |flags: &[&str]| {
        env.sandbox(&["run", "--from", "much"]).args(flags).args(["--", "true"]).run()
    };
    drop(run(&["--copy-up", "/many"]).fault(
        125,
        "copy up: /many: more than 10000",
        "the database itself",
    ));
    let small = ["--upper", "tmpfs:1M", "--copy-up", "/big"];
    drop(run(&small).fault(125, "copy up: /big: no space left", "space"));
    for (flag, why) in [
        ("--copy-up=opt", "not an absolute path"),
        ("--copy-up=/", "the root itself"),
        ("--copy-up=/opt/../etc", "`..`"),
        ("--touch-rpmdb=often", "always, mapped or never"),
    ] {
        drop(run(&[flag]).code(125).stdout("").warns(why));
    }
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn a_dry_run_tells_what_would_be_copied_up() {
    let env = Env::filled();
    let plan = |flags: &[&str]| {
        let words = [&["run", "--dry-run", "--json"], flags, &["--", "true"]].concat();
        env.sandbox(&words).run().ok().json()["copy_up"].clone()
    };
    let mapped = ["/var/lib/rpm", "/usr/lib/sysimage/rpm", "/root/.rpmdb"]
        .map(|place| format!("{place}: what is mapped of a database"));
    assert_eq!(plan(&[]), serde_json::json!(mapped));
    let flags = ["--touch-rpmdb=never", "--copy-up", "/a", "--copy-up", "/a", "--copy-up", "/b"];
    assert_eq!(plan(&flags), serde_json::json!(["/a", "/b"]));
}
