//! Owners and devices that the disk cannot hold: remembered in every id mode, inherited, and never a way out.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use tar::EntryType;

use crate::common::tree::Tar;
use crate::common::{Cmd, Env, Ids, debian, ids, tree};

/// A user and a group that the map of these tests does not hold; in `identity` mode there is none.
fn far() -> (&'static str, u64, u64) {
    match ids() {
        Ids::Single => ("33:8", 33, 8),
        _ => ("3000000000:3000000001", 3_000_000_000, 3_000_000_001),
    }
}

/// Whether owners can be true on disk whatever they are.
fn all_true() -> bool {
    ids() == Ids::Identity
}

/// The lines of `owners` of the layer of a snapshot, by path.
fn remembered(env: &Env, snapshot: &str) -> BTreeMap<String, Value> {
    let file = env.layer(snapshot).parent().unwrap().join("owners");
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (line["path"].as_str().unwrap().to_owned(), line)).collect()
}

fn paths(env: &Env, snapshot: &str) -> Vec<String> {
    remembered(env, snapshot).into_keys().collect()
}

fn commit(env: &Env, name: &str, line: &str) {
    drop(env.line(&["--commit", name], line).run().ok().stdout(""));
}

fn owned(path: &str, mode: u32) -> Value {
    json!({"path": path, "uid": far().1, "gid": far().2, "mode": mode})
}

#[test]
fn every_kind_of_file_has_its_owner_in_the_layer() {
    let env = Env::filled();
    let who = far().0;
    let line = format!(
        "cd /opt && touch f && chmod 640 f && ln f g && ln -s f l && mkfifo p && mkdir -p d/e && chmod 1777 d && \
         chown {who} f p d d/e && chown -h {who} l"
    );
    commit(&env, "owned", &line);
    if all_true() {
        assert_eq!(paths(&env, "owned"), [""; 0]);
        return;
    }
    let expected = [
        owned("opt/d", 0o1777),
        owned("opt/d/e", 0o755),
        owned("opt/f", 0o640),
        owned("opt/g", 0o640),
        owned("opt/l", 0o777),
        owned("opt/p", 0o644),
    ];
    assert_eq!(remembered(&env, "owned").into_values().collect::<Vec<_>>(), expected);
    assert_eq!(env.json(&["show", "owned"])["remembered"], 6);
    drop(env.sandbox(&["fsck"]).run().ok());
}

#[test]
fn a_half_can_be_remembered_and_be_taken_back() {
    if all_true() {
        return;
    }
    let env = Env::filled();
    let (uid, gid) = (far().1, far().2);
    let line = format!(
        "cd /opt && touch a b c d && chown {uid} a && chgrp {gid} b && chown {uid}:{gid} c && chown 0:0 c && \
         chown {uid} d && chgrp {gid} d && chown 0 d"
    );
    commit(&env, "half", &line);
    let lines = remembered(&env, "half");
    let part = |path: &str, id: &str| lines.get(path).and_then(|line| line[id].as_u64());
    assert_eq!((part("opt/a", "uid"), part("opt/a", "gid")), (Some(uid), None));
    assert_eq!((part("opt/b", "uid"), part("opt/b", "gid")), (None, Some(gid)));
    assert!(!lines.contains_key("opt/c"), "{lines:?}");
    assert_eq!((part("opt/d", "uid"), part("opt/d", "gid")), (None, Some(gid)));
}

#[test]
fn devices_are_remembered_in_every_mode() {
    let env = Env::filled();
    let line = "cd /opt && mknod -m 666 null c 1 3 && mknod disk b 8 1 && chmod 660 disk && mv null zero && \
                ln disk again && mknod gone c 1 5 && rm gone && test -e zero";
    commit(&env, "devices", line);
    let device = |path: &str, class: &str, (major, minor), mode: u32| {
        json!({"path": path, "uid": 0, "gid": 0, "mode": mode,
               "device": {"type": class, "major": major, "minor": minor}})
    };
    let expected = [
        device("opt/again", "block", (8, 1), 0o660),
        device("opt/disk", "block", (8, 1), 0o660),
        device("opt/zero", "char", (1, 3), 0o666),
    ];
    assert_eq!(remembered(&env, "devices").into_values().collect::<Vec<_>>(), expected);
    let line = format!("cd /opt && mv zero other && chown {} disk", far().0);
    drop(env.line(&["--from", "devices", "--commit", "moved"], &line).run().ok());
    let char = json!({"type": "char", "major": 1, "minor": 3});
    let block = json!({"type": "block", "major": 8, "minor": 1});
    assert_eq!(remembered(&env, "moved")["opt/other"]["device"], char);
    // One of an owner that is only remembered, too.
    drop(env.line(&["--from", "moved", "--commit", "far"], "cd /opt && mv disk far").run().ok());
    let mut far_one = owned("opt/far", 0o660);
    far_one["device"] = block;
    if all_true() {
        (far_one["uid"], far_one["gid"]) = (far().1.into(), far().2.into());
    }
    assert_eq!(remembered(&env, "far")["opt/far"], far_one);
    drop(env.sandbox(&["fsck"]).run().ok());
}

