//! Files of a store that somebody else may have written: the first byte says which.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox::store::{
    BoxName, BoxRecord, LayerId, LayerRecord, LogEntry, RefRecord, RunId, RunRecord, SnapshotName,
};
use sandbox::tree::{manifest, owners};

/// What can be read can be written, and means the same.
macro_rules! round_trip {
    ($record:ty, $data:expr) => {
        if let Ok(record) = serde_json::from_slice::<$record>($data) {
            let text = serde_json::to_string(&record).expect("a record that was read");
            let again: $record = serde_json::from_str(&text).expect("what we have written");
            assert_eq!(serde_json::to_string(&again).expect("the same"), text);
        }
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((which, data)) = data.split_first() else { return };
    match which % 8 {
        0 => round_trip!(LayerRecord, data),
        1 => round_trip!(BoxRecord, data),
        2 => round_trip!(RefRecord, data),
        3 => round_trip!(RunRecord, data),
        4 => round_trip!(LogEntry, data),
        5 => drop(manifest::read_lines(data)),
        6 => {
            if let Ok(read) = owners::read(&mut std::io::BufReader::new(data)) {
                let mut written = Vec::new();
                owners::write(&read, &mut written).expect("memory");
                let again = owners::read(&mut written.as_slice()).expect("what we have written");
                assert_eq!(again.len(), read.len());
            }
        }
        _ => {
            let Ok(text) = str::from_utf8(data) else { return };
            for plain in [
                text.parse::<SnapshotName>().is_ok(),
                text.parse::<BoxName>().is_ok(),
                text.parse::<LayerId>().is_ok(),
                text.parse::<RunId>().is_ok(),
            ] {
                // Whatever is a name is one component of a path, and no hidden one.
                assert!(!plain || !text.is_empty() && !text.contains(['/', '\0', '\n']));
                assert!(!plain || !text.starts_with(['.', '-']) && text.len() <= 128);
            }
        }
    }
});
