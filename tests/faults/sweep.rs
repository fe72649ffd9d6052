//! Real commands that die, or whose disk fails, at each step that changes the store.
//!
//! The binary must be a debug build (or have the feature `failpoints`). Without `SANDBOX_SOAK` each step of
//! each command gets one of the failures, chosen anew each time; with it, all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::Case;
use crate::disk::Disk;
use crate::watch::{self, gone, marker, random};
use crate::world::{Place, Said, ids, soak};

pub(crate) const CASES: &[Case] = &[
    ("run_commit", || sweep(&ACTS[0])),
    ("run_keep", || sweep(&ACTS[1])),
    ("run_discard", || sweep(&ACTS[2])),
    ("run_keep_failed", || sweep(&ACTS[3])),
    ("snapshot", || sweep(&ACTS[4])),
    ("rm", || sweep(&ACTS[5])),
    ("recover", || sweep(&ACTS[6])),
    ("gc", || sweep(&ACTS[7])),
    ("init", || sweep(&ACTS[8])),
    ("run_fold", || sweep(&ACTS[9])),
    ("refresh", || sweep(&ACTS[10])),
    ("scrub_snapshots", || sweep(&ACTS[11])),
    ("scrub_cache", || sweep(&ACTS[12])),
    ("scrub_box", || sweep(&ACTS[13])),
    ("run_cache", || sweep(&ACTS[14])),
    ("box_set", || sweep(&ACTS[15])),
    ("all_steps", all_steps),
];

/// A command, and what must be there for it to do all that it can.
struct Act {
    words: &'static [&'static str],
    prepare: fn(&Place),
    /// The exit code when nothing fails.
    code: i32,
}

const WRITE: &str = "echo new >/token && mkdir -m 0 /closed && exit $CODE";

const ACTS: &[Act] = &[
    Act {
        words: &["run", "--copy-up", "/etc", "--commit", "made", "--", "sh", "-c", WRITE],
        prepare: no_more,
        code: 0,
    },
    Act { words: &["run", "--keep", "--", "sh", "-c", WRITE], prepare: no_more, code: 0 },
    Act { words: &["run", "--", "sh", "-c", WRITE], prepare: no_more, code: 0 },
    Act {
        words: &["run", "--keep-on-failure", "--env", "CODE=3", "--", "sh", "-c", WRITE],
        prepare: no_more,
        code: 3,
    },
    Act { words: &["snapshot", "made"], prepare: move_head, code: 0 },
    Act { words: &["rm", "old"], prepare: name_old, code: 0 },
    Act { words: &["recover", "RUN", "--as", "made"], prepare: keep_one, code: 0 },
    Act { words: &["gc", "--all"], prepare: litter, code: 0 },
    Act { words: &["init", "second", "--ids", "IDS", "--from", "TREE"], prepare: no_more, code: 0 },
    Act { words: &["run", "--keep", "--", "sh", "-c", WRITE], prepare: fill_chain, code: 0 },
    Act { words: &["init", "--refresh"], prepare: no_more, code: 0 },
    Act { words: &["scrub", "--snapshots"], prepare: name_old, code: 0 },
    Act { words: &["scrub", "--cache"], prepare: fill_cache, code: 0 },
    Act { words: &["scrub", "second", "--all"], prepare: second_box, code: 0 },
    Act { words: &["run", "--cache", "c:/c", "--", "touch", "/c/x"], prepare: no_cache, code: 0 },
    Act { words: &["box", "set", "user=0"], prepare: no_setting, code: 0 },
];

/// How many layers a chain may have here: only the one of `fill_chain` is full.
const LONGEST: &str = "5";

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

/// A chain without room for one more, in which something lies over everything else.
fn fill_chain(place: &Place) {
    for line in ["echo 1 >/y; mkdir /d", "rm /x /y; mkdir /y; echo 2 >/y/z", "echo full >/token"] {
        place.line(&["--keep"], line).code(0);
    }
}

fn fill_cache(place: &Place) {
    place.line(&["--cache", "c:/c"], "touch /c/x").code(0);
}

fn no_cache(place: &Place) {
    place.said(&["scrub", "--cache"]).code(0);
}

fn no_setting(place: &Place) {
    place.said(&["box", "set", "--unset", "user"]).code(0);
}

fn second_box(place: &Place) {
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

/// What is there: the content that each name stands for, by the file /token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    names: BTreeMap<String, Option<String>>,
    head: Option<String>,
    current: Option<String>,
    kept: usize,
    boxes: BTreeSet<String>,
}