fn far_ids() -> (u64, u64) {
    (far().1, far().2)
}

/// What only `exec` has changed, and what a killed supervisor leaves.
#[test]
fn who_joins_is_remembered_and_so_is_who_was_killed() {
    let env = Env::filled();
    let who = far().0;
    let far = format!(
        "mkdir /d; echo x >/f; ln -s f /l; mknod /n b 8 1; chmod 660 /n; chown {who} /d /f /n /opt; chown -h {who} /l"
    );
    let device = json!({"type": "block", "major": 8, "minor": 1});
    let first = format!("ln -s f /k; chown -h {} /k; echo up; exec sleep 1000", far_ids().0);
    drop(env.sandbox(&["start", "--name", "web", "--", "sh", "-c", &first]).run().ok());
    let up = || match env.sandbox(&["logs", "web"]).run().text().as_str() {
        "up\n" => Vec::new(),
        other => vec![other.to_owned()],
    };
    crate::common::left::eventually("what is not up", up);
    // The other half of what the first command has given.
    let other = format!("chgrp -h {} /k", far_ids().1);
    drop(env.sandbox(&["exec", "web", &format!("{far}; {other}")]).run().ok());
    drop(env.sandbox(&["stop", "-t", "0", "web", "--commit", "joined"]).run().ok());
    let joined = remembered(&env, "joined");
    let known: Vec<_> = joined.keys().map(String::as_str).collect();
    assert_eq!(joined["n"]["device"], device);
    if all_true() {
        assert_eq!(known, ["n"]);
        return;
    }
    assert_eq!(known, ["d", "f", "k", "l", "n", "opt"]);
    assert_eq!(joined["k"], owned("k", 0o777));

    let line = format!("{far}; echo up; exec sleep 1000");
    let mut run = env.line(&[], &line).start();
    let mut first = [0; 3];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut first).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    let id = env.entries("runs").into_iter().find(|name| name.starts_with("r-")).unwrap();
    drop(env.sandbox(&["recover", &id, "--as", "rescued"]).run().ok());
    // The journal is gone: nothing tells of the link, nor, unless all have one id, that mknod made the device.
    let rescued = remembered(&env, "rescued");
    let known: Vec<_> = rescued.keys().map(String::as_str).collect();
    assert_eq!(known, ["d", "f", "n", "opt"]);
    let node = if ids() == Ids::Single { device } else { Value::Null };
    assert_eq!(rescued["n"]["device"], node);
}

#[test]
fn later_runs_inherit_through_copy_up_links_and_renames() {
    if all_true() {
        return;
    }
    let env = Env::filled();
    let who = far().0;
    let line = format!(
        "cd /opt && touch a b c && mkdir d && ln -s a l && ln -s b m && chown {who} a b c d && chown -h {who} l m"
    );
    commit(&env, "one", &line);
    let line = "cd /opt && echo more >>a && mv b bb && rm c && touch d/in && chmod 600 a && touch -h -a l && \
                chown -h 0:0 m && cp a copied";
    drop(env.line(&["--from", "one", "--commit", "two"], line).run().ok());
    let two = remembered(&env, "two");
    let found: Vec<_> = two.keys().map(String::as_str).collect();
    assert_eq!(found, ["opt/a", "opt/bb", "opt/d", "opt/l"]);
    assert_eq!(two["opt/a"], owned("opt/a", 0o600));
    // A link that is given away only now is a file of the layer beneath to the handler.
    let line = format!("cd /opt && ln -s x n && chown -h 0:0 n; chown -h {who} m && touch d/in2");
    drop(env.line(&["--from", "two", "--commit", "three"], &line).run().ok());
    assert_eq!(paths(&env, "three"), ["opt/d", "opt/m"]);
}

#[test]
fn what_an_archive_says_is_inherited_too() {
    if ids().many() {
        return;
    }
    let env = Env::filled();
    let first = remembered(&env, "postinit");
    assert_eq!(first["var/spool/job"]["uid"], 1);
    commit(&env, "more", "cd /var/spool && mv job done && chmod 600 done && touch new");
    let more = remembered(&env, "more");
    let expected = json!({"path": "var/spool/done", "uid": 1, "gid": 5, "mode": 0o600});
    assert_eq!(more["var/spool/done"], expected);
    assert_eq!(more["var/spool"]["gid"], 5);
    assert!(!more.contains_key("var/spool/new"));
}

