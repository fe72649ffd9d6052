//! /etc/subuid, /etc/passwd and uid_map: whatever stands there, the ranges exist.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::ids::Span;
use sandbox::ids::accounts::{Owner, account_ids, held, is_initial, ranges, ranges_of, user_name};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let owner = Owner { name: Some("bob"), uid: 1000 };
    let all = ranges(&text);
    for span in all.iter().chain(&held(&text)).chain(&ranges_of(&text, owner)) {
        assert!(span.count > 0 && span.end() <= u64::from(Span::LAST) + 1, "{span:?}");
    }
    assert!(ranges_of(&text, owner).len() <= all.len());
    let initial = is_initial(&text);
    assert!(!initial || held(&text).len() == 1 || !text.contains("0 0 4294967295"));
    let _name = user_name(&text, 1000);
    account_ids(&text).for_each(drop);
});
