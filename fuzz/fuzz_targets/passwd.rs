//! `--user`, /etc/passwd and /etc/group of a layer, divided by null bytes: nobody becomes the id that means "stay who
//! you are".

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::run::user::{Who, look_up, parse};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(3, '\0');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (user, passwd, group) = (next(), next(), next());
    let Ok(user) = parse(&user) else { return };
    if let Ok(found) = look_up(&user, Ok(passwd), || Ok(group)) {
        assert!(found.uid != u32::MAX && found.gid != u32::MAX);
        assert!(found.groups.iter().all(|gid| *gid != u32::MAX));
        assert!(user.user == Who::Id(found.uid) || matches!(user.user, Who::Name(_)));
        assert!(found.home.is_none_or(|home| home.starts_with('/')));
    }
});