#[test]
fn a_change_of_owner_is_a_change_and_does_what_it_does() {
    let env = Env::filled();
    let who = far().0;
    let line = format!(
        "cd /opt && chmod 6755 plain && chown {who} plain && stat -c %a plain; \
         mkdir d; chmod 2755 d; chown {who} d; stat -c %a d; rmdir d"
    );
    drop(env.line(&["--commit", "changed"], &line).run().ok().stdout("755\n2755\n"));
    drop(env.sandbox(&["diff", "postinit", "changed"]).run().ok().stdout("m /opt/plain\n"));
    commit(&env, "link", &format!("ln -s plain /opt/sym && chown {who} /opt/sym"));
    let expected: &[&str] = if all_true() { &[] } else { &["opt/plain"] };
    assert_eq!(paths(&env, "link"), expected, "a link is followed");
}

#[test]
fn file_capabilities_go_with_the_owner() {
    // setxattr(2) and getxattr(2) by number: nothing in the tree makes them.
    let (set, get) = if cfg!(target_arch = "x86_64") { (188, 191) } else { (5, 8) };
    // linux/capability.h: VFS_CAP_REVISION_2, effective, of CAP_NET_BIND_SERVICE.
    let line = format!(
        "my $power = pack('V5', 0x02000001, 0x400, 0, 0, 0); my $name = 'security.capability'; \
         sub has {{ my $b = \"\\0\" x 64; syscall({get}, $_[0], $name, $b, 64) > 0 ? 'yes' : 'no' }} \
         for ('/new', '/etc/issue') {{ \
           my $file = $_; open F, '>>', $file; close F; \
           syscall({set}, $file, $name, $power, 20, 0) == 0 or die \"set: $!\"; print has($file); \
           chown {}, {}, $file or die; print has($file), \"\\n\" }}",
        far().1,
        far().2
    );
    let words = ["run", "--", "perl", "-e", &line];
    drop(debian().sandbox(&words).run().ok().stdout("yesno\nyesno\n"));
}

/// As Debian's ping is: the kernel refuses to execute what sets a capability that cannot be had.
#[test]
fn files_with_capabilities_are_executed() {
    let set = if cfg!(target_arch = "x86_64") { 188 } else { 5 };
    // linux/capability.h: VFS_CAP_REVISION_2, effective, of CAP_NET_RAW and CAP_SYS_NICE.
    let line = format!(
        "my ($file, $name) = ('/powerful', 'security.capability'); system 'cp', '/bin/true', $file; \
         my $power = pack('V5', 0x02000001, 0x802000, 0, 0, 0); \
         syscall({set}, $file, $name, $power, 20, 0) == 0 or die $!; exec $file or die $!"
    );
    for profile in ["build", "dev"] {
        let words = ["run", "--profile", profile, "--", "perl", "-e", &line];
        drop(debian().sandbox(&words).run().ok());
    }
}

#[test]
fn errors_are_the_kernels() {
    let env = Env::filled();
    let who = far().0;
    let out = |line: &str| env.line(&[], line).run().errors();
    let says = |line: &str, text: &str| {
        let errors = out(line);
        assert!(errors.contains(text), "{line}: {errors}");
    };
    says(&format!("chown {who} /nothing"), "No such file or directory");
    says(&format!("ln -s loop /loop; chown {who} /loop"), "Too many levels of symbolic links");
    says("mknod /opt/plain c 1 3", "File exists");
    says("mknod /none/x c 1 3", "No such file or directory");
    says("mknod /opt/plain/x c 1 3", "Not a directory");
    says(&format!("chown {who} /proc/sys/kernel/hostname"), "chown");
    let strict = env.line(&["--profile", "strict"], &format!("chown {who} /opt/plain")).run();
    assert_ne!(strict.errors(), "");
}

#[test]
fn who_may_not_change_owners_may_not_pretend_to() {
    let env = Env::filled();
    let dropped = ["--cap-drop", "CHOWN", "--cap-drop", "MKNOD"];
    let line = format!("touch /f; chown {} /f || echo no; mknod /n c 1 3 || echo no", far().0);
    drop(env.line(&dropped, &line).run().ok().stdout("no\nno\n"));
    if ids().many() {
        let line = format!("echo x >/tmp/f && chown {} /tmp/f || echo no", far().0);
        drop(env.line(&["--user", "1000"], &line).run().ok().stdout("no\n"));
    }
}

#[test]
fn magic_links_mean_the_caller() {
    if all_true() {
        return;
    }
    let env = Env::filled();
    let who = far().0;
    let line = format!(
        "cd /opt && touch a b && mkdir d && touch d/c && exec 9<a 8<d && chown {who} /proc/self/fd/9 /dev/fd/8/c && \
         cd d && chown {who} /proc/self/cwd/../b && chown {who} . && \
         for p in /proc/[0-9]*; do chown {who} $p/root/etc/passwd 2>/dev/null; done; exit 0"
    );
    commit(&env, "magic", &line);
    // `chown` is the caller of each of its calls, and the loop finds its own /proc/PID only by chance.
    let found = paths(&env, "magic");
    assert_eq!(found, ["opt/a", "opt/b", "opt/d", "opt/d/c"]);
}

