//! A profile of anybody's: refused in words, or a filter that allows nothing that is always refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::isolate::caps::CapSet;
use sandbox::isolate::docker;
use sandbox::isolate::profile::Profile;
use sandbox::isolate::seccomp::{Request, compiled};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(profile) = Profile::from_text("fuzz", text.to_owned()) {
        drop(compiled(&profile, &Request::default()));
    }
    drop(docker::read(text, &docker::Host::here(CapSet::NONE)));
});