fn look(place: &Place, at: &str) -> Seen {
    let disk = Disk::read(&place.base).sound(at);
    let moving = &disk.boxes["default"];
    let token = |layer: &String| disk.file(layer, "token");
    Seen {
        names: moving.refs.iter().map(|(name, layer)| (name.clone(), token(layer))).collect(),
        head: moving.head.as_ref().and_then(token),
        current: moving.current.as_ref().and_then(token),
        kept: disk.kept.len(),
        boxes: disk.boxes.keys().cloned().collect(),
    }
}

impl Seen {
    /// Whether each part of it is one of before or one of after.
    fn between(&self, before: &Self, after: &Self) -> bool {
        let names: BTreeSet<_> =
            [self, before, after].into_iter().flat_map(|seen| seen.names.keys()).collect();
        let name = |seen: &Self, name: &String| seen.names.get(name).cloned();
        [&before.head, &after.head].contains(&&self.head)
            && [&before.current, &after.current].contains(&&self.current)
            && names.iter().all(|n| [name(before, n), name(after, n)].contains(&name(self, n)))
    }
}

/// The words with what is only known now.
fn words(place: &Place, act: &Act) -> Vec<String> {
    let run = watch::names(&place.base.join("runs")).into_iter().next().unwrap_or_default();
    let tree = crate::world::tree().display().to_string();
    let word = |word: &&str| match *word {
        "RUN" => run.clone(),
        "IDS" => ids(),
        "TREE" => tree.clone(),
        other => other.to_owned(),
    };
    act.words.iter().map(word).collect()
}

/// The steps that the command takes when nothing fails, and what is there then.
fn healthy(place: &Place, act: &Act) -> (Vec<String>, Seen) {
    reset(place, act);
    let file = place.work().join("seen");
    let mut command = place.command(words(place, act));
    command.env("SANDBOX_LONGEST_CHAIN", LONGEST);
    let said = Said::from(command.env("SANDBOX_FAIL_SEEN", &file).output().expect("start"));
    assert_eq!(said.code, act.code, "{:?}: {said:?}", act.words);
    settle(place);
    let seen = fs::read_to_string(&file).expect("a debug build tells its steps");
    fs::remove_file(file).expect("remove");
    (seen.lines().map(str::to_owned).collect(), look(place, "healthy"))
}

/// Back to one snapshot beside postinit, and head on it; then what the act needs.
fn reset(place: &Place, act: &Act) {
    for id in Disk::read(&place.base).kept {
        place.said(&["recover", &id, "--as", "kept"]).code(0);
        place.said(&["rm", "kept"]).code(0);
    }
    for (name, _) in place.snapshots() {
        if name != "postinit" {
            place.said(&["rm", &name]).code(0);
        }
    }
    place
        .line(&["--keep=force", "--from", "postinit"], "echo base-$$ >/x; echo base >/token")
        .code(0);
    place.said(&["snapshot", "base"]).code(0);
    let second = place.base.join("boxes/second");
    if second.exists() {
        fs::remove_dir_all(second).expect("remove box");
    }
    (act.prepare)(place);
    settle(place);
}

/// Waits for those who empty the trash.
fn settle(place: &Place) {
    watch::until("the trash is left alone", || watch::held(&place.base).is_empty().then_some(()));
}

/// `STEP.before#n:HOW`, for the first and the last time of each step.
fn points(steps: &[String]) -> Vec<String> {
    const HOWS: [&str; 4] = ["before#%:kill", "after#%:kill", "before#%:EIO", "before#%+:ENOSPC"];
    let mut times = BTreeMap::<_, u32>::new();
    for step in steps {
        *times.entry(step).or_default() += 1;
    }
    let mut points = Vec::new();
    let mut turn = random() as usize;
    for (step, times) in times {
        for number in BTreeSet::from([1, times]) {
            turn += 1;
            let hows = HOWS.iter().enumerate();
            let hows = hows.filter(|(index, _)| soak() > 1 || turn % HOWS.len() == *index);
            points.extend(
                hows.map(|(_, how)| format!("{step}.{}", how.replace('%', &number.to_string()))),
            );
        }
    }
    points
}

