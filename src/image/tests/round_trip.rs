//! Random trees through an archive of the `tar` crate and back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Node {
    File { content: Vec<u8>, mode: u32, mtime: u64 },
    Link(String),
    Dir { mode: u32, below: BTreeMap<String, Self> },
}

fn node() -> impl Strategy<Value = Node> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2_000),
        (0_usize..200_000).prop_map(|len| vec![0; len]),
    ];
    let file = (content, 0_u32..0o10000, 0_u64..1 << 33)
        .prop_map(|(content, mode, mtime)| Node::File { content, mode, mtime });
    let leaf = prop_oneof![4 => file, 1 => "[a-z./]{1,150}".prop_map(Node::Link)];
    leaf.prop_recursive(4, 40, 6, |inner| {
        (0_u32..0o10000, prop::collection::btree_map("[a-zA-Zäß .-]{1,60}", inner, 0..6))
            .prop_map(|(mode, below)| Node::Dir { mode, below })
    })
}

fn pack(out: &mut tar::Builder<Vec<u8>>, path: &str, node: &Node) {
    let mut header = Header::new_gnu();
    header.set_uid(me().0.into());
    header.set_gid(me().1.into());
    match node {
        Node::File { content, mode, mtime } => {
            header.set_mode(*mode);
            header.set_mtime(*mtime);
            header.set_size(content.len() as u64);
            out.append_data(&mut header, path, &content[..]).expect("append");
        }
        Node::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            out.append_link(&mut header, path, target).expect("append");
        }
        Node::Dir { mode, below } => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(*mode);
            header.set_size(0);
            out.append_data(&mut header, path, &[][..]).expect("append");
            for (name, node) in below {
                pack(out, &format!("{path}/{name}"), node);
            }
        }
    }
}

/// Compares, opening up modes that deny a plain user after having looked at them.
fn check(path: &Path, node: &Node) {
    let stat = fs::symlink_metadata(path).expect("stat");
    let open_up = |mode: u32| {
        let all = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, all).expect("chmod");
    };
    match node {
        Node::File { content, mode, mtime } => {
            assert_eq!(stat.mode() & 0o7777, *mode);
            assert_eq!(stat.mtime(), mtime.cast_signed());
            open_up(0o600);
            assert!(fs::read(path).expect("read") == *content);
        }
        Node::Link(target) => {
            assert_eq!(fs::read_link(path).expect("link"), Path::new(target));
        }
        Node::Dir { mode, below } => {
            assert_eq!(stat.mode() & 0o7777, *mode);
            open_up(0o700);
            assert_eq!(fs::read_dir(path).expect("list").count(), below.len());
            for (name, node) in below {
                check(&path.join(name), node);
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    !matches!(name, "." | "..")
}

fn names_are_plain(node: &Node) -> bool {
    match node {
        Node::Dir { below, .. } => {
            below.iter().all(|(name, node)| is_name(name) && names_are_plain(node))
        }
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_goes_in_comes_out(top in prop::collection::btree_map("[a-z]{1,8}", node(), 1..5)) {
        prop_assume!(top.values().all(names_are_plain));
        let mut out = tar::Builder::new(Vec::new());
        for (name, node) in &top {
            pack(&mut out, name, node);
        }
        let archive = out.into_inner().expect("archive");
        let to = temp();
        unpack(&archive, to.path()).expect("extract");
        for (name, node) in &top {
            check(&to.path().join(name), node);
        }
    }

    #[test]
    fn noise_never_panics_and_never_gets_out(
        mut archive in Just(Raw::default()
            .dir(b"d", 0o755)
            .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
            .file(b"d/f", &[1; 700])
            .symlink(b"l", b"d")
            .link(EntryType::Link, b"h", b"d/f")
            .end()),
        noise in prop::collection::vec((0_usize..6_000, any::<u8>()), 1..8),
    ) {
        let len = archive.len();
        for (place, byte) in noise {
            archive[place % len] = byte;
        }
        // Valid checksums let the noise reach the code behind them.
        for block in archive.chunks_exact_mut(512) {
            if &block[257..262] == b"ustar" {
                let mut header = Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        let outer = temp();
        let target = outer.path().join("target");
        fs::create_dir(&target).expect("target");
        drop(unpack(&archive, &target));
        prop_assert_eq!(fs::read_dir(outer.path()).expect("list").count(), 1);
    }
}
