//! An archive of anybody's: extracted, it touches nothing but its target, whatever it says.

#![no_main]

use std::fs;
use std::os::fd::AsFd;

use libfuzzer_sys::fuzz_target;
use sandbox::ids::{Extent, IdMap, Mode};
use sandbox::image::{archive, tar};

fuzz_target!(|data: &[u8]| {
    let outer = tempfile::tempdir_in("/dev/shm").expect("directory");
    let target = outer.path().join("target");
    fs::create_dir(&target).expect("target");
    fs::write(outer.path().join("canary"), "untouched").expect("canary");
    let root = fs::File::open(&target).expect("target");
    let only = |outside| vec![Extent { inside: 0, outside, count: 1 }];
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let map = IdMap::new(Mode::Single, only(uid), only(gid)).expect("map");
    let mut owners = Vec::new();
    // By its first bytes it may be compressed: a bomb is only as large as the input allows here.
    let data = data.to_vec();
    if let Ok(mut plain) = archive::decompress(std::io::Cursor::new(data), "fuzz") {
        let mut limited = std::io::Read::take(&mut plain, 1 << 20);
        drop(tar::extract(&mut limited, root.as_fd(), &map, &mut owners));
    }
    assert_eq!(fs::read_to_string(outer.path().join("canary")).expect("canary"), "untouched");
    assert_eq!(fs::read_dir(outer.path()).expect("list").count(), 2);
});