fn sweep(act: &Act) {
    let place = Place::new();
    let (mut steps, goal) = healthy(&place, act);
    if steps.iter().filter(|step| *step == "publish.rename").count() > 1 {
        let folding = UNREACHED.iter().map(|(step, _)| (*step).to_owned());
        steps.extend(folding.filter(|step| step.starts_with("fold.")));
        // The others are those of any commit.
        steps
            .retain(|step| soak() > 1 || step.starts_with("fold.") || step.starts_with("publish."));
    }
    for point in points(&steps) {
        reset(&place, act);
        let start = look(&place, &point);
        let mark = marker();
        let mut command = place.command(words(&place, act));
        command.env("SANDBOX_FAIL", &point).env("SANDBOX_LONGEST_CHAIN", LONGEST);
        command.env("MARK", &mark);
        let said = Said::from(command.output().expect("start")).decent();
        gone(&mark);
        judge(&place, act, &point, &said, (&start, &goal));
        if look(&place, &point) == start && start != goal {
            let mut again = place.command(words(&place, act));
            again.env("SANDBOX_LONGEST_CHAIN", LONGEST);
            let again = again.output().map(Said::from).expect("start");
            assert_eq!(again.code, act.code, "{point}, and then again: {again:?}");
            assert_eq!(look(&place, &point), goal, "{point}, and then again");
        }
        let gc = place.said(&["gc", "--all"]);
        assert_eq!(gc.code, 0, "{point}: {gc:?}");
        Disk::read(&place.base).clean(&point);
        assert_eq!(watch::held(&place.base), Vec::<std::path::PathBuf>::new(), "{point}");
    }
    reset(&place, &ACTS[0]);
    place.pristine();
}

fn judge(place: &Place, act: &Act, point: &str, said: &Said, (start, goal): (&Seen, &Seen)) {
    let now = look(place, point);
    let at = format!("{point}: {said:?}: {start:?}: {goal:?}");
    match said.code {
        137 => assert!(point.ends_with("kill") && now.between(start, goal), "{at}: {now:?}"),
        // Nobody's business, or a helper's.
        code if code == act.code => {
            assert_eq!(
                (&now.names, &now.head, &now.current),
                (&goal.names, &goal.head, &goal.current),
                "{at}"
            );
        }
        code => {
            assert!([1, 6, 125].contains(&code), "{at}");
            let refused = said.err.lines().any(|line| line.starts_with("sandbox: "));
            assert!(refused, "{at}");
            assert_eq!(
                (&now.names, &now.head, &now.current),
                (&start.names, &start.head, &start.current),
                "{at}"
            );
            assert_eq!(now.boxes, start.boxes, "{at}");
        }
    }
}

/// Steps that no command above reaches.
const UNREACHED: &[(&str, &str)] = &[
    ("create.above", "the directory above the store is there"),
    ("create.mode", "only of an empty directory that somebody else made"),
    ("publish.back", "only in a lost race"),
    ("publish.owners", "nothing remembers owners yet"),
    ("settle.rename", "after a kill"),
    ("settle.unlink", "after a kill"),
    ("run.chown", "only where root inside is somebody else"),
    ("cache.chown", "only where root inside is somebody else"),
    ("gc.cache", "of something that is a day old"),
    ("trash.foreign", "in the background"),
    ("box.remove", "of an init that fails"),
    ("fold.mkdir", "inside, where a stranger may not write what it does"),
    ("fold.link", "as well"),
    ("fold.opaque", "as well"),
    ("fold.attributes", "as well"),
    ("fold.prune", "as well"),
];

/// Each step that there is, is swept over here or named above.
fn all_steps() {
    let place = Place::empty();
    let file = place.work().join("seen-by-init");
    let mut command = place.command(["init", "--ids", &ids(), "--from"]);
    command.arg(crate::world::tree()).env("SANDBOX_FAIL_SEEN", &file);
    Said::from(command.output().expect("start")).code(0);
    let seen = fs::read_to_string(&file).expect("a debug build tells its steps");
    let mut seen: BTreeSet<String> = seen.lines().map(str::to_owned).collect();
    for act in ACTS {
        seen.extend(healthy(&place, act).0);
    }
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("where the sources are");
    let source = fs::read_to_string(format!("{root}/src/store/failpoint.rs")).expect("source");
    let list = source.split("STEPS: &[&str] = &[").nth(1).expect("the list");
    let list = list.split(']').next().expect("its end").split('"').skip(1).step_by(2);
    let known =
        |step: &&str| seen.contains(*step) || UNREACHED.iter().any(|(name, _)| name == step);
    let missed: Vec<_> = list.filter(|step| !known(step)).collect();
    assert_eq!(missed, Vec::<&str>::new(), "an act in sweep.rs must reach them");
}
