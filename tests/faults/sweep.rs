//! Real commands that die, or whose disk fails, at each step that changes the store.
//!
//! The binary must be a debug build (or have the feature `failpoints`). Without `SANDBOX_SOAK` each step of
//! each command gets one of the failures, chosen anew each time; with it, all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::Case;
use crate::disk::Disk;
use crate::swept::{ACTS, Act, itself};
use crate::watch::{self, gone, marker, random};
use crate::world::{Place, Said, ids, soak};

pub(crate) const CASES: &[Case] = &[
    ("run", || sweep(&["run"])),
    ("moves", || sweep(&["snapshot", "rollback", "clean", "rm", "rename", "undo"])),
    ("recover", || sweep(&["recover"])),
    ("gc", || sweep(&["gc", "fsck"])),
    ("nest", nest),
    ("boxes", || sweep(&["init", "box", "scrub"])),
    ("all_steps", all_steps),
];

/// The steps of folding: inside, where a stranger may not write what it does.
const FOLDING: [&str; 5] =
    ["fold.mkdir", "fold.link", "fold.opaque", "fold.attributes", "fold.prune"];

/// What a chain may have in these tests, so that one is folded in time.
const LONGEST_CHAIN: (&str, &str) = ("SANDBOX_LONGEST_CHAIN", "6");

/// What is there: the content that each name stands for, by the file /token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    names: BTreeMap<String, Option<String>>,
    head: Option<String>,
    current: Option<String>,
    kept: usize,
    /// The boxes, with their settings.
    boxes: BTreeMap<String, String>,
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
        boxes: disk.boxes.keys().map(|name| (name.clone(), disk.settings(name))).collect(),
    }
}

impl Seen {
    /// Whether each part of it is one of before or one of after, and no kept run went without a name for it.
    fn between(&self, before: &Self, after: &Self) -> bool {
        let names: BTreeSet<_> =
            [self, before, after].into_iter().flat_map(|seen| seen.names.keys()).collect();
        let name = |seen: &Self, name: &String| seen.names.get(name).cloned();
        [&before.head, &after.head].contains(&&self.head)
            && [&before.current, &after.current].contains(&&self.current)
            && (self.names != before.names || self.kept >= before.kept)
            && names.iter().all(|n| [name(before, n), name(after, n)].contains(&name(self, n)))
    }
}

/// The words with what is only known now.
fn words(place: &Place, act: &Act) -> Vec<String> {
    let run = watch::names(&place.base.join("runs")).into_iter().next().unwrap_or_default();
    let tree = crate::world::tree().display().to_string();
    let word = |word: &&str| match *word {
        "RUN" => vec![run.clone()],
        "IDS" => vec![ids()],
        "TREE" => vec![tree.clone()],
        "ITSELF" => itself(),
        other => vec![other.to_owned()],
    };
    act.words.iter().flat_map(word).collect()
}

/// The command of an act.
fn acting(place: &Place, act: &Act) -> Command {
    let mut command = place.command(words(place, act));
    command.env(LONGEST_CHAIN.0, LONGEST_CHAIN.1);
    command
}