#[test]
fn a_killed_handler_hangs_nobody() {
    let env = Env::filled();
    let line = "mknod /one c 1 3; for p in /proc/[0-9]*; do n=${p#/proc/}; grep -q '^Name:.sandbox' $p/status && \
                [ $n != 1 ] && kill -9 $n; done; sleep 0.1; mknod /two c 1 3 || echo no; touch /f; echo on";
    drop(env.line(&[], line).run().ok().stdout("no\non\n"));
}

#[test]
fn the_handler_cannot_be_looked_into() {
    let env = Env::filled();
    // Where inside root is root on disk, too, the numbers of descriptors are shown, as those of PID 1 are.
    let numbers = if all_true() { "" } else { "$p/fd" };
    let line = format!(
        "mknod /one c 1 3; for p in /proc/[0-9]*; do grep -q '^Name:.sandbox' $p/status && \
         {{ ls $p/map_files {numbers}; readlink $p/exe $p/root $p/cwd; cat $p/environ $p/mem; }} 2>/dev/null; done; echo end"
    );
    drop(env.line(&["--profile", "dev"], &line).run().ok().stdout("end\n"));
}

#[test]
fn binds_and_memory_remember_nothing() {
    let env = Env::filled();
    let dir = env.folder("host");
    let bind = format!("{dir}:/mnt:rw");
    let line = format!(
        "touch /mnt/f /dev/shm/g; chown {} /mnt/f /dev/shm/g; mknod /mnt/n c 1 3; exit 0",
        far().0
    );
    drop(env.line(&["--bind", &bind], &line).run().ok());
    let list = env.program("ls").arg("-A").arg(&dir).run().ok().text();
    assert_eq!(list, "f\n");
    let mut buffer = [0_u8; 16];
    let found = rustix::fs::lgetxattr(env.path("host/f"), "user.sandbox.meta", &mut buffer);
    assert!(found.is_err());
    tree::remove(&env.path("host"));
}

#[test]
fn kept_runs_keep_what_only_the_journal_knows() {
    if all_true() {
        return;
    }
    let env = Env::filled();
    let who = far().0;
    let line = format!("ln -s x /l; chown -h {who} /l; mknod /n c 1 3; exit 3");
    drop(env.line(&["--keep-on-failure"], &line).run().code(3));
    let run = env.entries("runs")[0].clone();
    drop(env.sandbox(&["shell", "--run", &run]).input("ln -s y /m").run().ok());
    drop(env.sandbox(&["recover", &run, "--as", "rescued"]).run().ok());
    assert_eq!(paths(&env, "rescued"), ["l", "n"]);
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn folding_keeps_it_all() {
    if all_true() {
        return;
    }
    let env = Env::filled();
    let short = |command: Cmd| command.env("SANDBOX_LONGEST_CHAIN", "6");
    let who = far().0;
    let lines = [
        format!(
            "cd /opt; touch a b; ln -s a l; mkfifo p; chown {who} a b p; chown -h {who} l; mknod n c 1 3"
        ),
        "cd /opt; rm b; echo 2 >two".to_owned(),
        format!("cd /opt; ln -s two m; chown -h {who} m"),
    ];
    let more = (0..6).map(|n| format!("echo {n} >/opt/n{n}"));
    for line in lines.into_iter().chain(more) {
        drop(short(env.line(&["--keep"], &line)).run().ok());
    }
    let mut found = BTreeMap::new();
    let shown = env.json(&["show", "head"]);
    let chain = shown["chain"].as_array().unwrap();
    assert!(chain.len() <= 6, "folded");
    for id in chain.iter().skip(1) {
        let file = env.base().join(format!("layers/{}/owners", id.as_str().unwrap()));
        for line in fs::read_to_string(file).unwrap_or_default().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            found.insert(line["path"].as_str().unwrap().to_owned(), line);
        }
    }
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["opt/a", "opt/l", "opt/m", "opt/n", "opt/p"]);
    drop(env.sandbox(&["fsck"]).run().ok());
}

