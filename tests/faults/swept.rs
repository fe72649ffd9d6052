//! The commands that [`super::sweep`] fails at each of their steps, and what must be there before each.

use std::fs;
use std::process::Command;

use crate::world::{Place, ids};

/// A command, and what must be there for it to do all that it can.
pub(crate) struct Act {
    pub(crate) words: &'static [&'static str],
    pub(crate) prepare: fn(&Place),
    /// The exit code when nothing fails.
    pub(crate) code: i32,
}

impl Act {
    /// With which others it is swept over.
    pub(crate) fn group(&self) -> &'static str {
        let nested = self.words[0] == "adopt" || self.words.contains(&"--nest");
        if nested { "nest" } else { self.words[0] }
    }
}

const WRITE: &str = "echo new >/token && mkdir -m 0 /closed && exit $CODE";

/// An act that ends with 0.
const fn act(words: &'static [&'static str], prepare: fn(&Place)) -> Act {
    Act { words, prepare, code: 0 }
}

pub(crate) const ACTS: &[Act] = &[
    act(&["run", "--copy-up", "/etc", "--commit", "made", "--", "sh", "-c", WRITE], no_more),
    act(&["run", "--keep", "--", "sh", "-c", WRITE], no_more),
    // The same where the chain is folded first.
    act(&["run", "--keep", "--", "sh", "-c", WRITE], grow_chain),
    act(&["run", "--", "sh", "-c", WRITE], no_more),
    act(&["run", "--", "true"], leave_a_spare),
    act(&["run", "--", "true"], leave_a_ready_one),
    Act {
        words: &["run", "--keep-on-failure", "--env", "CODE=3", "--", "sh", "-c", WRITE],
        prepare: no_more,
        code: 3,
    },
    act(&["run", "--cache", "c:/cache", "--", "true"], drop_cache),
    act(&["snapshot", "made"], move_head),
    // The same where the log is full.
    act(&["snapshot", "made"], fill_log),
    act(&["snapshot", "--force", "old"], name_old),
    act(&["rollback", "old"], name_old),
    act(&["clean"], move_head),
    act(&["rm", "old"], name_old),
    act(&["rename", "old", "made"], name_old),
    act(&["undo"], go_to_old),
    act(&["recover", "RUN", "--as", "made"], keep_one),
    act(&["run", "--nest", "--", "true"], no_more),
    act(
        &[
            "run", "--nest", "ITSELF", "--", "sandbox", "run", "--commit", "made", "--", "sh",
            "-c", WRITE,
        ],
        no_more,
    ),
    act(&["adopt", "RUN"], keep_nest),
    act(&["gc", "--all"], litter),
    act(&["fsck", "--seal"], move_head),
    act(&["init", "second", "--ids", "IDS", "--from", "TREE"], no_more),
    act(&["init", "--refresh"], no_more),
    act(&["box", "set", "user=root"], forget_user),
    act(&["df", "--warn", "60"], warn_at_50),
    act(&["scrub", "--snapshots"], name_old),
    act(&["scrub", "--cache"], fill_cache),
    act(&["scrub", "--all", "second"], make_second),
];

fn no_more(_: &Place) {}

fn move_head(place: &Place) {
    place.line(&["--keep"], "echo moved >/token").code(0);
}

fn name_old(place: &Place) {
    place.line(&["--commit", "old"], "echo old >/token").code(0);
}

fn keep_one(place: &Place) {
    place.line(&["--keep-on-failure"], "echo kept >/token; exit 3").code(3);
}

/// A run in which a sandbox has made two layers.
fn keep_nest(place: &Place) {
    let line = "sandbox run --quiet --commit made -- sh -c 'echo made >/token' && \
        sandbox run --quiet --from made --commit more -- sh -c 'echo more >/token'; exit 3";
    let flags = [itself(), ["--nest", "--keep-on-failure"].map(str::to_owned).into()].concat();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    place.line(&flags, line).code(3);
}

/// The flags by which the program is found inside, with the libraries that it wants.
pub(crate) fn itself() -> Vec<String> {
    let program = crate::world::program().canonicalize().expect("the program");
    let said = Command::new("ldd").arg(&program).output().expect("ldd");
    let said = String::from_utf8(said.stdout).expect("text");
    let libraries = said.split_whitespace().filter(|word| word.starts_with("/lib"));
    let bind = |from: std::path::PathBuf, to: &str| format!("{}:{to}", from.display());
    let mut binds = vec![bind(program, "/bin/sandbox")];
    binds.extend(libraries.map(|path| bind(fs::canonicalize(path).expect("library"), path)));
    let binds = binds.into_iter().flat_map(|bind| ["--bind".to_owned(), bind]);
    binds.chain(["--env".to_owned(), "SANDBOX_BUDGET=off".to_owned()]).collect()
}

/// Six layers, in which things are replaced, closed and removed.
fn grow_chain(place: &Place) {
    for line in [
        "mkdir /a /b && echo 1 >/a/x && echo 1 >/b/x",
        "rm -r /a && mkdir /a && echo 2 >/a/y",
        "chmod 700 /b && echo 3 >/b/x",
        "rm -r /b /x && mkdir /x && echo 4 >/x/z",
    ] {
        place.line(&["--keep"], line).code(0);
    }
}

fn leave_a_spare(place: &Place) {
    place.said(&["run", "--", "true"]).code(0);
}

/// With what the run before has made for the next one.
fn leave_a_ready_one(place: &Place) {
    leave_a_spare(place);
    leave_a_spare(place);
}

fn fill_log(place: &Place) {
    place.said(&["box", "set", "undo_size=1"]).code(0);
    for _ in 0..6 {
        place.said(&["snapshot", "again"]).code(0);
        place.said(&["rm", "again"]).code(0);
    }
    move_head(place);
}

fn go_to_old(place: &Place) {
    name_old(place);
    place.said(&["rollback", "old"]).code(0);
}

fn drop_cache(place: &Place) {
    place.said(&["scrub", "--cache"]).code(0);
}

fn fill_cache(place: &Place) {
    place.said(&["run", "--cache", "c:/cache", "--", "touch", "/cache/x"]).code(0);
}

fn forget_user(place: &Place) {
    place.said(&["box", "set", "--unset", "user"]).code(0);
}

fn warn_at_50(place: &Place) {
    place.said(&["df", "--warn", "50"]).code(0);
}

fn make_second(place: &Place) {
    place.said(&["init", "second", "--ids", &ids(), "--from", "scratch"]).code(0);
}

/// A layer, a run and files that nobody needs.
fn litter(place: &Place) {
    name_old(place);
    place.said(&["rm", "old"]).code(0);
    let mut command = place.command(["run", "--commit", "never", "--", "sh", "-c", WRITE]);
    command.env("SANDBOX_FAIL", "publish.rename.after:kill").output().expect("start");
    fs::write(place.base.join("boxes/default/refs/.new-stale"), "{").expect("write");
}