/// The steps that the command takes when nothing fails, and what is there then.
fn healthy(place: &Place, act: &Act) -> (Vec<String>, Seen) {
    reset(place, act);
    let file = place.work().join("seen");
    let mut command = acting(place, act);
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
    place.said(&["scrub", "--all", "second"]).code(0);
    if act.words[0] != "box" {
        place.said(&["box", "set", "--unset", "undo_size"]).code(0);
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

/// Whether there can be a store inside a run: not where root inside is root of this machine.
pub(crate) fn has_nests() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").expect("uid_map");
    ids() != "identity" || !map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn nest() {
    if has_nests() {
        return sweep(&["nest"]);
    }
    let place = Place::new();
    place.said(&["run", "--nest", "--", "true"]).code(125);
    place.pristine();
}

/// All acts of these commands.
fn sweep(commands: &[&str]) {
    let place = Place::new();
    for act in ACTS.iter().filter(|act| commands.contains(&act.group())) {
        let (mut steps, goal) = healthy(&place, act);
        if steps.iter().filter(|step| *step == "publish.rename").count() > 1 {
            // The others are those of any commit.
            steps.retain(|step| soak() > 1 || step.starts_with("publish."));
            steps.extend(FOLDING.map(str::to_owned));
        }
        for point in points(&steps) {
            suffer(&place, act, &point, &goal);
        }
    }
    reset(&place, &ACTS[0]);
    place.pristine();
}

fn suffer(place: &Place, act: &Act, point: &str, goal: &Seen) {
    reset(place, act);
    let point = format!("{:?} at {point}", act.words);
    let point = point.as_str();
    let start = look(place, point);
    let mark = marker();
    let mut command = acting(place, act);
    let wish = point.rsplit(' ').next().expect("a point");
    command.env("SANDBOX_FAIL", wish).env("MARK", &mark);
    let said = Said::from(command.output().expect("start")).decent();
    gone(&mark);
    judge(place, act, point, &said, (&start, goal));
    if look(place, point) == start && start != *goal {
        let again = acting(place, act).output().map(Said::from).expect("start");
        assert_eq!(again.code, act.code, "{point}, and then again: {again:?}");
        assert_eq!(look(place, point), *goal, "{point}, and then again");
    }
    place.said(&["gc", "--all"]).code(0);
    Disk::read(&place.base).clean(point);
    place.said(&["fsck"]).code(0);
    assert_eq!(watch::held(&place.base), Vec::<std::path::PathBuf>::new(), "{point}");
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

/// Steps that no command above reaches; those with a dot at the end, all of a kind.
const UNREACHED: &[(&str, &str)] = &[
    ("create.above", "the directory above the store is there"),
    ("create.mode", "only of an empty directory that somebody else made"),
    ("publish.back", "only in a lost race"),
    ("adopt.back", "only in a lost race"),
    ("adopt.move", "inside, where a stranger may not write what it does"),
    ("nest.chown", "only where root inside is somebody else"),
    ("publish.owners", "only where owners are remembered: cli/owners.rs"),
    ("run.journal", "only where owners are remembered: store/tests/scenario.rs"),
    ("settle.rename", "after a kill"),
    ("settle.unlink", "after a kill"),
    ("run.log", "only of runs that stay: store/tests/stays.rs"),
    ("run.socket", "only of runs that stay: store/tests/stays.rs"),
    ("ended.", "only of runs that stay: stays.rs, store/tests/stays.rs"),
    ("run.chown", "only where root inside is somebody else"),
    ("cache.chown", "only where root inside is somebody else"),
    ("gc.cache", "of something that is a day old"),
    ("trash.foreign", "in the background"),
    ("box.remove", "of an init that fails"),
    (
        "spare.trash",
        "of one that is damaged, or of before the machine was started: store/tests/scenario.rs",
    ),
    ("repair.", "of a damaged store: store/tests/mend.rs"),
    ("fold.", "inside: FOLDING"),
    ("upper.", "inside, where a stranger may not write what it does"),
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
    for act in ACTS.iter().filter(|act| act.group() != "nest" || has_nests()) {
        seen.extend(healthy(&place, act).0);
    }
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("where the sources are");
    let source = fs::read_to_string(format!("{root}/src/store/failpoint.rs")).expect("source");
    let list = source.split("STEPS: &[&str] = &[").nth(1).expect("the list");
    let list = list.split(']').next().expect("its end").split('"').skip(1).step_by(2);
    let inner =
        |step: &str| !has_nests() && ["nest.", "adopt."].iter().any(|of| step.starts_with(of));
    let known = |step: &&str| {
        seen.contains(*step)
            || inner(step)
            || UNREACHED.iter().any(|(name, _)| step.starts_with(name))
    };
    let missed: Vec<_> = list.filter(|step| !known(step)).collect();
    assert_eq!(missed, Vec::<&str>::new(), "an act in swept.rs must reach them");
}
