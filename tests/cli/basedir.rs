//! Where a store may lie and where not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::common::env::binary;
use crate::common::tree::tiny_source;
use crate::common::{Env, Ids, ids};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn an_empty_directory_of_ours_is_taken() {
    let env = Env::empty();
    fs::create_dir(env.base()).unwrap();
    for bits in [0o755, 0o777, 0o700] {
        fs::set_permissions(env.base(), PermissionsExt::from_mode(bits)).unwrap();
        fs::create_dir(env.base().join("lost+found")).ok();
        drop(env.sandbox(&["list"]).run().fault(3, "there is none yet", "sandbox init"));
    }
    fs::set_permissions(env.base(), PermissionsExt::from_mode(0o755)).unwrap();
    env.fill();
    assert_eq!(mode(env.base()), 0o700);
    drop(env.sandbox(&["run", "--", "true"]).run().ok());
}

#[test]
fn a_directory_with_content_and_other_modes_is_refused() {
    let env = Env::empty();
    fs::create_dir(env.base()).unwrap();
    fs::set_permissions(env.base(), PermissionsExt::from_mode(0o755)).unwrap();
    env.file("store/file", "mine");
    drop(env.init(&["--from", "scratch"]).run().fault(2, "mode is 0755", "chmod 700"));
    fs::set_permissions(env.base(), PermissionsExt::from_mode(0o700)).unwrap();
    drop(env.init(&["--from", "scratch"]).run().fault(4, "holds something else", "--base-dir"));
    drop(env.sandbox(&["list"]).run().fault(
        3,
        "it is none, and holds something else (file)",
        "--base-dir",
    ));
    drop(env.sandbox(&["run", "--", "true"]).run().fault(
        125,
        "holds something else (file)",
        "--base-dir",
    ));
    assert_eq!(crate::common::left::names(env.base()), ["file"]);
    // A store that somebody opened up.
    let env = Env::filled();
    fs::set_permissions(env.base(), PermissionsExt::from_mode(0o755)).unwrap();
    drop(env.sandbox(&["list"]).run().fault(2, "mode is 0755", "chmod 700"));
    drop(env.sandbox(&["run", "--", "true"]).run().fault(125, "mode is 0755", "chmod 700"));
    fs::set_permissions(env.base(), PermissionsExt::from_mode(0o700)).unwrap();
}

/// Nothing is made of what is left of a store, and nothing of it is taken away.
#[test]
fn a_store_that_has_lost_its_format_is_damaged() {
    let env = Env::filled();
    let (format, state) = (env.base().join("format.json"), env.state());
    let was = fs::read(&format).unwrap();
    fs::remove_file(&format).unwrap();
    let names = crate::common::left::names(env.base());
    for words in
        [&["list"][..], &["init", "--from", "scratch"], &["init", "--from", "/nosuch"], &["gc"]]
    {
        let code = if words.contains(&"/nosuch") { 3 } else { 7 };
        drop(env.sandbox(words).run().code(code).stdout(""));
        assert_eq!(crate::common::left::names(env.base()), names, "{words:?}");
    }
    drop(env.sandbox(&["list"]).run().fault(
        7,
        "format.json is missing",
        "format.json`, then `sandbox",
    ));
    fs::write(&format, was).unwrap();
    assert_eq!(env.state(), state);
    drop(env.sandbox(&["run", "--", "true"]).run().ok());
}

#[test]
fn whatever_the_umask_of_the_caller_is() {
    let env = Env::filled();
    for bits in ["0777", "0177", "0700", "0077"] {
        let sandbox = |words: &[&str]| env.sandbox(words).umask(bits).run();
        let line = |flags: &[&str], line: &str| env.line(flags, line).umask(bits).run();
        let name = format!("um{bits}");
        drop(line(&["--commit", &name], "umask; touch /opt/f").ok().stdout("0022\n"));
        let stat = "stat -c %a /opt/f; cat /opt/f";
        drop(line(&["--from", &name], stat).ok().stdout("644\n"));
        let failed = line(&["--keep-on-failure"], "touch /half; exit 9").code(9);
        let run = env.entries("runs").join(" ");
        drop(failed.warns(&run));
        let saved = format!("saved{bits}");
        drop(sandbox(&["recover", &run, "--as", &saved]).ok());
        drop(sandbox(&["df"]).ok());
        drop(sandbox(&["rm", &saved]).ok());
        drop(sandbox(&["gc"]).ok());
        drop(sandbox(&["cp", &format!("{name}:/opt/f"), &env.folder("out")]).ok());
        drop(sandbox(&["unshare", "--", "sh", "-c", "umask"]).ok().stdout(&format!("{bits}\n")));
        // Nothing of it is in the way of whoever has another one.
        drop(env.sandbox(&["fsck"]).run().ok());
        drop(env.line(&["--from", &name], stat).run().ok().stdout("644\n"));
    }
    let env = Env::empty();
    drop(env.init(&["--from", &tiny_source()]).umask("0777").run().ok());
    drop(env.sandbox(&["run", "--", "true"]).run().ok());
}

