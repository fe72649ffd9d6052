//! Commands chosen at random, killed at a random moment of their life: the supervisor, PID 1, the payload or
//! all of them. What was acknowledged is kept here, outside the store, and compared with the disk after
//! each one ([`Disk`] shares no code with the store).
//!
//! `SANDBOX_SOAK_KILLS=N` wants N kills; `integration/soak.sh` is the long form.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::Case;
use crate::acts::{Act, Kind, Outcome, Seen};
use crate::disk::Disk;
use crate::watch::{self, children, marked_since, random};
use crate::world::{Place, Said, program};

pub(crate) const CASES: &[Case] = &[("random_kills", random_kills)];

/// How long what is inside may outlive its supervisor.
const LINGER: Duration = Duration::from_secs(1);

/// What all is well with is collected and looked through this often.
const INSPECT: u64 = 100;

/// After so many kills a word is said.
const TELL: u64 = 1000;

pub(crate) fn wanted_kills() -> u64 {
    let text = std::env::var("SANDBOX_SOAK_KILLS").ok();
    text.map_or(150, |text| text.parse().expect("SANDBOX_SOAK_KILLS: a number"))
}

/// `SANDBOX_SOAK_MINUTES`: an end before all kills are done; what was done is told.
fn most_time() -> Duration {
    let text = std::env::var("SANDBOX_SOAK_MINUTES").ok();
    let minutes = text.map(|text| text.parse().expect("SANDBOX_SOAK_MINUTES: a number"));
    minutes.map_or(Duration::MAX, |minutes: u64| Duration::from_secs(60 * minutes))
}

/// Whom a kill meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Supervisor,
    First,
    Payload,
    Group,
}

/// The counts that are told at the end.
#[derive(Debug, Default)]
struct Tally {
    kills: BTreeMap<(&'static str, Victim), u64>,
    whole: u64,
    refused: u64,
    longest: Duration,
}

impl Tally {
    fn killed(&self) -> u64 {
        self.kills.values().sum()
    }
}

/// A soak: the store, what must be in it, and how long each kind of command usually takes.
struct Soak {
    place: Place,
    known: Seen,
    usual: BTreeMap<&'static str, Duration>,
    tally: Tally,
    /// Layers whose files were found whole once; layers do not change.
    whole: BTreeSet<String>,
}

fn random_kills() {
    let mut soak = Soak {
        place: Place::new(),
        known: Seen::default(),
        usual: BTreeMap::new(),
        tally: Tally::default(),
        whole: BTreeSet::new(),
    };
    soak.known = Seen::of(&Disk::read(&soak.place.base).sound("begin"));
    let begun = Instant::now();
    let (mut rounds, mut told) = (0, 0);
    while soak.tally.killed() < wanted_kills() && begun.elapsed() < most_time() {
        rounds += 1;
        soak.round();
        if rounds % INSPECT == 0 {
            soak.inspect();
        }
        let kills = soak.tally.killed();
        if kills >= told + TELL {
            told = kills;
            say(&format!("soak: {kills} kills so far, {} s", begun.elapsed().as_secs()));
        }
    }
    soak.inspect();
    soak.end(begun);
}

impl Soak {
    fn round(&mut self) {
        let act = Act::random(&self.known);
        let usual = self.usual.get(act.kind.name()).copied().unwrap_or(Duration::from_millis(40));
        // Some are left alone, so that much is acknowledged, and it shows how long they take.
        let delay =
            (!random().is_multiple_of(4)).then(|| usual.mul_f64((random() % 1100) as f64 / 1000.0));
        let victim = match random() % 8 {
            0 if act.kind.runs() => Victim::First,
            1 if act.kind.runs() => Victim::Payload,
            2 | 3 => Victim::Group,
            _ => Victim::Supervisor,
        };
        let begun = Instant::now();
        let (said, hit, pid) = self.start(&act, victim, delay);
        if delay.is_none() {
            let old = self.usual.entry(act.kind.name()).or_insert_with(|| begun.elapsed());
            *old = (*old * 7 + begun.elapsed()) / 8;
        }
        self.gone(&act, pid);
        let outcome = match said.code {
            137 if hit => Outcome::Unknown,
            _ if !hit && said.code == act.code() => Outcome::Done,
            _ if said.code == act.code() && act.kind.runs() => Outcome::Done,
            _ => Outcome::Refused { excused: hit },
        };
        let name = if hit { Some((act.kind.name(), victim)) } else { None };
        match (name, outcome) {
            (Some(key), _) => *self.tally.kills.entry(key).or_default() += 1,
            (None, Outcome::Done) => self.tally.whole += 1,
            (None, _) => self.tally.refused += 1,
        }
        let at = format!("{act:?} {victim:?} after {delay:?}: {said:?}");
        let said = if outcome == Outcome::Unknown { said } else { said.decent() };
        let disk = Disk::read(&self.place.base).sound(&at);
        let now = Seen::of(&disk);
        self.known.must_become(&now, &act, outcome, &said, &at);
        self.known = self.known.with_history(now);
        self.whole_layers(&disk, &at);
    }

