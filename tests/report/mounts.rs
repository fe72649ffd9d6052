//! The mounts of the checker's process, so that they are the same on each machine.

use std::fs;

use crate::inside::say;

pub(crate) fn tell() {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut all = Vec::new();
    for line in text.lines() {
        let (front, back) = line.split_once(" - ").unwrap();
        let front: Vec<_> = front.split(' ').collect();
        let back: Vec<_> = back.split(' ').collect();
        let (root, place, options, propagation) = (front[3], front[4], front[5], &front[6..]);
        let kind = back[0];
        // What is hidden in /proc is what there is on this machine: `kernel` tells what came of it.
        if place.starts_with("/proc/") && place != "/proc/sys" {
            continue;
        }
        let ours =
            ["overlay", "proc", "tmpfs", "devpts"].contains(&kind) && !place.starts_with("/dev/");
        // Of what is the host's, the place on which disk is the host's business.
        let (kind, root) =
            if ours || place == "/dev/pts" { (kind, root) } else { ("of the host", "") };
        // How access times are kept is taken from the host's mount.
        let mut options: Vec<_> =
            options.split(',').filter(|one| !one.ends_with("atime")).collect();
        if kind == "of the host" {
            options.retain(|one| ["ro", "rw"].contains(one));
        }
        let shown =
            format!("{place} {kind} {root} {} {}", options.join(","), propagation.join(" "));
        all.push(shown.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    // Their order is that in which they were made, which is all one.
    all.sort();
    all.iter().for_each(|line| say("mounts", line));
}
