//! /proc/self/cgroup and /proc/self/mountinfo, divided by a null byte: our cgroup lies beneath what is mounted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::isolate::cgroup::locate;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (cgroups, mounts) = text.split_once('\0').unwrap_or((&text, ""));
    if let Ok((own, top)) = locate(cgroups, mounts) {
        assert!(own.starts_with(&top), "{own:?} {top:?}");
    }
});
