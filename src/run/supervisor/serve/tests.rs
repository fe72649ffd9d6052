use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};

use super::super::held::needed;
use super::super::output::Log;
use super::*;

/// Serves a run whose descriptors come later, and connects to it.
fn served(needed: Vec<Held>) -> (Server, OwnedFd) {
    let folder = tempfile::tempdir().unwrap();
    let address = rustix::net::SocketAddrUnix::new(folder.path().join("sock")).unwrap();
    let socket = || {
        let flags = SocketFlags::CLOEXEC;
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    };
    let (listener, client) = (socket(), socket());
    bind(&listener, &address).unwrap();
    listen(&listener, 8).unwrap();
    connect(&client, &address).unwrap();
    let file = || OwnedFd::from(tempfile::tempfile().unwrap());
    let output = Output::pipes(Log::new(file(), 1 << 20), None, None).unwrap();
    let run = RunId::random().unwrap();
    (Server::new(run, listener, file(), output, file(), needed).unwrap(), client)
}

/// The names of what somebody has got who asked to join; none if he waits still.
fn got(client: &OwnedFd) -> Option<Vec<Held>> {
    rustix::io::ioctl_fionbio(client, true).unwrap();
    match super::super::protocol::hear::<Reply>(client.as_fd()) {
        Ok(Some((Reply::Joined(what), fds))) => {
            assert_eq!(what.len(), fds.len());
            Some(what)
        }
        Err(Errno::AGAIN) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_joins_before_all_is_there() {
    for own_network in [true, false] {
        let all = needed(own_network);
        let (mut server, client) = served(all.clone());
        super::super::protocol::tell(client.as_fd(), &Request::Join, &[]).unwrap();
        let turn = |server: &mut Server| {
            // He is taken, and then heard.
            for _ in 0..2 {
                assert!(server.turn(&mut |_| Ok(())).unwrap().is_empty());
            }
        };
        for what in &all {
            turn(&mut server);
            assert_eq!(got(&client), None, "before {what:?}");
            server.hold(*what, tempfile::tempfile().unwrap().into());
        }
        let whole: Vec<_> = [Held::Confinement].into_iter().chain(all.clone()).collect();
        assert_eq!(got(&client), Some(whole));
    }
}