#[test]
fn no_directory() {
    let env = Env::empty();
    fs::write(env.base(), "a file").unwrap();
    drop(env.init(&["--from", "scratch"]).run().stdout("").check(true, "").code(1));
    assert_eq!(fs::read_to_string(env.base()).unwrap(), "a file");
}

#[test]
fn a_directory_of_others() {
    let env = Env::empty();
    if crate::common::mode::is_root() {
        if ids() == Ids::Identity && !crate::common::mode::real_root() {
            return;
        }
        fs::create_dir(env.base()).unwrap();
        std::os::unix::fs::chown(env.base(), Some(1), Some(1)).unwrap();
        drop(env.init(&["--from", "scratch"]).run().fault(2, "belongs to user id 1", "--base-dir"));
    } else {
        let out = env.bare().args(["--base-dir", "/usr", "init", "--from", "scratch"]).run();
        drop(out.fault(2, "belongs to user id 0", "--base-dir"));
        let out = env.bare().args(["--base-dir", "/usr/new", "init", "--from", "scratch"]).run();
        drop(out.code(1).stdout("").warns("/usr/new"));
    }
}

/// The rest needs mounts, so it is done as uid 0 of a user namespace of one id, or as root.
fn with_mounts(env: &Env, line: &str) -> crate::common::Out {
    let flags = if crate::common::mode::is_root() { "-m" } else { "-rm" };
    let words = [binary().into_os_string(), env.base().into(), tiny_source().into()];
    env.program("unshare").args([flags, "sh", "-c", line]).args(words).run()
}

/// A line for a shell that mounts an overlay at `merged`.
fn overlaid(env: &Env) -> String {
    let dir = env.dir().display();
    for name in ["lower", "upper", "work", "merged"] {
        env.folder(name);
    }
    format!(
        "mount -t overlay -o userxattr,lowerdir={dir}/lower,upperdir={dir}/upper,workdir={dir}/work none {dir}/merged"
    )
}

#[test]
fn on_overlayfs() {
    let env = Env::empty();
    let (mount, dir) = (overlaid(&env), env.dir().display());
    let line = format!("{mount} && exec \"$0\" --base-dir {dir}/merged/store init --from scratch");
    let out = with_mounts(&env, &line);
    drop(out.fault(6, "lies on overlayfs", "docker run -v").warns("--base-dir"));
    assert_eq!(crate::common::left::names(&env.path("upper")), [""; 0]);
}

/// As an image has it that a store was put into: its directories can be lowers.
#[test]
fn a_store_on_overlayfs_serves_runs_in_memory() {
    let env = Env::empty();
    let (mount, dir) = (overlaid(&env), env.dir().display());
    let line = format!(
        "set -e; S=\"$0 --base-dir $1\"; $S init -q --from \"$2\"; \
         $S run -q --commit more -- touch /more; $S run -q --commit less -- rm -r /opt; $S fsck --seal >/dev/null; \
         {mount}; cp -a \"$1\" {dir}/merged/store 2>/dev/null || :; \
         set +e; S=\"$0 --base-dir {dir}/merged/store\"; find {dir}/merged/store | grep -v seccomp- | sort >{dir}/before; \
         for way in fd fd-attached lowerdir+ mount; do $S run --from postinit --upper tmpfs --overlay-way $way -- \
            sh -c 'cat /opt/plain; rm -r /opt; mkdir /opt; ls -A /opt; echo new >/opt/x; cat /opt/x'; done; \
         $S run --from postinit --upper tmpfs --as-user -- id -u; \
         $S run --from postinit --upper tmpfs --dry-run -- true >/dev/null || echo dry $?; \
         for flags in '--from postinit' '--from postinit --upper tmpfs --nest' '--from postinit --upper tmpfs --cache c:/c' \
            '--from more --upper tmpfs' '--from less --upper tmpfs --verify'; do \
            $S run $flags -- echo never; echo \"$flags: $?\"; done; \
         $S run --from more --upper tmpfs --verify -- ls /more; \
         find {dir}/merged/store | grep -v seccomp- | sort | diff {dir}/before -"
    );
    let out = with_mounts(&env, &line);
    let each = "plain\nnew\n".repeat(4);
    drop(
        out.check(true, "")
            .warns("shows no whiteouts")
            .warns("which cannot hold the upper")
            .stdout(&format!(
                "{each}1000\n--from postinit: 125\n--from postinit --upper tmpfs --nest: 125\n\
         --from postinit --upper tmpfs --cache c:/c: 125\n--from more --upper tmpfs: 125\n\
         --from less --upper tmpfs --verify: 125\n/more\n"
            )),
    );
}

