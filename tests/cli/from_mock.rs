//! Every row of the table in docs/from-mock.md, in order, in one box.
//!
//! The commands are read from that file and run as they stand there. What must hold after a row stands
//! here, under the first words of the row; a row that is renamed or gone fails the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::env::binary;
use crate::common::tree::debian_tar;
use crate::common::{Cmd, Env, ids, left, packages};

const TABLE: &str = include_str!("../../docs/from-mock.md");

/// A row: its first words, and the commands in it with the exit codes that they have.
struct Row {
    name: String,
    commands: Vec<(String, i32)>,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in TABLE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() >= 2, "{line}");
        if cells[0] == "mock" {
            continue;
        }
        let commands = commands(cells[1]);
        let name = match cells[0] {
            "nothing" => commands[0].0.clone(),
            cell if cell.starts_with('`') => cell.split('`').nth(1).unwrap().to_owned(),
            cell => cell.replace('`', "").split(',').next().unwrap().to_owned(),
        };
        rows.push(Row { name, commands });
    }
    rows
}

/// The code in a cell, and after each perhaps `(exit N)`.
fn commands(cell: &str) -> Vec<(String, i32)> {
    let parts: Vec<&str> = cell.split('`').collect();
    let code = |after: &str| match after.trim().strip_prefix("(exit ") {
        Some(rest) => rest.trim_end_matches(')').parse().unwrap(),
        None => 0,
    };
    let found: Vec<_> =
        parts[1..].chunks(2).map(|pair| (pair[0].to_owned(), code(pair[1]))).collect();
    assert!(found.iter().all(|(command, _)| command.starts_with("sandbox ")), "{cell}");
    assert!(!found.is_empty(), "a row without a command: {cell}");
    found
}

/// The directory in which the commands are typed, with what the document promises in it.
struct Desk {
    env: Env,
    path: std::path::PathBuf,
}

impl Desk {
    fn new() -> Self {
        let env = Env::empty();
        let path = env.path("desk");
        fs::create_dir(&path).unwrap();
        let put = |from: &str, to: &str| {
            fs::copy(from, path.join(to)).unwrap();
            fs::set_permissions(path.join(to), fs::Permissions::from_mode(0o644)).unwrap();
        };
        std::os::unix::fs::symlink(debian_tar(), path.join("tree.tar")).unwrap();
        for (version, name) in [("1.0", "probe"), ("2.0", "probe2")] {
            let spec = packages::plain_spec(version);
            put(&packages::rpm_of(&env, name, &spec), &format!("{name}.rpm"));
            if name == "probe" {
                put(env.path("probe.spec").to_str().unwrap(), "probe.spec");
            }
        }
        // What the commands are, but for the id mode of these tests.
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *' init '*) set -- \"$@\" --ids {} ;; esac\nexec '{}' \"$@\"\n",
            ids().name(),
            binary().display()
        );
        let program = env.file("bin/sandbox", script);
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { env, path }
    }

    fn type_in(&self, command: &str) -> Cmd {
        let path = format!("{}:/usr/bin:/bin", self.env.path("bin").display());
        self.env
            .program("sh")
            .args(["-c", command])
            .env("SANDBOX_BASE_DIR", self.env.base())
            .env("PATH", path)
            .dir(&self.path)
    }

    fn probe(&self) -> String {
        self.inside("rpm -q probe || true")
    }

    /// Stdout of a run in the box.
    fn inside(&self, line: &str) -> String {
        self.env.line(&[], line).run().ok().text()
    }

    fn starred(&self) -> Vec<String> {
        let list = self.env.json(&["list"]);
        let all = list["snapshots"].as_array().unwrap().iter();
        let names = all.filter(|one| one["current"] == true).map(|one| one["name"].as_str());
        names.map(|name| name.unwrap().to_owned()).collect()
    }

    fn has(&self, path: &str) -> bool {
        Path::new(&self.path).join(path).exists()
    }
}

