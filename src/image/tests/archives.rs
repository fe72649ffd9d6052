//! Compression is told by content, and damage is told with the name of the file.

use std::fs;
use std::io::{Read, Write};

use super::*;
use crate::fault::Kind;
use crate::image::archive;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("write");
    encoder.finish().expect("finish")
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(data).expect("write");
    encoder.finish().expect("finish")
}

fn zst(data: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(data, 1).expect("encode")
}

fn read(data: &[u8]) -> Result<std::io::Result<Vec<u8>>> {
    let dir = temp();
    let path = dir.path().join("the-archive");
    fs::write(&path, data).expect("write");
    let mut input = archive::open(&path)?;
    let mut content = Vec::new();
    Ok(input.read_to_end(&mut content).map(|_| content))
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}

#[test]
fn each_compression_is_found_by_its_first_bytes() {
    let data = noise(300_000);
    let (half, rest) = data.split_at(123_456);
    let cases = [
        ("plain", data.clone()),
        ("gzip", gzip(&data)),
        ("gzip members", [gzip(half), gzip(rest)].concat()),
        ("xz", xz(&data)),
        ("xz streams", [xz(half), xz(rest)].concat()),
        ("zstd", zst(&data)),
        ("zstd frames", [zst(half), zst(rest)].concat()),
    ];
    for (what, packed) in cases {
        assert!(read(&packed).expect(what).expect(what) == data, "{what}");
    }
    assert_eq!(read(b"abc").expect("short").expect("short"), b"abc");
    assert_eq!(read(b"").expect("empty").expect("empty"), b"");
}

#[test]
fn damage_names_the_file() {
    let data = noise(300_000);
    for packed in [gzip(&data), xz(&data), zst(&data)] {
        let cut = &packed[..packed.len() - 20];
        let error = read(cut).expect("opens").expect_err("cut off");
        assert!(error.to_string().contains("the-archive: "), "{error}");
        let mut broken = packed.clone();
        let middle = broken.len() / 2;
        broken[middle..middle + 50].fill(0xaa);
        // zstd's default frames carry no checksum: noise in a raw block is noise.
        match read(&broken).expect("opens") {
            Err(error) => assert!(error.to_string().contains("the-archive: "), "{error}"),
            Ok(_) => assert_eq!(packed[..4], [0x28, 0xb5, 0x2f, 0xfd]),
        }
    }
}

#[test]
fn what_is_not_supported_is_said() {
    let fault = read(b"BZh91AY&SY").map(drop).expect_err("bzip2");
    assert!(fault.message.contains("the-archive") && fault.message.contains("bzip2"), "{fault}");
    let fault = archive::open(Path::new("/nowhere/x.tar")).map(drop).expect_err("missing");
    assert_eq!(fault.kind, Kind::NotFound);
    let fault = archive::open(Path::new("/")).map(drop).expect_err("directory");
    assert_eq!(fault.kind, Kind::Usage);
}

#[test]
fn a_compressed_archive_that_is_cut_off_names_its_file() {
    let dir = temp();
    let path = dir.path().join("cut.tar.gz");
    let packed = gzip(&Raw::default().file(b"f", &noise(100_000)).end());
    fs::write(&path, &packed[..packed.len() / 2]).expect("write");
    let mut input = archive::open(&path).expect("open");
    let (to, ids) = (temp(), own_ids());
    let fault = extract(&mut input, open(to.path()).as_fd(), &ids, &mut Vec::new());
    let fault = fault.expect_err("cut off");
    assert!(fault.message.contains("cut.tar.gz: the file ends too early"), "{fault}");
}
