//! Many at once on one store: nobody loses anything, and whoever cannot go on says busy or conflict.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use crate::Case;
use crate::watch::random;
use crate::world::{Place, Said, soak};

pub(crate) const CASES: &[Case] =
    &[("workers", workers), ("same_name", same_name), ("same_init", same_init)];

/// Documented: not found (somebody removed it), conflict (somebody made it), busy.
#[track_caller]
fn lost_the_race(said: &Said) {
    let parts = [
        "there is no such",
        "there is none in",
        "exists",
        "moved meanwhile",
        "other commands are at work",
        ": busy: ",
        "names",
    ];
    let known =
        [3, 4, 5, 125].contains(&said.code) && parts.iter().any(|part| said.err.contains(part));
    assert!(known, "{said:?}");
}

fn workers() {
    let place = Place::new();
    let end = Instant::now() + Duration::from_secs(3 * soak());
    let (commits, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    scope(|scope| {
        for worker in 0..8 {
            let (place, commits, refused) = (&place, &commits, &refused);
            scope.spawn(move || {
                let mut round = 0;
                while Instant::now() < end {
                    round += 1;
                    let name = format!("w{worker}-{round}");
                    let line = format!("echo {name} >/name");
                    place.line(&["--commit", &name], &line).code(0);
                    let line = format!("[ $(cat /name) = {name} ]");
                    place.line(&["--from", &name], &line).code(0);
                    commits.fetch_add(1, Ordering::Relaxed);
                    let said = match random() % 4 {
                        0 => place.said(&["gc", "--all"]),
                        1 => place.said(&["run", "--keep", "--", "touch", &format!("/{name}")]),
                        2 => place.said(&["list", "--json"]),
                        _ => place.said(&[
                            "run",
                            "--from",
                            "postinit",
                            "--commit",
                            "contended",
                            "--",
                            "true",
                        ]),
                    };
                    if said.code != 0 {
                        lost_the_race(&said);
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    if random().is_multiple_of(2) {
                        place.said(&["rm", &name]).code(0);
                    } else {
                        place.line(&["--from", &name], &line).code(0);
                    }
                    if random().is_multiple_of(4) {
                        let said = place.said(&["rm", "contended"]);
                        if said.code != 0 {
                            lost_the_race(&said);
                        }
                    }
                }
            });
        }
    });
    assert!(commits.load(Ordering::Relaxed) > 8);
    // What is still named is whole and of its own worker.
    for (name, _) in place.snapshots() {
        if name.starts_with('w') {
            place.line(&["--from", &name], &format!("[ $(cat /name) = {name} ]")).code(0);
            place.said(&["rm", &name]).code(0);
        }
    }
    // What lost is kept for those who want it.
    rescue(&place);
    // Head may have moved on, without a name.
    place.said(&["snapshot", "head-of-all"]).code(0);
    place.pristine();
}

fn rescue(place: &Place) {
    place.said(&["gc"]).code(0);
    for id in crate::watch::names(&place.base.join("runs")) {
        place.said(&["recover", &id, "--as", "rescued"]).code(0);
        place.said(&["rm", "rescued"]).code(0);
    }
}

fn same_name() {
    let place = Place::new();
    for _ in 0..3 * soak() {
        let ends: Vec<Said> = scope(|scope| {
            let start = |n: u32| {
                let place = &place;
                scope.spawn(move || {
                    place.line(&["--commit", "one"], &format!("sleep 0.1; echo {n} >/n"))
                })
            };
            let started: Vec<_> = (0..6).map(start).collect();
            started.into_iter().map(|thread| thread.join().expect("thread")).collect()
        });
        assert_eq!(ends.iter().filter(|said| said.code == 0).count(), 1, "{ends:?}");
        for said in ends.iter().filter(|said| said.code != 0) {
            lost_the_race(said);
        }
        place.said(&["rm", "one"]).code(0);
        rescue(&place);
    }
    place.pristine();
}

fn same_init() {
    let place = Place::empty();
    let ends: Vec<Said> = scope(|scope| {
        let started: Vec<_> = (0..6).map(|_| scope.spawn(|| place.init(&[]))).collect();
        started.into_iter().map(|thread| thread.join().expect("thread")).collect()
    });
    assert!(ends.iter().all(|said| said.code == 0), "{ends:?}");
    place.pristine();
}