#[test]
fn diff_knows_what_no_disk_holds() {
    let env = Env::filled();
    let who = far().0;
    let one = format!(
        "cd /opt && mknod node c 1 3 && mknod same c 1 3 && touch f && mkdir d && ln -s f l && ln -s f k && \
         mkfifo p && chown -h {who} k && touch -h -d @1 l k"
    );
    commit(&env, "one", &one);
    let changes = |words: &[&str]| -> Vec<String> {
        let found = env.json(&[&["diff"], words].concat());
        let changes = found["changes"].as_array().unwrap().iter();
        let text = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
        changes.map(|one| ["path", "kind", "type"].map(|key| text(one, key)).join(" ")).collect()
    };
    let added = changes(&["one"]);
    for line in ["opt/node added device", "opt/same added device", "opt/k added symlink"] {
        assert!(added.iter().any(|one| one == line), "{line}: {added:?}");
    }
    let two = format!(
        "cd /opt && rm node plain && mknod node c 1 5 && mknod plain b 8 1 && touch -d @1 same && \
         chown {who} f d p && chown -h {who} l && chgrp -h 0 k"
    );
    let words = ["--from", "one", "--keep-on-failure"];
    drop(env.line(&words, &format!("{two}; exit 3")).run().code(3));
    drop(env.line(&["--from", "one", "--commit", "two"], &two).run().ok());
    let run = env.entries("runs").into_iter().find(|name| name.starts_with("r-")).unwrap();
    let expected = [
        "opt/d metadata dir",
        "opt/f metadata file",
        "opt/k metadata symlink",
        "opt/l metadata symlink",
        "opt/node modified device",
        "opt/p metadata fifo",
        "opt/plain type device",
    ];
    assert_eq!(changes(&["one", "two"]), expected);
    assert_eq!(changes(&["--run", &run]), expected);
    // The other way around, a type is that of what is there then.
    let mut back = expected;
    back[6] = "opt/plain type file";
    assert_eq!(changes(&["two", "one"]), back);
    drop(env.sandbox(&["rm", "--run", &run]).run().ok());
}

/// A user inside writes the attribute onto a file that everybody may write: `diff` believes what a commit does.
#[test]
fn diff_believes_no_forged_device() {
    if !ids().many() {
        return;
    }
    let env = debian();
    let set = if cfg!(target_arch = "x86_64") { 188 } else { 5 };
    let forge = format!(
        "umask 0; my $f = '/tmp/forged'; open F, '>', $f; close F; my ($n, $v) = ('user.sandbox.meta', '- - c1:3 0 0'); \
         syscall({set}, $f, $n, $v, length $v, 0) == 0 or die $!; chmod 0666, $f"
    );
    let words = ["run", "--user", "1000", "--keep-on-failure", "--commit", "forged", "--"];
    drop(env.sandbox(&words).args(["perl", "-e", &forge]).run().ok());
    let changes = env.json(&["diff", "forged"])["changes"].clone();
    let forged = json!({"path": "tmp/forged", "kind": "added", "type": "file"});
    assert!(changes.as_array().unwrap().contains(&forged), "{changes}");
}

/// A tree `t` with one of everything that has an owner, and devices.
fn owned_archive() -> Vec<u8> {
    let (uid, gid) = far_ids();
    let mut tar = Tar::new();
    tar.dir("t/", 0o755, 0, 0);
    tar.dir("t/d/", 0o2775, uid, gid);
    tar.file("t/d/f", 0o640, uid, 0, b"content");
    tar.file("t/d/g", 0o2755, 0, gid, b"setgid");
    tar.owned_link(EntryType::Link, "t/d/h", "t/d/f", 0o640, (uid, 0));
    tar.owned_link(EntryType::Symlink, "t/l", "d/f", 0o777, (uid, gid));
    tar.owned_link(EntryType::Symlink, "t/plain", "d/f", 0o777, (0, 0));
    tar.add(EntryType::Fifo, "t/p", 0o600, (0, gid), b"");
    tar.node(EntryType::Char, "t/null", 0o666, (0, 0), (1, 3));
    tar.node(EntryType::Block, "t/disk", 0o660, (uid, gid), (259, 70_000));
    tar.end()
}

/// What another tar sees in an archive: type, mode, owner, size or numbers, time unless it is a device, and name.
fn listing(env: &Env, archive: &[u8]) -> Vec<String> {
    let file = env.file("listed.tar", archive);
    let text = env.program("tar").args(["--numeric-owner", "-tvf", &file]).run().ok().text();
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| {
            let mut words: Vec<_> = line.split_whitespace().collect();
            if line.starts_with(['b', 'c']) {
                words.drain(3..5);
            }
            words.join(" ")
        })
        .collect();
    lines.sort_unstable();
    lines
}

fn taken_out(env: &Env, what: &str) -> Vec<String> {
    let archive = env.sandbox(&["cp", what, "-"]).run().ok().stdout.clone();
    listing(env, &archive)
}

