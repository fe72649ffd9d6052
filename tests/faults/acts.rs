//! What the soak does: each command with what it makes of the names of a box, as a user would expect it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::disk::Disk;
use crate::watch::random;
use crate::world::{Said, program};

/// How many files a commit of the soak makes beside `/token`.
const FILES: usize = 5;

/// What stands for the tree without a token.
const BARE: &str = "-";

/// What is there: contents by name, and those of head and current as `@head` and `@current`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) fields: BTreeMap<String, String>,
    /// The kept runs, with their contents.
    pub(crate) kept: BTreeMap<String, String>,
    /// What each field was at some time: `undo` may bring it back.
    past: BTreeMap<String, BTreeSet<Option<String>>>,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It ended as it does when nothing fails.
    Done,
    /// It said no; `excused` if something of it was killed.
    Refused { excused: bool },
    /// It was killed.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Commit,
    Keep,
    Discard,
    KeepFailed,
    Recover,
    Snapshot,
    Rollback,
    Clean,
    Rm,
    Undo,
    Gc,
    Fsck,
    Scrub,
}

/// How often each is chosen.
const WEIGHTS: [(Kind, u64); 13] = [
    (Kind::Commit, 16),
    (Kind::Keep, 12),
    (Kind::Discard, 6),
    (Kind::KeepFailed, 5),
    (Kind::Recover, 5),
    (Kind::Snapshot, 8),
    (Kind::Rollback, 8),
    (Kind::Clean, 4),
    (Kind::Rm, 12),
    (Kind::Undo, 8),
    (Kind::Gc, 8),
    (Kind::Fsck, 4),
    (Kind::Scrub, 1),
];

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Commit => "run --commit",
            Self::Keep => "run --keep",
            Self::Discard => "run",
            Self::KeepFailed => "run --keep-on-f",
            Self::Recover => "recover",
            Self::Snapshot => "snapshot",
            Self::Rollback => "rollback",
            Self::Clean => "clean",
            Self::Rm => "rm",
            Self::Undo => "undo",
            Self::Gc => "gc",
            Self::Fsck => "fsck",
            Self::Scrub => "scrub",
        }
    }

    /// Whether there is a payload.
    pub(crate) fn runs(self) -> bool {
        self.name().starts_with("run")
    }

    /// Whether the binary under test has the command.
    pub(crate) fn is_known(self) -> bool {
        static HELP: OnceLock<String> = OnceLock::new();
        let help = HELP.get_or_init(|| {
            let output = Command::new(program()).arg("--help").output().expect("help");
            String::from_utf8(output.stdout).expect("text")
        });
        let word = self.name().split(' ').next().expect("a word");
        help.lines().any(|line| line.split_whitespace().next() == Some(word))
    }
}

/// A command to come.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) kind: Kind,
    /// The name it is about; of `recover`, the name it shall get.
    name: String,
    run: String,
    /// The content it writes, which nobody else has.
    pub(crate) token: String,
}

impl Act {
    pub(crate) fn random(known: &Seen) -> Self {
        let kind = loop {
            let kind = weighted();
            if kind.is_known() && (kind != Kind::Recover || !known.kept.is_empty()) {
                break kind;
            }
        };
        // So few names that they often exist already, or not any more.
        let name = format!("n{}", random() % 12);
        let runs: Vec<_> = known.kept.keys().collect();
        let run = match runs.len() {
            0 => String::new(),
            count => runs[random() as usize % count].clone(),
        };
        Self { kind, name, run, token: format!("T{:016x}", random()) }
    }

