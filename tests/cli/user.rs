//! `--user`: a passwd of the layer that means ill, or is none, makes nobody root and is named as what is wrong.

use crate::common::Env;

#[test]
fn a_passwd_that_means_ill_makes_nobody_root() {
    let env = Env::filled();
    let lines = "evil:x:+0:0::/root:/bin/sh\nhex:x:0x0:0::/:\nnone:x::0::/:\ngid:x:0:+0::/:";
    drop(env.line(&["--commit", "s"], &format!("printf '{lines}\\n' >>/etc/passwd")).run().ok());
    let run = |user: &str| env.line(&["--from", "s", "--user", user], "id -u").run();
    for user in ["evil", "hex", "none"] {
        let why = format!("user: {user}: its uid in the passwd inside is no number");
        drop(run(user).fault(125, &why, "--user UID:GID"));
    }
    drop(run("gid").fault(125, "user: gid: its gid in the passwd or group inside is no", ""));
    drop(run("nobody-there").fault(125, "not in the passwd or group inside", ""));
    drop(run("0").ok().stdout("0\n"));
    let fifo = "rm /etc/passwd; mkfifo /etc/passwd";
    drop(env.line(&["--from", "s", "--commit", "fifo"], fifo).run().ok());
    let run = env.line(&["--from", "fifo", "--user", "root"], "id -u").run();
    drop(run.fault(125, "user: root: /etc/passwd inside is no regular file", "--user UID:GID"));
}