/// What must hold after a row, by its first words in the column of mock (or of ours, where mock has
/// nothing). The last one is what its last command said.
type Check = fn(&Desk, &str);
const CHECKS: &[(&str, Check)] = &[
    ("mock --init", |desk, _| assert_eq!(desk.starred(), ["postinit"])),
    ("mock --list-chroots", |_, out| assert!(out.contains("default") && out.contains("other"))),
    ("mock --debug-config", |_, out| assert!(out.contains("mounts:"), "{out}")),
    ("config_opts", |desk, _| assert_eq!(desk.inside("echo $LANG"), "C.UTF-8\n")),
    ("mock --install probe.rpm", |desk, _| assert_eq!(desk.probe(), "probe-1.0-1.noarch\n")),
    ("mock --snapshot devel", |desk, _| assert_eq!(desk.starred(), ["devel"])),
    ("mock --list-snapshots", |_, out| {
        let starred: Vec<_> = out.lines().filter(|line| line.ends_with('*')).collect();
        assert!(starred.len() == 1 && starred[0].starts_with("devel"), "{out}");
    }),
    ("mock --update probe2.rpm", |desk, _| assert_eq!(desk.probe(), "probe-2.0-1.noarch\n")),
    ("mock --clean", |desk, _| assert_eq!(desk.probe(), "probe-1.0-1.noarch\n")),
    ("mock --rollback-to postinit", |desk, _| {
        assert_eq!(desk.starred(), ["postinit"]);
        assert!(desk.probe().contains("not installed"));
    }),
    ("mock --rollback-to devel", |desk, _| {
        assert_eq!(desk.starred(), ["devel"]);
        assert_eq!(desk.probe(), "probe-1.0-1.noarch\n");
    }),
    ("mock --remove probe", |desk, _| assert!(desk.probe().contains("not installed"))),
    ("sandbox undo", |desk, _| assert_eq!(desk.probe(), "probe-1.0-1.noarch\n")),
    ("mock --remove-snapshot devel", |desk, _| {
        assert_eq!(desk.env.snapshots(), ["postinit"]);
        assert_eq!(desk.probe(), "probe-1.0-1.noarch\n");
    }),
    ("mock --shell -- touch /etc/one", |desk, _| drop(desk.inside("test -e /etc/one"))),
    ("mock --chroot -- touch /etc/two", |desk, _| {
        drop(desk.inside("test ! -e /etc/two && test -e /etc/three"));
    }),
    ("mock --chroot 'echo /etc/h*'", |_, out| {
        assert!(out.contains("/etc/hostname /etc/hosts"), "{out}");
    }),
    ("mock --cwd=/usr --chroot pwd", |_, out| assert_eq!(out, "/usr\n")),
    ("mock --unpriv --chroot -- id -u", |_, out| assert_eq!(out, "1000\n")),
    ("mock --copyin probe.spec /srv/probe.spec", |desk, _| {
        drop(desk.inside("grep Version /srv/probe.spec"));
    }),
    ("mock --copyout /srv/probe.spec result", |desk, _| assert!(desk.has("result/probe.spec"))),
    // That nothing is left of either is looked at when the place of the test goes, too.
    ("mock --orphanskill", |desk, _| {
        drop(desk.type_in("! ps -e -o args= | grep -x 'sleep 4711'").run().ok());
    }),
    ("mock --mount", |desk, _| left::no_mount(desk.env.dir())),
    ("mock --print-root-path", |_, out| assert!(out.contains("A /srv/probe.spec"), "{out}")),
    ("mock --buildsrpm --spec=probe.spec", |desk, _| {
        assert!(desk.has("result/SRPMS/probe-1.0-1.src.rpm"));
    }),
    ("mock --rebuild --resultdir=result", |desk, _| {
        assert!(desk.has("result/RPMS/noarch/probe-1.0-1.noarch.rpm"));
    }),
    ("mock --no-cleanup-after", |desk, _| {
        let run = desk.env.entries("runs").pop().expect("a kept run");
        drop(desk.env.sandbox(&["recover", &run, "--as", "failed"]).run().ok());
    }),
    ("mock --define='dist .x' --with=y", |_, out| assert_eq!(out, ".x\n")),
    ("overlayfs: touch_rpmdb", |desk, _| {
        let chain = |desk: &Desk| desk.env.json(&["show", "head"])["chain"].clone();
        let before = chain(desk);
        drop(desk.env.line(&["--keep"], "rpm -qa").run().ok().warns("nothing changed"));
        assert_eq!(chain(desk), before);
    }),
    ("bind_mount", |_, out| assert!(out.contains("SRPMS"), "{out}")),
    ("ccache", |desk, _| {
        drop(desk.env.line(&["--cache", "ccache:/mnt/c"], "test -e /mnt/c/x").run().ok());
    }),
    ("mock --scrub=cache", |desk, _| {
        drop(desk.env.line(&["--cache", "ccache:/mnt/c"], "test ! -e /mnt/c/x").run().ok());
    }),
    ("mock --scrub=overlayfs", |desk, _| {
        assert_eq!(desk.env.snapshots(), ["postinit"]);
        assert!(desk.probe().contains("not installed"));
    }),
    ("mock --scrub=all", |desk, _| drop(desk.env.sandbox(&["list"]).run().code(3))),
    ("mock --scrub-all-chroots", |desk, _| assert_eq!(desk.env.entries("boxes"), [""; 0])),
    ("sandbox gc --all", |desk, _| assert_eq!(desk.env.entries("layers"), [""; 0])),
];

#[test]
fn every_row_of_the_table() {
    let (desk, rows) = (Desk::new(), rows());
    for (name, _) in CHECKS {
        assert_eq!(rows.iter().filter(|row| row.name == *name).count(), 1, "rows named {name}");
    }
    for row in &rows {
        let mut told = String::new();
        for (command, code) in &row.commands {
            told = desk.type_in(command).run().code(*code).text();
        }
        if let Some((_, check)) = CHECKS.iter().find(|(name, _)| *name == row.name) {
            check(&desk, &told);
        }
    }
}