    /// What `sandbox` is called with.
    pub(crate) fn words(&self) -> Vec<String> {
        let script = format!(
            "mkdir /d-{0} && for n in {1}; do echo {0} >/d-{0}/$n; done && echo {0} >/token; exit {2}",
            self.token,
            (0..FILES).map(|n| n.to_string()).collect::<Vec<_>>().join(" "),
            self.code()
        );
        let from_base = random().is_multiple_of(2);
        let words: &[&str] = match self.kind {
            // Also from the first layer, so that chains do not only grow.
            Kind::Commit if from_base => &["run", "--from", "postinit", "--commit", &self.name],
            Kind::Commit => &["run", "--commit", &self.name],
            Kind::Keep if from_base => &["run", "--from", "postinit", "--keep=force"],
            Kind::Keep => &["run", "--keep"],
            Kind::Discard => &["run"],
            Kind::KeepFailed => &["run", "--keep-on-failure"],
            Kind::Recover => &["recover", &self.run, "--as", &self.name],
            Kind::Snapshot => &["snapshot", &self.name],
            Kind::Rollback if from_base => &["rollback", "postinit"],
            Kind::Rollback => &["rollback", &self.name],
            Kind::Clean => &["clean"],
            Kind::Rm => &["rm", &self.name],
            Kind::Undo => &["undo"],
            Kind::Gc => &["gc"],
            Kind::Fsck => &["fsck"],
            Kind::Scrub => &["scrub", "--snapshots"],
        };
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        if self.kind.runs() {
            words.extend(["--", "sh", "-c", &script].map(str::to_owned));
        }
        words
    }

    /// The exit code when nothing fails.
    pub(crate) fn code(&self) -> i32 {
        if self.kind == Kind::KeepFailed { 3 } else { 0 }
    }

    /// What it makes of the fields; `None` if only the past can tell.
    fn effect(&self, known: &Seen) -> Option<BTreeMap<String, String>> {
        let mut fields = known.fields.clone();
        let mut set = |field: &str, value: Option<&String>| {
            fields.extend(value.map(|value| (field.to_owned(), value.clone())));
        };
        let (head, current) = (known.fields.get("@head"), known.fields.get("@current"));
        match self.kind {
            Kind::Commit => set(&self.name, Some(&self.token)),
            Kind::Keep => set("@head", Some(&self.token)),
            Kind::Recover => set(&self.name, known.kept.get(&self.run)),
            Kind::Snapshot => {
                set(&self.name, head);
                set("@current", head);
            }
            Kind::Clean => set("@head", current),
            Kind::Rm => drop(fields.remove(&self.name)),
            Kind::Rollback | Kind::Undo | Kind::Scrub => return None,
            Kind::Discard | Kind::KeepFailed | Kind::Gc | Kind::Fsck => {}
        }
        Some(fields)
    }

    /// Whether it may be refused for what is there.
    fn may_be_refused(&self, known: &Seen) -> bool {
        let exists = known.fields.contains_key(&self.name);
        match self.kind {
            Kind::Commit | Kind::Recover | Kind::Snapshot => exists,
            Kind::Rm | Kind::Rollback => !exists,
            Kind::Undo | Kind::Scrub => true,
            _ => false,
        }
    }
}

fn weighted() -> Kind {
    let all: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut drawn = random() % all;
    for (kind, weight) in WEIGHTS {
        if drawn < weight {
            return kind;
        }
        drawn -= weight;
    }
    Kind::Gc
}

impl Seen {
    pub(crate) fn of(disk: &Disk) -> Self {
        let moving = &disk.boxes["default"];
        let token = |layer: &String| {
            disk.file(layer, "token").map_or(BARE.to_owned(), |text| text.trim().to_owned())
        };
        let mut fields: BTreeMap<_, _> =
            moving.refs.iter().map(|(name, layer)| (name.clone(), token(layer))).collect();
        fields.extend(moving.head.as_ref().map(|head| ("@head".to_owned(), token(head))));
        fields.extend(moving.current.as_ref().map(|one| ("@current".to_owned(), token(one))));
        // A payload that was killed before it wrote its token shows that of its base.
        let upper = |run: &String| {
            let own = disk.upper_file(run, "token").map(|text| text.trim().to_owned());
            own.or_else(|| disk.run_base(run).as_ref().map(token))
                .unwrap_or_else(|| BARE.to_owned())
        };
        let kept = disk.kept.iter().map(|run| (run.clone(), upper(run))).collect();
        Self { fields, kept, past: BTreeMap::new() }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.fields.iter().filter(|(name, _)| !name.starts_with('@'));
        names.map(|(name, token)| (name.as_str(), token.as_str()))
    }

