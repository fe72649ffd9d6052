//! Runs that stay: what they have beside the others, and how they are found.

use super::*;
use std::fs;
use std::time::{Duration, SystemTime};

use crate::fault::Kind;
use crate::store::ended::{ENDED_AGE, EndedRun, MOST_ENDED};
use crate::store::{Found, RunName};

/// One with a socket and a log, which was not committed.
pub(super) fn act(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let mut run = named(store, "act")?;
    drop(run.create_log()?);
    drop(run.listen()?);
    let record = RunRecord { exit: Some(1), ..run_record(&run, &[]) };
    run.mark_kept(&record)?;
    run.discard(store).map(drop)
}

/// One that leaves its log and how it ended, which are taken away again.
pub(super) fn end(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let run = left(store, "end", 0)?;
    store.forget_ended(&run)
}

fn ended(run: &Run, name: &str, exit: u8) -> Result<EndedRun> {
    let record = run_record(run, &[]);
    Ok(EndedRun {
        run: record.run,
        name: Some(name.parse()?),
        box_name: record.box_name,
        from: record.from,
        argv: record.argv,
        started: record.started,
        ended: Timestamp::now(),
        exit,
        reason: None,
        messages: vec!["a line".to_owned()],
        fault: None,
        committed: None,
    })
}

/// Runs one under this name to its end; its id.
fn left(store: &Store, name: &str, exit: u8) -> Result<RunId> {
    let run = named(store, name)?;
    let (log, _) = run.create_log()?;
    rustix::io::write(log, b"out\n").expect("write");
    run.leave_ended(store, &ended(&run, name, exit)?)?;
    let id = run.id();
    run.discard(store)?;
    Ok(id)
}

fn named(store: &Store, name: &str) -> Result<Run> {
    let lock = store.lock_shared()?;
    let mut run = store.new_run(&lock, &map())?;
    let name: RunName = name.parse()?;
    let _claimed = store.claim_run_name(&name)?;
    run.write_record(&RunRecord { name: Some(name), ..run_record(&run, &[]) })?;
    Ok(run)
}

#[test]
fn a_name_is_of_one_live_run() {
    let (_dir, store) = store();
    let first = named(&store, "web").expect("run");
    assert_eq!(named(&store, "web").unwrap_err().kind, Kind::Conflict);
    assert_eq!(store.find_run("web").expect("found").0.run, first.id());
    let id = first.id().to_string();
    assert_eq!(store.find_run(&id).expect("found").0.run, first.id());
    assert_eq!(store.find_run(&id[..8]).expect("found").0.run, first.id());
    for word in ["we", "webs", &id[..5], "r-"] {
        assert_eq!(store.find_run(word).unwrap_err().kind, Kind::NotFound, "{word}");
    }
    for word in ["", "../web", "a b"] {
        assert_eq!(store.find_run(word).unwrap_err().kind, Kind::Usage, "{word}");
    }
    let record = run_record(&first, &[]);
    first.keep(&RunRecord { name: Some("web".parse().unwrap()), ..record }).expect("keep");
    // One that has ended can be found by the name, but gives it up to one that lives.
    assert_eq!(store.find_run("web").expect("found").1, RunState::Kept);
    let second = named(&store, "web").expect("run");
    assert_eq!(store.find_run("web").expect("found").0.run, second.id());
}

#[test]
fn a_run_is_asked_only_while_somebody_listens() {
    let (_dir, store) = store();
    let run = named(&store, "web").expect("run");
    let id = run.id();
    assert_eq!(store.connect_run(&id).unwrap_err().kind, Kind::Conflict);
    let listener = run.listen().expect("listen");
    drop(store.connect_run(&id).expect("connect"));
    drop(listener);
    assert_eq!(store.connect_run(&id).unwrap_err().kind, Kind::NotFound);
    // What a killed supervisor has left is in nobody's way.
    let _listener = run.listen().expect("listen again");
    drop(store.connect_run(&id).expect("connect"));
    run.discard(&store).expect("discard");
    assert_eq!(store.connect_run(&id).unwrap_err().kind, Kind::NotFound);
}

/// Whether this word means the remains of this run.
fn is_over(store: &Store, word: &str, id: RunId) -> bool {
    matches!(store.find(word).expect("found"), Found::Ended(ended) if ended.run == id)
}

