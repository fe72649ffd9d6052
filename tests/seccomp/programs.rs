//! Real programs under each filter, capabilities and network of a fresh user namespace, and times.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::isolate::caps::{self, CapSet};
use sandbox::isolate::net::loopback_up;
use sandbox::isolate::profile::Profile;
use sandbox::isolate::seccomp::program;
use sandbox::sys::process::{NEW_NET, NEW_USER, Side, clone, exit_now};
use sandbox::sys::seccomp::load;

use crate::{NESTING, PLAIN, SINGLE, filter, forked};

/// Runs a shell line under a filter.
fn shell(name: &str, program: &[u8], line: &str) -> Option<String> {
    let dir = tempfile::tempdir().expect("directory");
    let program = program.to_vec();
    let mut command = Command::new("/bin/sh");
    command.args(["-ec", line]).current_dir(dir.path()).env("HOME", dir.path());
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null());
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::thread::set_no_new_privs(true)?;
            Ok(load(&program)?)
        });
    }
    let output = command.output().expect("start");
    let told = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("{name}: {line}: {}: {told}", output.status))
}

pub(crate) fn programs() -> Vec<String> {
    let lines = [
        ("/bin/sh", "echo $(id -u) | cat; (sleep 0 &) ; test -d /"),
        ("/bin/ls", "ls -laR /usr/share/perl5 > /dev/null || ls -la /; cp -a /etc/passwd x; mv x y; rm y; mkfifo f"),
        ("/usr/bin/tar", "echo a > a; tar cf t.tar a; tar tf t.tar; tar --no-same-owner -xf t.tar"),
        (
            "/usr/bin/python3",
            "/usr/bin/python3 -c 'import threading,subprocess,socket,tempfile,multiprocessing as m,os
t=threading.Thread(target=lambda:subprocess.check_call([\"true\"]));t.start();t.join()
subprocess.run([\"true\"],close_fds=False,check=True)
socket.socketpair();socket.getaddrinfo(\"127.0.0.1\",1);tempfile.TemporaryFile()
m.get_context(\"fork\").Pool(2).map(abs,[1,2]);os.memfd_create(\"x\")'",
        ),
        ("/usr/bin/perl", "perl -MPOSIX -e 'my $p=fork; if(!$p){POSIX::_exit(0)} waitpid($p,0); open(F,\"|cat\")||die; close F'"),
        ("/usr/bin/gcc", "echo 'int main(){return 0;}' > a.c; gcc -O2 -pipe a.c -o a; ./a"),
        ("/usr/bin/node", "node -e 'const c=require(\"child_process\");c.execFileSync(\"true\");new (require(\"worker_threads\").Worker)(\"0\",{eval:true});require(\"fs\").promises.readFile(\"/etc/passwd\")'"),
        ("/usr/bin/java", "java -version"),
        ("/usr/bin/git", "git init -q r; cd r; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x"),
        ("/usr/bin/dpkg", "dpkg -l > /dev/null; dpkg-query -W base-files > /dev/null"),
        ("/usr/bin/rpm", "rpm --dbpath $PWD/db --initdb; rpm --dbpath $PWD/db -qa"),
        ("/usr/bin/apt-get", "apt-cache policy > /dev/null; apt-get --version > /dev/null"),
        // Written in Go, linked statically.
        ("/usr/local/bin/docker", "docker --version"),
    ];
    let mut wrong = Vec::new();
    for (profile, request) in
        [("build", PLAIN), ("build", SINGLE), ("build", NESTING), ("dev", PLAIN), ("strict", PLAIN)]
    {
        let program = filter(profile, request);
        let present = lines.iter().filter(|(binary, _)| Path::new(binary).exists());
        wrong.extend(present.filter_map(|(_, line)| shell(profile, &program, line)));
    }
    let build = filter("build", PLAIN);
    let nesting = filter("build", NESTING);
    for (binary, filter, line) in [
        ("/usr/bin/strace", &filter("dev", PLAIN), "strace -f -o log true; test -s log"),
        ("/usr/bin/strace", &build, "! strace -o log true"),
        ("/usr/bin/unshare", &nesting, "unshare -Urmpf mount -t tmpfs none /mnt"),
        ("/usr/bin/unshare", &build, "! unshare -Ur true"),
        ("/usr/bin/setarch", &build, "setarch x86_64 true; ! setarch -R true"),
    ] {
        if Path::new(binary).exists() {
            wrong.extend(shell("one profile", filter, line));
        }
    }
    wrong
}

pub(crate) fn capabilities_and_loopback() -> Vec<String> {
    let set = Profile::builtin("build").expect("built in").capabilities;
    let last = caps::last_cap();
    forked(|| {
        let Ok(Side::Child) = clone(NEW_USER | NEW_NET).inspect(|side| {
            if let Side::Parent { pidfd, .. } = side {
                let ends = rustix::process::WaitIdOptions::EXITED;
                let waited =
                    rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), ends);
                let status = waited.ok().flatten().and_then(|status| status.exit_status());
                exit_now(status.unwrap_or(99));
            }
        }) else {
            return vec!["no user namespace".to_owned()];
        };
        confined(set, last)
    })
}

/// In a fresh user and network namespace: what is wrong.
fn confined(set: CapSet, last: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Err(errno) = loopback_up() {
        wrong.push(format!("loopback: {errno}"));
    }
    let reached = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| TcpStream::connect(listener.local_addr()?).map(|_| ()));
    if let Err(error) = reached {
        wrong.push(format!("connect to 127.0.0.1: {error}"));
    }
    if let Err(errno) = caps::apply(set, last) {
        wrong.push(format!("apply: {errno}"));
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    for (field, value) in
        [("CapInh", 0), ("CapPrm", set.0), ("CapEff", set.0), ("CapBnd", set.0), ("CapAmb", 0)]
    {
        let line = format!("{field}:\t{value:016x}");
        if !status.contains(&line) {
            wrong.push(format!("not found: {line}"));
        }
    }
    wrong
}

/// Prints how long each program takes to compile, to fetch from the cache and to load.
pub(crate) fn times() -> Vec<String> {
    let dir = tempfile::tempdir().expect("directory");
    let handle = std::fs::File::open(dir.path()).expect("open");
    for (name, request) in [("build", PLAIN), ("build", SINGLE), ("dev", PLAIN), ("strict", PLAIN)]
    {
        let start = Instant::now();
        let profile = Profile::builtin(name).expect("built in");
        let parsed = start.elapsed();
        let start = Instant::now();
        let code = program(&profile, &request, handle.as_fd()).expect("compiles");
        let missed = start.elapsed();
        let hit = least(|| {
            program(&profile, &request, handle.as_fd()).expect("hit");
        });
        let parse = least(|| drop(Profile::builtin(name).expect("built in")));
        let loading = forked(|| {
            rustix::thread::set_no_new_privs(true).expect("no_new_privs");
            vec![format!("{:?}", least(|| load(&code).expect("load")))]
        });
        println!(
            "    {name} {request:?}: {} instructions; parse {parsed:?} then {parse:?}, \
             compile {missed:?}, hit {hit:?}, load {}",
            code.len() / 8,
            loading.join(" ")
        );
    }
    Vec::new()
}

fn least(mut job: impl FnMut()) -> Duration {
    let once = |()| {
        let start = Instant::now();
        job();
        start.elapsed()
    };
    std::iter::repeat_n((), 20).map(once).min().unwrap_or_default()
}