    /// The state `now`, with the past of this one.
    pub(crate) fn with_history(&self, now: Self) -> Self {
        let mut past = self.past.clone();
        for field in self.fields.keys().chain(now.fields.keys()) {
            let values = past.entry(field.clone()).or_insert_with(|| BTreeSet::from([None]));
            values.insert(self.fields.get(field).cloned());
            values.insert(now.fields.get(field).cloned());
        }
        Self { past, ..now }
    }

    /// A field had this value for a while.
    pub(crate) fn remember(&mut self, field: &str, value: Option<String>) {
        let values = self.past.entry(field.to_owned()).or_insert_with(|| BTreeSet::from([None]));
        values.insert(value);
    }

    /// Asserts that this state has become `now` as the outcome of the act allows.
    #[track_caller]
    pub(crate) fn must_become(
        &self,
        now: &Self,
        act: &Act,
        outcome: Outcome,
        said: &Said,
        at: &str,
    ) {
        let known = |field: &str, value: Option<&String>| match act.kind {
            Kind::Rollback => {
                value == self.fields.get(field)
                    || (field.starts_with('@') && self.fields.values().any(|v| Some(v) == value))
            }
            _ => self.past.get(field).is_some_and(|past| past.contains(&value.cloned())),
        };
        let effect = act.effect(self);
        let fields: BTreeSet<_> = self.fields.keys().chain(now.fields.keys()).collect();
        for field in fields {
            let (old, new) = (self.fields.get(field), now.fields.get(field));
            let right = match (outcome, &effect) {
                (Outcome::Refused { .. }, _) => new == old,
                (Outcome::Done, Some(effect)) => new == effect.get(field),
                (Outcome::Unknown, Some(effect)) => new == old || new == effect.get(field),
                (Outcome::Done | Outcome::Unknown, None) => new == old || known(field, new),
            };
            assert!(right, "{at}: {field} was {old:?} and is {new:?}: {effect:?}");
        }
        if outcome == (Outcome::Refused { excused: false }) {
            assert!(act.may_be_refused(self), "{at}: {self:?}");
        }
        self.kept_must_become(now, act, outcome, said, at);
    }

    #[track_caller]
    fn kept_must_become(&self, now: &Self, act: &Act, outcome: Outcome, said: &Said, at: &str) {
        for (run, token) in &self.kept {
            let named = act.kind == Kind::Recover
                && act.run == *run
                && now.fields.get(&act.name) == Some(token);
            let there = now.kept.get(run) == Some(token);
            assert!(there || named, "{at}: the kept run {run} is lost");
        }
        for (run, token) in now.kept.iter().filter(|(run, _)| !self.kept.contains_key(*run)) {
            // Of a payload that was killed nobody knows how far it came.
            let made = token == &act.token || outcome != Outcome::Done;
            let expected = act.kind == Kind::KeepFailed || outcome != Outcome::Done;
            assert!(
                act.kind.runs() && expected && made,
                "{at}: where does {run} come from, with {token}?"
            );
        }
        if (act.kind, outcome) == (Kind::KeepFailed, Outcome::Done) {
            let there =
                now.kept.iter().any(|(run, token)| said.err.contains(run) && *token == act.token);
            assert!(there, "{at}: the run was not kept: {:?}", now.kept);
        }
    }
}

/// What is wrong with the files of a layer that the soak has made, by its token, which was written last.
/// Where a payload was killed before that, nobody knows what there should be.
pub(crate) fn damage(base: &Path, layer: &str) -> Option<String> {
    let fs = base.join("layers").join(layer).join("fs");
    let token = fs::read_to_string(fs.join("token")).unwrap_or_default();
    if token.trim().is_empty() {
        return None;
    }
    for number in 0..FILES {
        let path = fs.join(format!("d-{}", token.trim())).join(number.to_string());
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text != token {
            return Some(format!("{}: {text:?}", path.display()));
        }
    }
    None
}