#[test]
fn on_a_read_only_filesystem() {
    let env = Env::empty();
    let dir = env.dir().display();
    env.folder("ro");
    let line = format!(
        "mount -t tmpfs -o ro none {dir}/ro && exec \"$0\" --base-dir {dir}/ro/store init --from scratch"
    );
    drop(with_mounts(&env, &line).fault(6, "read-only", "--base-dir"));
    // A store that became read-only can be read, and says so when it is to be written.
    let line = "\"$0\" --base-dir \"$1\" init --from \"$2\" >/dev/null && mount --bind \"$1\" \"$1\" && \
                mount -o remount,bind,ro \"$1\" && cd / && \"$0\" --base-dir \"$1\" list >/dev/null; echo list $?; \
                \"$0\" --base-dir \"$1\" run -- true; echo run $?; \
                \"$0\" --base-dir \"$1\" doctor; echo doctor $?; \"$0\" --base-dir \"$1\" snapshot x; echo snapshot $?";
    let out = with_mounts(&env, line).ok();
    let text = out.text();
    let hint = "choose a writable place with --base-dir";
    let rows =
        [format!("remedy: {hint}"), "remedy: the store as it is: `run --upper tmpfs`".into()];
    drop(
        out.check(text.contains("run 125"), "a run on a read-only store")
            .check(rows.iter().all(|row| text.contains(row)), "what doctor says")
            .check(text.contains("doctor 6") && text.ends_with("snapshot 6\n"), "the codes")
            .warns("ead-only")
            .warns(&format!("hint: {hint}; or the store as it is: `run --upper tmpfs`"))
            .warns(&format!("hint: {hint}\n")),
    );
}

/// A layer comes from the file system of base_dir and from no other, be it FUSE: what is mounted on it is not looked at.
#[test]
fn with_a_mount_over_a_layer() {
    let env = Env::empty();
    let line = "\"$0\" --base-dir \"$1\" init --from \"$2\" >/dev/null && \
                mount -t tmpfs none \"$1\"/layers/*/fs && \
                for words in 'run -- /bin/true' 'unshare -- true' 'cp postinit:/bin/. x'; do \
                    \"$0\" --base-dir \"$1\" $words; echo code $?; done";
    let out = with_mounts(&env, line).ok();
    assert_eq!(out.text(), "code 125\ncode 125\ncode 1\n", "{out:?}");
    assert_eq!(
        out.errors().matches("nothing must be mounted beneath base_dir").count(),
        3,
        "{out:?}"
    );
}

/// What a hint proposes can be given to a shell as it stands, whatever the directory is called.
#[test]
fn the_way_out_is_quoted() {
    let env = Env::named("it's a store");
    env.fill();
    fs::remove_file(env.base().join("format.json")).unwrap();
    let out = env.sandbox(&["list"]).run().code(7);
    let said = out.errors();
    let line = said.split('`').find(|part| part.starts_with("echo ")).unwrap();
    drop(env.program("sh").args(["-c", line]).run().ok());
    drop(env.sandbox(&["list"]).run().ok());
    fs::set_permissions(env.base(), PermissionsExt::from_mode(0o750)).unwrap();
    let out = env.sandbox(&["list"]).run().code(2);
    let said = out.errors();
    let line = said.split('`').find(|part| part.starts_with("chmod ")).unwrap();
    drop(env.program("sh").args(["-c", line]).run().ok());
    drop(env.sandbox(&["list"]).run().ok());
}

#[test]
fn a_full_disk() {
    let env = Env::empty();
    let dir = env.dir().display();
    env.folder("small");
    let line = format!(
        "mount -t tmpfs -o size=64k,mode=0700 none {dir}/small && \"$0\" --base-dir {dir}/small init --from \"$2\" 2>{dir}/said; \
         echo init $?; ls -A {dir}/small; cat {dir}/said >&2; umount {dir}/small; \
         mount -t tmpfs -o size=24m,mode=0700 none {dir}/small && B=\"--base-dir {dir}/small\" && \
         \"$0\" $B init -q --from \"$2\" && \
         \"$0\" $B run --commit full -- sh -c 'head -c 40000000 /dev/zero >/big || true'; echo run $?; \
         \"$0\" $B gc >/dev/null; \"$0\" $B run --commit fits -- sh -c 'echo x >/x'; echo again $?; \
         \"$0\" $B run --from fits -- cat /x"
    );
    let out = with_mounts(&env, &line).ok();
    let text = out.text();
    drop(
        out.warns("no space left")
            .check(text.starts_with("init 1\nrun "), "the store of the failed init is left over")
            .check(text.ends_with("again 0\nx\n"), "the space is not given back"),
    );
    // There was no store yet in which something could be freed.
    let said = fs::read_to_string(env.path("said")).unwrap();
    assert!(said.contains("no space left") && said.contains("--base-dir"), "{said}");
    assert!(!said.contains(" gc`"), "{said}");
}