    /// Runs the command and kills it after `delay`. Whether the kill met anybody, and the supervisor's pid.
    fn start(&self, act: &Act, victim: Victim, delay: Option<Duration>) -> (Said, bool, i32) {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program());
        command.args(act.words()).env("SANDBOX_BASE_DIR", &self.place.base).env("MARK", &act.token);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("SANDBOX_BUDGET", "off");
        command.process_group(0).current_dir(self.place.work());
        let mut child = command.spawn().expect("start");
        let (mut hit, pid) = (false, child.id() as i32);
        if let Some(delay) = delay {
            sleep(delay);
            let ended = matches!(child.try_wait(), Ok(Some(_)));
            hit = !ended && shoot(pid, victim);
        }
        let said = Said::from(child.wait_with_output().expect("wait"));
        // A supervisor that had just ended was nobody to kill.
        let hit = hit && (said.code == 137 || matches!(victim, Victim::First | Victim::Payload));
        (said, hit, pid)
    }

    /// Waits until nothing of the command is left; inside, that must be soon.
    fn gone(&mut self, act: &Act, supervisor: i32) {
        let begun = Instant::now();
        loop {
            let left = marked_since(supervisor, &act.token);
            let inside: Vec<_> = left.iter().filter(|pid| watch::is_inside(**pid)).collect();
            self.tally.longest = self.tally.longest.max(if inside.is_empty() {
                Duration::ZERO
            } else {
                begun.elapsed()
            });
            assert!(inside.is_empty() || begun.elapsed() < LINGER, "{act:?}: {inside:?} live on");
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < watch::PATIENCE, "{act:?}: {left:?} are left");
            sleep(Duration::from_millis(1));
        }
    }

    /// Every layer of every name has all of its files.
    fn whole_layers(&mut self, disk: &Disk, at: &str) {
        for layer in disk.needed() {
            if self.whole.contains(&layer) {
                continue;
            }
            let problem = crate::acts::damage(&self.place.base, &layer);
            assert_eq!(problem, None, "{at}: layer {layer}");
            self.whole.insert(layer);
        }
    }

    /// Nothing is left over, no lock is held, names open, and all layers are as they were.
    fn inspect(&mut self) {
        for id in Disk::read(&self.place.base).sound("inspect").kept {
            // undo may bring the name back: each has its own.
            let name = format!("rescued-{id}");
            self.known.remember(&name, self.known.kept.get(&id).cloned());
            self.place.said(&["recover", &id, "--as", &name]).code(0);
            self.place.said(&["rm", &name]).code(0);
        }
        self.place.said(&["gc", "--all"]).code(0);
        let disk = Disk::read(&self.place.base).clean("inspect");
        let now = Seen::of(&disk);
        assert_eq!(now.fields, self.known.fields, "inspect");
        self.known = self.known.with_history(now);
        assert_eq!(watch::held(&self.place.base), Vec::<std::path::PathBuf>::new());
        self.whole.clear();
        self.whole_layers(&disk, "inspect");
        if Kind::Fsck.is_known() {
            self.place.said(&["fsck"]).code(0);
        }
        for (name, token) in self.known.names().take(3) {
            let said = self.place.line(&["--from", name], "read -r t </token && echo \"$t\"");
            assert!(said.code == 0 && said.out.trim() == token || token == "-", "{name}: {said:?}");
        }
    }

    fn end(self, begun: Instant) {
        let Tally { whole, refused, longest, .. } = self.tally;
        let seconds = begun.elapsed().as_secs();
        let kills = self.tally.killed();
        say(&format!(
            "soak: {kills} kills, {whole} commands left alone, {refused} refused, 0 violations, {seconds} s; \
             inside nobody lived longer than {longest:.1?} after a kill"
        ));
        for ((name, victim), count) in &self.tally.kills {
            say(&format!("soak:   {name:<15} {victim:<12?} {count}"));
        }
        assert_eq!(watch::held(&self.place.base), Vec::<std::path::PathBuf>::new());
        self.place.no_mount_left();
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn say(line: &str) {
    println!("{line}");
}

/// Sends SIGKILL to whom it shall meet; whether there was anybody.
fn shoot(supervisor: i32, victim: Victim) -> bool {
    let kill =
        |pid: i32| Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
    let first = || watch::init_of(supervisor);
    match victim {
        Victim::Supervisor => kill(supervisor),
        Victim::Group => Pid::from_raw(supervisor)
            .is_some_and(|pid| kill_process_group(pid, Signal::KILL).is_ok()),
        Victim::First => first().is_some_and(kill),
        Victim::Payload => {
            first().is_some_and(|first| children(first).first().is_some_and(|pid| kill(*pid)))
        }
    }
}