#[test]
fn an_archive_comes_out_as_it_went_in() {
    let env = Env::filled();
    let archive = owned_archive();
    let expected = listing(&env, &archive);
    assert!(expected.iter().any(|line| line.contains(" 259,70000 t/disk")), "{expected:?}");
    let into = |place: &str, words: &[&str]| {
        env.sandbox(&["cp"]).args(words).args(["-", place]).input(archive.clone()).run()
    };
    // From an init.
    let file = env.file("owned.tar", &archive);
    drop(env.sandbox(&["init", "--box", "other", "--from", &format!("tar:{file}")]).run().ok());
    assert_eq!(taken_out(&env, "other/postinit:/"), expected);
    // Into a snapshot, and out of that.
    drop(into("postinit:/", &["--as", "one"]).ok());
    assert_eq!(taken_out(&env, "one:/t"), expected);
    let known = if all_true() { 2 } else { 8 };
    assert_eq!(paths(&env, "one").len(), known, "{:?}", paths(&env, "one"));
    // By a link to it, and a part of it.
    drop(
        env.line(&["--from", "one", "--commit", "way"], "mv /t /opt/t && ln -s opt/t /w")
            .run()
            .ok(),
    );
    let part = |lines: &[String]| -> Vec<String> {
        let beneath = lines.iter().filter(|line| line.contains("t/d/"));
        let mut part: Vec<_> = beneath.map(|line| line.replace("t/d", "d")).collect();
        part.sort_unstable();
        part
    };
    assert_eq!(taken_out(&env, "way:/w/d"), part(&expected));
    // To the host no device goes.
    let to = env.folder("to");
    let left = env.sandbox(&["cp", "one:/t", &to]).run().ok().errors();
    assert!(left.contains("device nodes left out: 2"), "{left}");
    let refused = "copy: /t/null: it is a device, which is not copied";
    drop(env.sandbox(&["cp", "one:/t/null", &to]).run().fault(1, refused, ""));
    // Out of a run that has ended, of what it has changed, too.
    let (who, (uid, gid)) = (far().0, far_ids());
    let line = format!("chown -h {who} /t/plain && mv /t/null /t/zero; exit 3");
    drop(env.line(&["--from", "one", "--keep-on-failure"], &line).run().code(3));
    let run = env.entries("runs").into_iter().find(|name| name.starts_with("r-")).unwrap();
    let changed = taken_out(&env, &format!("{run}:/t"));
    let has = |lines: &[String], start: &str, end: &str| {
        assert!(lines.iter().any(|l| l.starts_with(start) && l.ends_with(end)), "{end}: {lines:?}");
    };
    has(&changed, &format!("lrwxrwxrwx {uid}/{gid} "), "t/plain -> d/f");
    has(&changed, "crw-rw-rw- 0/0 1,3", "t/zero");
    has(&changed, &format!("lrwxrwxrwx {uid}/{gid} "), "t/l -> d/f");
    drop(env.sandbox(&["rm", "--run", &run]).run().ok());
    // On top of what is remembered: what the archive says counts.
    let mut plain = Tar::new();
    plain.dir("t/d/", 0o755, 0, 0);
    plain.file("t/null", 0o644, 0, 0, b"");
    let words = ["cp", "--as", "over", "-", "one:/"];
    drop(env.sandbox(&words).input(plain.end()).run().ok());
    let over = taken_out(&env, "over:/t");
    has(&over, "drwxr-xr-x 0/0 ", "t/d/");
    has(&over, "-rw-r--r-- 0/0 0", "t/null");
    assert!(!paths(&env, "over").iter().any(|path| path == "t/d"), "{:?}", paths(&env, "over"));
}

#[test]
fn a_run_that_stays_gives_and_takes_owners() {
    let env = Env::filled();
    let archive = owned_archive();
    let expected = listing(&env, &archive);
    let into = |words: &[&str]| env.sandbox(&["cp"]).args(words).input(archive.clone()).run();
    drop(into(&["--as", "one", "-", "postinit:/"]).ok());
    let words = ["start", "--name", "web", "--from", "one", "--", "sleep", "1000"];
    drop(env.sandbox(&words).run().ok());
    assert_eq!(taken_out(&env, "web:/t"), expected, "of the layers");
    drop(into(&["-", "web:/opt"]).ok());
    assert_eq!(taken_out(&env, "web:/opt/t"), expected, "of the run");
    // Nothing is remembered in memory.
    drop(into(&["-", "web:/dev/shm"]).ok());
    let (who, (uid, gid)) = (far().0, far_ids());
    let line =
        format!("chown -h {who} /t/plain; chown {who} /t/d/g; touch -a /t/d/f; mv /t/null /t/zero");
    drop(env.sandbox(&["exec", "web", &line]).run().ok());
    let changed = taken_out(&env, "web:/t");
    let has = |start: &str, end: &str| {
        assert!(
            changed.iter().any(|l| l.starts_with(start) && l.ends_with(end)),
            "{end}: {changed:?}"
        );
    };
    has(&format!("lrwxrwxrwx {uid}/{gid} "), "t/plain -> d/f");
    has(&format!("-rwxr-xr-x {uid}/{gid} "), "t/d/g");
    has(&format!("-rw-r----- {uid}/0 "), "t/d/f");
    has("crw-rw-rw- 0/0 1,3", "t/zero");
    drop(env.sandbox(&["stop", "-t", "0", "web", "--commit", "two"]).run().ok());
    assert_eq!(taken_out(&env, "two:/opt/t"), expected, "of its commit");
    assert_eq!(taken_out(&env, "two:/t"), changed);
}