#[test]
fn what_is_over_is_found_after_all_that_is_there() {
    let (_dir, store) = store();
    let first = left(&store, "web", 3).expect("end");
    let text = first.to_string();
    for word in ["web", &text, &text[..8]] {
        assert!(is_over(&store, word, first), "{word}");
        let fault = store.find_run(word).unwrap_err();
        assert_eq!(fault.kind, Kind::NotFound);
        assert!(fault.message.contains("it has ended with exit code 3"), "{fault}");
    }
    assert!(store.open_run(&first).unwrap_err().message.contains("with exit code 3"));
    let mut log = [0; 8];
    let count = rustix::io::read(store.run_log(&first).expect("log"), &mut log).expect("read");
    assert_eq!(&log[..count], b"out\n");
    let second = left(&store, "web", 0).expect("end");
    assert!(is_over(&store, "web", second));
    let live = named(&store, "web").expect("run");
    assert_eq!(store.find_run("web").expect("found").0.run, live.id());
    assert!(is_over(&store, &text, first));
    store.forget_ended_of(&"web".parse().unwrap()).expect("forget");
    assert_eq!(store.ended_runs().expect("ended"), []);
    assert_eq!(store.find(&text).unwrap_err().kind, Kind::NotFound);
    assert_eq!(store.names("cache").expect("names"), [""; 0]);
    live.discard(&store).expect("discard");
}

#[test]
fn what_is_over_is_left_for_a_while_and_not_too_often() {
    let (_dir, store) = store();
    let age = |id: &RunId, age: Duration| {
        let path = store.path().join(layout::ended_record(id));
        let file = fs::File::options().write(true).open(path).expect("open");
        file.set_modified(SystemTime::now() - age).expect("set time");
    };
    let mut all = Vec::new();
    for number in 0..MOST_ENDED + 3 {
        let id = left(&store, "web", 0).expect("end");
        // Several may have ended within the kernel's tick.
        age(&id, Duration::from_secs(100 - number as u64));
        all.push(id);
    }
    let ended = || store.ended_runs().expect("ended").iter().map(|one| one.run).collect::<Vec<_>>();
    let sorted = |mut ids: Vec<RunId>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(sorted(ended()), sorted(all.split_off(3)));
    assert_eq!(store.names("cache").expect("names").len(), 2 * MOST_ENDED);
    let there = ended();
    age(&there[1], ENDED_AGE + Duration::from_secs(60));
    age(&there[2], ENDED_AGE - Duration::from_secs(60));
    // One that a power cut took the content of, and one whose supervisor was killed.
    fs::write(store.path().join(layout::ended_record(&there[3])), "").expect("write");
    let lost: RunId = "r-0000000000001".parse().expect("id");
    fs::write(store.path().join(layout::ended_log(&lost)), "x").expect("write");
    let dry = store.gc(&GcOptions { dry_run: true, ..strict_gc() }).expect("gc");
    assert_eq!(dry.paths.len(), 3, "{:?}", dry.paths);
    store.gc(&strict_gc()).expect("gc");
    drain(&store).expect("drain");
    assert_eq!(store.names("cache").expect("names").len(), 2 * (MOST_ENDED - 1));
    assert_eq!(ended().len(), MOST_ENDED - 2);
    assert!(!ended().contains(&there[1]) && ended().contains(&there[2]));
}

#[test]
fn remains_of_one_that_had_only_to_go_are_none() {
    for kept in [false, true] {
        remains_of_one_that_had_only_to_go(kept);
    }
}

/// One with --keep-on-failure is a kept one until it has succeeded.
fn remains_of_one_that_had_only_to_go(kept: bool) {
    let (_dir, store) = store();
    let mut run = named(&store, "web").expect("run");
    if kept {
        let record = RunRecord { name: Some("web".parse().unwrap()), ..run_record(&run, &[]) };
        run.mark_kept(&record).expect("keep");
        fs::write(store.path().join(layout::run(&run.id())).join("layer/fs/x"), "x").expect("fill");
    }
    drop(run.create_log().expect("log"));
    run.leave_ended(&store, &ended(&run, "web", 5).expect("record")).expect("leave");
    let id = run.id();
    // Until it is gone it is asked as any that lives.
    assert_eq!(store.find_run("web").expect("found").1, RunState::Running);
    drop(store.run_log(&id).expect("log"));
    abandon(run);
    assert!(is_over(&store, "web", id));
    assert_eq!(store.runs_that_are().expect("runs"), []);
    assert_eq!(store.reap().expect("reap"), 1);
    assert!(is_over(&store, "web", id));
    assert!(store.survey().expect("survey").findings.is_empty());
}
