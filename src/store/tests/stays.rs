//! Runs that stay: what they have beside the others, and how they are found.

use super::*;
use crate::fault::Kind;
use crate::store::RunName;

/// One with a socket and a log, which was not committed.
pub(super) fn act(_: &Path, store: &Store, _: &Box_<'_>) -> Result<()> {
    let mut run = named(store, "act")?;
    drop(run.create_log()?);
    drop(run.listen()?);
    let record = RunRecord { exit: Some(1), ..run_record(&run, &[]) };
    run.mark_kept(&record)?;
    run.discard(store).map(drop)
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