/// One half in one command, the other in another one: of what was made there and of what was copied up.
#[test]
fn a_resumed_run_knows_what_its_links_were_given() {
    if all_true() {
        return;
    }
    let env = Env::filled();
    let (uid, gid) = far_ids();
    commit(&env, "one", "cd /opt && ln -s x low && mkfifo pipe");
    let line =
        format!("cd /opt && ln -s x new && chown -h {uid} new low && chown {uid} pipe; exit 3");
    drop(env.line(&["--from", "one", "--keep-on-failure"], &line).run().code(3));
    let run = env.entries("runs").into_iter().find(|name| name.starts_with("r-")).unwrap();
    let go_on = |line: &str| {
        drop(env.sandbox(&["shell", "--run", &run]).input(line).run().ok());
    };
    go_on("cd /opt && ls");
    go_on(&format!("cd /opt && chgrp -h {gid} new low && chgrp {gid} pipe"));
    go_on(&format!(
        "cd /opt && mv new newer && ln -s y more && chown -h {uid} more && chgrp -h {gid} more"
    ));
    let journal = fs::read_to_string(env.base().join(format!("runs/{run}/journal"))).unwrap();
    let lines: Vec<_> = journal.lines().filter(|line| *line != "attributes").collect();
    assert!(lines.len() <= 10, "what was known is not written again:\n{journal}");
    drop(env.sandbox(&["recover", &run, "--as", "two"]).run().ok());
    let expected = [
        owned("opt/low", 0o777),
        owned("opt/more", 0o777),
        owned("opt/newer", 0o777),
        owned("opt/pipe", 0o644),
    ];
    assert_eq!(remembered(&env, "two").into_values().collect::<Vec<_>>(), expected);
}

/// What a layer beneath has of a link, fifo or socket, of which a run changes the other half, or gives one back.
#[test]
fn half_of_what_a_layer_has() {
    if all_true() {
        return;
    }
    let env = Env::filled();
    let (who, (uid, gid)) = (far().0, far_ids());
    let line = format!(
        "cd /opt && ln -s x l && mkfifo p && chown -h {uid} l && chown {uid} p && ln -s x b && chown -h {who} b"
    );
    commit(&env, "one", &line);
    let line = format!("cd /opt && chgrp -h {gid} l && chgrp {gid} p && chown -h 0 b");
    drop(env.line(&["--from", "one", "--commit", "two"], &line).run().ok());
    let group = json!({"path": "opt/b", "gid": gid, "mode": 0o777});
    let expected = [group, owned("opt/l", 0o777), owned("opt/p", 0o644)];
    assert_eq!(remembered(&env, "two").into_values().collect::<Vec<_>>(), expected);
    // By two commands, of which the second goes on where the first has given something back.
    drop(
        env.line(&["--from", "one", "--keep-on-failure"], "chown -h 0 /opt/l; exit 3")
            .run()
            .code(3),
    );
    let run = env.entries("runs").into_iter().find(|name| name.starts_with("r-")).unwrap();
    drop(env.sandbox(&["shell", "--run", &run]).input(format!("chgrp -h {gid} /opt/l")).run().ok());
    drop(env.sandbox(&["recover", &run, "--as", "three"]).run().ok());
    let three = remembered(&env, "three");
    assert_eq!(three["opt/l"], json!({"path": "opt/l", "gid": gid, "mode": 0o777}));
}

/// An archive has a link and a fifo of root that look like those at the same place, of which an owner is remembered.
#[test]
fn what_an_archive_has_of_a_link_counts() {
    let env = Env::filled();
    let who = far().0;
    let line = "cd /opt && mkdir d && ln -s x d/l && mkfifo d/p && touch -h -d @1 d/l d/p";
    commit(&env, "one", line);
    let archive = env.sandbox(&["cp", "one:/opt/d/.", "-"]).run().ok().stdout.clone();
    let given = format!("cd /opt/d && chown -h {who} l p");
    drop(env.line(&["--from", "one", "--commit", "two"], &given).run().ok());
    let of = |place: &str| taken_out(&env, &format!("{place}:/opt/d/."));
    let plain = listing(&env, &archive);
    assert_ne!(of("two"), plain);
    let into = |words: &[&str]| env.sandbox(&["cp", "-"]).args(words).input(archive.clone()).run();
    drop(into(&["two:/opt/d", "--as", "three"]).ok());
    assert_eq!(of("three"), plain);
    assert_eq!(paths(&env, "three"), [""; 0]);
    let words = ["start", "--name", "web", "--from", "two", "--", "sleep", "1000"];
    drop(env.sandbox(&words).run().ok());
    drop(into(&["web:/opt/d"]).ok());
    assert_eq!(of("web"), plain, "in a run");
    drop(env.sandbox(&["stop", "-t", "0", "web", "--commit", "four"]).run().ok());
    assert_eq!(of("four"), plain, "of its commit");
}

