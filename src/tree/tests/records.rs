//! The file of remembered owners and the JSON of paths.

use crate::fault::Kind;
use crate::tree::owners::{Device, DeviceClass, Remembered, read, settle, write};
use crate::tree::{Change, ChangeKind, FileType};

fn owned(path: &[u8], uid: u32) -> Remembered {
    Remembered { path: path.to_vec(), uid: Some(uid), ..Remembered::default() }
}

#[test]
fn is_written_sorted_and_read_back() {
    let device = Device { class: DeviceClass::Char, major: 1, minor: 3 };
    let null = Remembered {
        path: b"dev/null".to_vec(),
        mode: Some(0o666),
        device: Some(device),
        ..Remembered::default()
    };
    let nothing = Remembered { path: b"b".to_vec(), ..Remembered::default() };
    let mut entries = vec![owned(b"z", 1), owned(b"a\xff", 2), null, nothing, owned(b"z", 3)];
    settle(&mut entries);
    let mut file = Vec::new();
    write(&entries, &mut file).expect("write");
    let text = String::from_utf8(file.clone()).expect("text");
    let expected = concat!(
        "{\"path_bytes\":\"Yf8=\",\"uid\":2}\n",
        "{\"path\":\"dev/null\",\"mode\":438,",
        "\"device\":{\"type\":\"char\",\"major\":1,\"minor\":3}}\n",
        "{\"path\":\"z\",\"uid\":3}\n",
    );
    assert_eq!(text, expected);
    assert_eq!(read(&mut &file[..]).expect("read"), entries);
}

#[test]
fn damage_is_told_with_its_line() {
    for text in [
        "{\"path\":\"b\",\"uid\":1}\n{\"path\":\"a\",\"uid\":1}\n",
        "{\"path\":\"a\",\"uid\":1}\n{\"uid\":1}\n",
        "{\"path\":\"a\",\"uid\":1}\n{\"path\":\"b\",\"path_bytes\":\"Yg==\"}\n",
        "{\"path\":\"a\",\"uid\":1}\nnothing\n",
    ] {
        let fault = read(&mut text.as_bytes()).expect_err("damaged");
        assert_eq!(fault.kind, Kind::Damaged);
        assert!(fault.message.contains("line 2"), "{fault}");
    }
    assert!(write(&[owned(b"b", 1), owned(b"a", 1)], &mut Vec::new()).is_err());
}

#[test]
fn changes_have_the_documented_form() {
    let change = Change {
        path: b"etc/x".to_vec(),
        kind: ChangeKind::Metadata,
        file_type: FileType::Symlink,
    };
    let text = serde_json::to_string(&change).expect("json");
    assert_eq!(text, "{\"path\":\"etc/x\",\"kind\":\"metadata\",\"type\":\"symlink\"}");
    let odd = Change { path: b"\xff".to_vec(), ..change };
    let text = serde_json::to_string(&odd).expect("json");
    assert!(text.starts_with("{\"path_bytes\":\"/w==\""), "{text}");
    assert_eq!(serde_json::from_str::<Change>(&text).expect("json"), odd);
}
