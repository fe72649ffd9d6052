//! What may stand after `--from`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::fault::Kind;
use crate::image::Source;
use crate::image::mmdebstrap::{Writer, command};

#[test]
fn each_form_is_read_and_shown_again() {
    for (text, expected) in [
        ("scratch", Source::Scratch),
        ("tar:a b.tar", Source::Tar(PathBuf::from("a b.tar"))),
        ("./scratch", Source::Directory(PathBuf::from("./scratch"))),
        ("/srv/root", Source::Directory(PathBuf::from("/srv/root"))),
        (
            "mmdebstrap:bookworm?include=a,libc6:i386",
            Source::Mmdebstrap {
                suite: "bookworm".into(),
                include: vec!["a".into(), "libc6:i386".into()],
            },
        ),
    ] {
        let found: Source = text.parse().expect(text);
        assert_eq!(found, expected);
        assert_eq!(found.to_string(), text);
    }
    let odd = Source::Directory(PathBuf::from("tar:x"));
    assert_eq!(odd.to_string().parse::<Source>().expect("parse").to_string(), "./tar:x");
}

#[test]
fn what_is_no_source_is_a_matter_of_usage() {
    for text in [
        "",
        "tar:",
        "oci:dir",
        "docker://alpine",
        "http://x/y",
        "mmdebstrap:",
        "mmdebstrap:--help",
        "mmdebstrap:sid?include=--x",
        "mmdebstrap:sid?include=",
        "mmdebstrap:sid?variant=x",
        "mmdebstrap:a b",
    ] {
        assert_eq!(text.parse::<Source>().expect_err(text).kind, Kind::Usage);
    }
}

#[test]
fn identity_is_of_the_place_and_not_of_the_text() {
    let dir = temp();
    fs::write(dir.path().join("x.tar"), "").expect("write");
    fs::create_dir(dir.path().join("d")).expect("mkdir");
    let identity = |text: String| text.parse::<Source>().and_then(|source| source.identity());
    let root = dir.path().display().to_string();
    let plain = identity(format!("tar:{root}/x.tar")).expect("identity");
    assert_eq!(identity(format!("tar:{root}/d/../x.tar")).expect("identity"), plain);
    assert_eq!(
        identity("mmdebstrap:sid?include=b,a".into()),
        identity("mmdebstrap:sid?include=a,b".into())
    );
    assert_eq!(identity(format!("{root}/none")).expect_err("missing").kind, Kind::NotFound);
    assert_eq!(identity(format!("{root}/x.tar")).expect_err("a file").kind, Kind::Usage);
    assert_eq!(identity(format!("tar:{root}/d")).expect_err("a directory").kind, Kind::Usage);
}

#[test]
fn mmdebstrap_is_told_what_it_needs_and_nothing_else() {
    let outside = command("sid", &["a".into(), "b".into()], Path::new("/h"), None);
    let words: Vec<_> = outside.get_args().map(|word| word.to_string_lossy()).collect();
    let expected =
        ["--mode=unshare", "--variant=minbase", "--format=tar", "--include=a,b", "sid", "-"];
    assert_eq!(words, expected);
    let inside = command("sid", &[], Path::new("/h"), Some(Path::new("/t")));
    assert!(inside.get_args().all(|word| !word.to_string_lossy().starts_with("--include")));
    let temporary = ("TMPDIR".as_ref(), Some("/t".as_ref()));
    assert!(inside.get_envs().any(|found| found == temporary));
    assert!(inside.get_envs().all(|(name, _)| name != "SSH_AUTH_SOCK"));
}

#[test]
fn a_failing_program_tells_its_last_words() {
    let mut writer =
        Writer::start(Command::new("sh").args(["-c", "echo first; echo why >&2; exit 3"]))
            .expect("start");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut writer.output().expect("pipe"), &mut said).expect("read");
    assert_eq!(said, "first\n");
    let fault = writer.finish().expect_err("exit 3");
    assert!(fault.message.contains("exit status: 3: why"), "{fault}");
    let fault = Writer::start(&mut Command::new("/nowhere/mmdebstrap")).expect_err("missing");
    assert_eq!(fault.kind, Kind::Host);
    assert!(fault.hint.is_some_and(|hint| hint.contains("install mmdebstrap")));
}