/// What is copied in from the host is root's, also a link that is just as the one before it.
#[test]
fn a_copied_link_has_not_the_owner_of_the_one_before() {
    let env = Env::filled();
    let (who, (uid, gid)) = (far().0, far_ids());
    commit(
        &env,
        "one",
        &format!("mkdir /t; ln -s x /t/l; touch /t/f; chown -h {who} /t /t/l /t/f"),
    );
    let named = |owner: &str| ["", "f", "l"].map(|name| format!("{owner} t/{name}"));
    let owners = |what: &str| -> Vec<String> {
        let lines = taken_out(&env, what).into_iter();
        let mut found: Vec<_> = lines
            .map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                let name = words.iter().find(|word| word.starts_with("t/")).expect("name");
                format!("{} {name}", words[1])
            })
            .collect();
        found.sort_unstable();
        found
    };
    assert_eq!(owners("one:/t"), named(&format!("{uid}/{gid}")));
    let to = env.folder("to");
    drop(env.sandbox(&["cp", "one:/t", &to]).run().ok());
    // In a snapshot, where its time is the same, too.
    drop(env.sandbox(&["cp", "--as", "two", &format!("{to}/t"), "one:/"]).run().ok());
    assert_eq!(owners("two:/t"), named("0/0"));
    assert_eq!(paths(&env, "two"), [""; 0]);
    drop(
        env.sandbox(&["start", "--name", "web", "--from", "one", "--", "sleep", "1000"]).run().ok(),
    );
    drop(env.sandbox(&["cp", &format!("{to}/t"), "web:/"]).run().ok());
    assert_eq!(owners("web:/t"), named("0/0"));
    drop(env.sandbox(&["stop", "-t", "1", "--commit", "three", "web"]).run().ok());
    assert_eq!(owners("three:/t"), named("0/0"));
}

/// A path may be longer than one call takes (PATH_MAX).
#[test]
fn a_deep_file_has_its_owner_too() {
    let env = crate::common::debian();
    let (who, (uid, gid)) = (far().0, far_ids());
    let line = format!(
        "perl -e 'chdir \"/srv\"; for (1..18) {{ mkdir \"d\"x240; chdir \"d\"x240 or die }} open F, \">f\"; symlink \"x\", \"l\"; \
         system \"chown\", \"-h\", \"{who}\", \"f\", \"l\"'"
    );
    commit(env, "deep", &line);
    let shown = env.sandbox(&["diff", "postinit", "deep"]).run().ok().text();
    assert!(shown.lines().any(|line| line.ends_with("d/f")), "{shown}");
    let lines = taken_out(env, "deep:/srv");
    let owned = lines.iter().filter(|line| line.contains(&format!(" {uid}/{gid} ")));
    assert_eq!(owned.count(), 2, "{lines:?}");
    // Inherited by the next one.
    let again = "perl -e 'chdir \"/srv\"; for (1..18) { chdir \"d\"x240 or die } rename \"f\", \"g\" or die'";
    drop(env.line(&["--from", "deep", "--commit", "deeper"], again).run().ok());
    let lines = taken_out(env, "deeper:/srv");
    let owned = lines.iter().filter(|line| line.contains(&format!(" {uid}/{gid} ")));
    assert_eq!(owned.count(), 2, "{lines:?}");
}

/// Where nobody could call chown or mknod, nobody can pretend to have.
#[test]
fn an_ordinary_user_forges_nothing() {
    let env = crate::common::debian();
    commit(
        env,
        "nodes",
        "mkdir -m 777 /srv/d; mknod /srv/d/null c 1 3; chmod 666 /srv/d/null; chown 5:5 /srv/d",
    );
    let forge = "cd /srv/d && mv null zero; : >disk; : >tool; chmod 4755 tool disk; perl -e '
        my %call = (x86_64 => 188, aarch64 => 5); my $n = $call{`uname -m` =~ s/\\s//r};
        for ([\"disk\", \"- - b254:0 1000 1000\"], [\"disk\", \"- - b254:0 0 0\"], [\"tool\", \"33 33 - 1000 1000\"],
             [\"tool\", \"33 33 - 0 0\"]) {
            my ($path, $value) = @$_; my $name = \"user.sandbox.meta\";
            syscall $n, $path, $name, $value, length $value, 0;
        }'; true";
    let words =
        ["run", "--from", "nodes", "--as-user", "--commit", "plain", "--", "sh", "-c", forge];
    drop(env.sandbox(&words).run().ok());
    let lines = taken_out(env, "plain:/srv/d");
    let of = |name: &str| {
        let found = lines.iter().find(|line| line.ends_with(&format!("d/{name}")));
        found.unwrap_or_else(|| panic!("{name}: {lines:?}")).clone()
    };
    assert!(of("disk").starts_with('-') && of("tool").starts_with('-'), "{lines:?}");
    assert!(!of("tool").contains(" 33/33 "), "{lines:?}");
    // What a layer has said is still believed.
    assert!(of("zero").starts_with('c'), "{lines:?}");
}
