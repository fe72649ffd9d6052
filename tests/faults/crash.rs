//! A real `run --commit` that dies, or whose disk fails, at each step that changes the store.
//!
//! Only with the feature `failpoints`: `cargo test --features failpoints --test faults crash`.

use crate::Case;
use crate::watch;
use crate::world::{Place, Said};

pub(crate) const CASES: &[Case] = &[("killed", killed), ("failed", failed), ("head", head)];

const STEPS: [&str; 24] = [
    "run.mkdir",
    "run.open",
    "run.lock",
    "run.flock",
    "run.layer",
    "run.fs",
    "run.work",
    "run.rename",
    "run.record",
    "publish.syncfs",
    "publish.record.create",
    "publish.record.write",
    "publish.record.fsync",
    "publish.layer.fsync",
    "publish.rename",
    "publish.layers.fsync",
    "ref.temp",
    "ref.temp.fsync",
    "ref.rename",
    "ref.fsync",
    "log.append",
    "discard.fs",
    "discard.record",
    "discard.run",
];

fn commit(place: &Place, step: &str, side: &str, how: &str) -> Said {
    let line = "echo one >/one && mkdir /d && echo two >/d/two && chmod 0 /d";
    let mut command = place.command(["run", "--commit", "new", "--", "sh", "-c", line]);
    command.env("SANDBOX_FAIL", format!("{step}.{side}:{how}")).output().expect("start").into()
}

/// The snapshot is there and whole, or not there; `whole` says whether it must be.
fn judge(place: &Place, at: &str, must: Option<bool>) {
    let there = place.snapshots().iter().any(|(name, _)| name == "new");
    if let Some(must) = must {
        assert_eq!(there, must, "{at}");
    }
    if there {
        let line = "[ $(cat /one) = one ] && chmod 755 /d && [ $(cat /d/two) = two ]";
        place.line(&["--from", "new"], line).code(0);
        place.said(&["rm", "new"]).code(0);
    }
    // What a failed commit has kept.
    place.said(&["gc"]).code(0);
    for id in watch::names(&place.base.join("runs")) {
        place.said(&["recover", &id, "--as", "rescued"]).code(0);
        place.said(&["rm", "rescued"]).code(0);
    }
    place.pristine();
}

fn killed() {
    let place = Place::new();
    let mut reached = 0;
    for step in STEPS {
        for side in ["before", "after"] {
            let said = commit(&place, step, side, "kill");
            assert!([0, 137].contains(&said.code), "{step}.{side}: {said:?}");
            reached += usize::from(said.code == 137);
            let must = (said.code == 0).then_some(true);
            judge(&place, &format!("{step}.{side}"), must);
        }
    }
    assert!(reached > 30, "{reached}");
}

fn failed() {
    let place = Place::new();
    for how in ["ENOSPC", "EIO"] {
        // Not after: no system call does its work and then fails.
        for step in STEPS {
            let at = format!("{step}:{how}");
            let said = commit(&place, step, "before", how).decent();
            assert!([0, 125].contains(&said.code), "{at}: {said:?}");
            judge(&place, &at, Some(said.code == 0));
        }
    }
}

/// Head stays where it was when the move fails, and names something whole in any case.
fn head() {
    let place = Place::new();
    for step in ["head.temp", "head.temp.fsync", "head.rename", "head.fsync", "log.append"] {
        for (side, how) in
            [("before", "ENOSPC"), ("before", "EIO"), ("before", "kill"), ("after", "kill")]
        {
            let mut command = place.command(["run", "--keep", "--", "sh", "-c", "echo x >>/x"]);
            command.env("SANDBOX_FAIL", format!("{step}.{side}:{how}"));
            let said = Said::from(command.output().expect("start")).decent();
            let at = format!("{step}.{side}:{how}: {said:?}");
            assert_eq!(said.code, if how == "kill" { 137 } else { 125 }, "{at}");
            let moved = place.line(&[], "[ -e /x ]").code == 0;
            assert!(!moved || how == "kill", "{at}");
            // A layer that is only the head's has no name to be shown by.
            place.said(&["snapshot", "now"]).code(0);
            judge(&place, &at, None);
            place
                .said(&["run", "--keep=force", "--from", "postinit", "--", "rm", "-f", "/x"])
                .code(0);
            place.said(&["rm", "now"]).code(0);
            place.said(&["snapshot", "again"]).code(0);
            place.said(&["rm", "again"]).code(0);
        }
    }
}
