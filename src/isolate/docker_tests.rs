//! The second reader: its conditions, its refusals, and its verdicts against those of runc and crun.

use super::super::bpf;
use super::super::compile::compile;
use super::super::seccomp::Request;
use super::*;

const DOCKER: &str = include_str!("../../tests/fixtures/seccomp/docker.json");
const PODMAN: &str = include_str!("../../tests/fixtures/seccomp/podman.json");

fn host(capabilities: u64) -> Host {
    Host { capabilities: CapSet(capabilities), machine: (Arch::X86_64, "amd64"), kernel: (6, 1) }
}

fn rules(text: &str, capabilities: u64) -> Vec<String> {
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{text}]}}"#);
    let seccomp = read(&text, &host(capabilities)).expect("valid");
    seccomp.syscalls.iter().flat_map(|rule| rule.names.clone()).collect()
}

#[test]
fn rules_hold_by_capability_machine_and_kernel() {
    let rule = |condition: &str| {
        format!(r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","comment":"",{condition}}}"#)
    };
    let (chown, kill) = (1, 1 << 5);
    for (condition, capabilities, holds) in [
        (r#""includes":{"caps":["CAP_CHOWN"]}"#, chown, true),
        (r#""includes":{"caps":["CAP_CHOWN"]}"#, kill, false),
        (r#""includes":{"caps":["CAP_CHOWN","CAP_KILL"]}"#, kill, false),
        (r#""includes":{"caps":["CAP_CHOWN","CAP_KILL"]}"#, kill | chown, true),
        (r#""excludes":{"caps":["CAP_CHOWN","CAP_KILL"]}"#, kill, false),
        (r#""excludes":{"caps":["CAP_CHOWN"]},"includes":{}"#, kill, true),
        (r#""excludes":{"caps":["CAP_CHOWN"]},"includes":{"caps":["CAP_CHOWN"]}"#, chown, false),
        (r#""includes":{"arches":["arm64","amd64"]}"#, 0, true),
        (r#""includes":{"arches":["s390","s390x"]}"#, 0, false),
        (r#""excludes":{"arches":["amd64"]}"#, 0, false),
        (r#""includes":{"minKernel":"4.8"}"#, 0, true),
        (r#""includes":{"minKernel":"6.1"}"#, 0, true),
        (r#""includes":{"minKernel":"6.10"}"#, 0, false),
        (r#""excludes":{"minKernel":"6.0"}"#, 0, false),
        (r#""includes":{"minKernel":""}"#, 0, true),
        (r#""includes":null,"excludes":null,"args":null"#, 0, true),
    ] {
        assert_eq!(!rules(&rule(condition), capabilities).is_empty(), holds, "{condition}");
    }
    assert_eq!(rules(r#"{"name":"read","names":[],"action":"SCMP_ACT_ALLOW"}"#, 0), ["read"]);
}

#[test]
fn kernels_are_compared_by_two_numbers() {
    assert_eq!(kernel_of_release("6.18.44-fc"), Some((6, 18)));
    assert_eq!(kernel_of_release("3.10-1-amd64"), Some((3, 10)));
    assert_eq!(kernel_of_release("linux"), None);
    for bad in ["", "4", "4.8.1", "4.x", "0.0", "-1.2", "4.300"] {
        assert!(kernel(bad).is_err(), "{bad}");
    }
}

#[test]
fn error_codes_have_names() {
    for (number, name, found) in [
        (None, Some("EPERM"), Ok(Some(1))),
        (Some(38), Some("ENOSYS"), Ok(Some(38))),
        (Some(22), None, Ok(Some(22))),
        (None, Some("ENOTSUP"), Ok(Some(95))),
        (None, Some(""), Ok(None)),
        (Some(1), Some("ENOSYS"), Err("ENOSYS is 38 and not 1")),
        (None, Some("EPRM"), Err("EPRM: no such error code")),
        (None, Some("UnknownErrno"), Err("UnknownErrno: no such error code")),
    ] {
        assert_eq!(errno(number, name), found.map_err(str::to_owned));
    }
}

#[test]
fn only_the_own_machines_architectures_are_taken() {
    let seccomp = read(DOCKER, &host(0)).expect("valid");
    assert_eq!(seccomp.architectures, [Arch::X86_64, Arch::X86, Arch::Other]);
    let arm = Host { machine: (Arch::Aarch64, "arm64"), ..host(0) };
    assert_eq!(read(PODMAN, &arm).expect("valid").architectures, [Arch::Aarch64, Arch::Arm]);
    let elsewhere = Host { machine: (Arch::Other, ""), ..host(0) };
    assert!(read(PODMAN, &elsewhere).is_ok());
}

#[test]
fn mistakes_are_refused() {
    let allow = r#""action":"SCMP_ACT_ALLOW""#;
    let equal = r#"{"index":1,"value":1,"op":"SCMP_CMP_EQ"}"#;
    // The same for libseccomp, which does not look at the second value.
    let equal_again = r#"{"index":1,"value":1,"valueTwo":3,"op":"SCMP_CMP_EQ"}"#;
    for bad in [
        "".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.to_owned(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x"}"#.to_owned(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"EWHAT"}"#.to_owned(),
        r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#.to_owned(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.to_owned(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X68"]}"#.to_owned(),
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":[]}]}"#
            .to_owned(),
        rule(&format!(r#"{{"name":"read","names":["write"],{allow}}}"#)),
        rule(&format!(r#"{{"names":["read"],{allow},"include":{{}}}}"#)),
        rule(&format!(r#"{{"names":["read"],{allow},"includes":{{"cap":[]}}}}"#)),
        rule(&format!(r#"{{"names":["read"],{allow},"includes":{{"caps":["CAP_CHWON"]}}}}"#)),
        rule(&format!(r#"{{"names":["read"],{allow},"excludes":{{"arches":["amd46"]}}}}"#)),
        rule(&format!(r#"{{"names":["read"],{allow},"errnoRet":1}}"#)),
        rule(&format!(
            r#"{{"names":["read"],{allow}}},{{"names":["read"],"action":"SCMP_ACT_LOG"}}"#
        )),
        rule(&format!(
            r#"{{"names":["read"],{allow},"args":[{equal}]}},
               {{"names":["read"],"action":"SCMP_ACT_LOG","args":[{equal_again}]}}"#
        )),
        rule(&vec![format!(r#"{{"names":["read"],{allow},"args":[{equal}]}}"#); 513].join(",")),
        rule(&format!(
            r#"{{"names":["read"],{allow},"args":[{{"index":6,"value":1,"op":"SCMP_CMP_EQ"}}]}}"#
        )),
    ] {
        let fault = read(&bad, &host(0)).and_then(|seccomp| compile(&seccomp, &Request::default()));
        let fault = fault.expect_err(&bad);
        assert_eq!(fault.kind, crate::fault::Kind::Usage, "{bad}");
        assert!(!fault.message.contains('\n'), "{}", fault.message);
    }
}

fn rule(text: &str) -> String {
    format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{text}]}}"#)
}

/// Arguments that some rule asks for, or nearly so.
fn arguments() -> Vec<[u64; 6]> {
    let of_file = [0, 1, 2, 8, 9, 16, 17, 0x2_0000, 0x2_0008, 0x4_0000, u64::from(u32::MAX)];
    let flags = [0x11, 0x7e02_0000, 0x1000_0000, 0x3d_0f00, u64::MAX, 1 << 32, 0x10_0000_0010];
    let mut all = Vec::new();
    for first in of_file.into_iter().chain(flags) {
        for third in [0, 9, 9 | 1 << 32, 10] {
            all.push([first, 0, third, 0, 0, 0]);
            all.push([0, first, third, 0, 0, 0]);
        }
    }
    all
}

/// The programs that real runc and crun loaded (integration/seccomp/peers.sh) say the same as ours, but
/// where we always refuse; and but for what is newer than all that a file names, where crun gives the
/// default and runc and we ENOSYS.
#[cfg(target_arch = "x86_64")]
#[test]
fn verdicts_are_those_of_runc_and_crun() {
    let build = super::super::profile::Profile::builtin("build").expect("built in").capabilities;
    let request = Request::default();
    let floor = compile(&Seccomp::open(), &request).expect("compiles");
    for (file, text) in [("docker", DOCKER), ("podman", PODMAN)] {
        for (set, capabilities) in [("none", 0), ("build", build.0), ("all", CapSet::all().0)] {
            let seccomp = read(text, &host(capabilities)).expect("valid");
            let ours = compile(&seccomp, &request).expect("compiles");
            let peer = |runtime| {
                let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/seccomp");
                std::fs::read(format!("{dir}/{file}.{set}.{runtime}.bpf")).expect("fixture")
            };
            let (runc, crun) = (peer("runc"), peer("crun"));
            let of = |program: &[u8], arch, number, args| {
                bpf::verdict(program, arch, number, args).expect("a verdict")
            };
            let mut differ = Vec::new();
            for arch in [bpf::X86_64, bpf::I386] {
                let compare = |number, args, differ: &mut Vec<String>| {
                    let fixed = of(&floor, arch, number, args);
                    let ours = of(&ours, arch, number, args);
                    let expected =
                        |peer| if fixed == ALLOW { of(peer, arch, number, args) } else { fixed };
                    let newest = [(bpf::X86_64, 448), (bpf::I386, 448)];
                    let newer = newest.contains(&(arch, number)) || number > 448;
                    if ours != expected(&runc) || (ours != expected(&crun) && !newer) {
                        let (runc, crun) = (expected(&runc), expected(&crun));
                        differ.push(format!(
                            "{arch:x} {number} {args:x?}: {ours:x} {runc:x} {crun:x}"
                        ));
                    }
                };
                for number in (0..1100).chain([0x3fff_ffff]) {
                    compare(number, [0; 6], &mut differ);
                }
                // clone, socket, personality, socketpair, ioctl, unshare of both.
                for number in [56, 41, 135, 53, 16, 272, 120, 359, 136, 360, 54, 310] {
                    for args in arguments() {
                        compare(number, args, &mut differ);
                    }
                }
            }
            assert!(differ.is_empty(), "{file} {set}: {}\n{}", differ.len(), differ.join("\n"));
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;