#[test]
fn odd_paths() {
    for name in ["a:b,c d", "st\u{f6}re\u{2603}", "with\\back'quote\"", "lowerdir=x,upperdir=y"] {
        let env = Env::named(name);
        env.fill();
        drop(env.line(&["--commit", "one"], "echo one >/one").run().ok());
        for way in ["fd", "fd-attached", "lowerdir+", "mount"] {
            let flags =
                ["--overlay-way", way, "--from", "one", "--cache", "c:/cache", "--upper", "disk"];
            drop(env.line(&flags, "cat /one; echo x >/x; cat /x").run().ok().stdout("one\nx\n"));
        }
        let kept =
            env.line(&["--from", "one", "--keep-on-failure"], "echo 2 >/two; exit 1").run().code(1);
        drop(kept);
        let run = env.entries("runs").pop().unwrap();
        drop(env.sandbox(&["recover", &run, "--as", "two"]).run().ok());
        drop(env.sandbox(&["diff", "one", "two"]).run().ok().stdout("A /two\n"));
    }
}

#[test]
fn through_a_link_and_by_a_relative_path() {
    let env = Env::filled();
    std::os::unix::fs::symlink(env.base(), env.path("link")).unwrap();
    let link = env.path("link");
    let out =
        env.bare().arg("--base-dir").arg(&link).args(["run", "--", "cat", "/opt/plain"]).run();
    drop(out.ok().stdout("plain\n"));
    let out = env
        .bare()
        .args(["--base-dir", "store", "run", "--", "cat", "/opt/plain"])
        .dir(env.dir())
        .run();
    drop(out.ok().stdout("plain\n"));
    let out = env
        .bare()
        .args(["--base-dir", "link", "run", "--out", "/opt/plain:out", "--", "true"])
        .dir(env.dir())
        .run();
    drop(out.ok());
    assert_eq!(fs::read_to_string(env.path("out/plain")).unwrap(), "plain\n");
}

#[test]
fn a_store_of_a_newer_sandbox_is_refused() {
    let env = Env::filled();
    let path = env.base().join("format.json");
    let now = fs::read_to_string(&path).unwrap();
    for newer in [
        "{\"format\": 2, \"compat\": [], \"ro_compat\": [], \"incompat\": []}",
        "{\"format\": 1, \"compat\": [], \"ro_compat\": [], \"incompat\": [\"x\"]}",
    ] {
        fs::write(&path, newer).unwrap();
        drop(env.sandbox(&["list"]).run().code(1).stdout("").warns("newer"));
        drop(env.sandbox(&["run", "--", "true"]).run().code(125).stdout("").warns("newer"));
    }
    fs::write(&path, now).unwrap();
}

/// What every command refuses is nothing that works here.
#[test]
fn doctor_says_what_the_others_say() {
    let env = Env::empty();
    env.file("open/file", "x");
    env.file("strange/file", "x");
    fs::set_permissions(env.path("open"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(env.path("strange"), fs::Permissions::from_mode(0o700)).unwrap();
    for (place, why) in [
        ("open", "mode is 0755"),
        ("strange", "holds something else already"),
        ("strange/file", "not a directory"),
    ] {
        let place = env.path(place);
        let words = ["--base-dir", place.to_str().unwrap(), "doctor", "--json"];
        let out = env.bare().args(words).run().code(6).json();
        let probes = out["probes"].as_array().unwrap();
        let probe = probes.iter().find(|probe| probe["name"] == "base-dir").unwrap();
        assert!(probe["detail"].as_str().unwrap().contains(why), "{probe}");
        let words = ["--base-dir", place.to_str().unwrap(), "init", "--from", "scratch"];
        let out = env.bare().args(words).run();
        assert!(out.errors().contains(why), "{out:?}");
    }
    // An empty one, of whatever mode, becomes a store: a volume of Docker, for one.
    let empty = env.folder("empty");
    drop(env.bare().args(["--base-dir", &empty, "doctor"]).run().ok());
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}
