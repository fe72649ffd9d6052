//! The end of a run that stays: who has joined lets go, who waits is told.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::super::client::{Client, State};
use super::super::protocol::{Ending, PACKET, Reply, Request};
use super::Server;
use crate::fault::{Fault, Result};

/// How long those who have joined may take to let go of a run that is over.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one may take who has just connected to say what for, or who was attached to make room.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

impl Server {
    /// The run is over: takes the last output, and lets go of the sandbox. Those who have joined it are told.
    ///
    /// # Errors
    /// Busy, with the processes that do not let go of it in time.
    pub fn close(&mut self) -> Result<()> {
        self.held.clear();
        self.output.take_last();
        self.poke();
        self.clients.retain(|_, one| one.state != State::Joined || !one.has_let_go());
        self.joined().for_each(Client::shut);
        let end = Instant::now() + PATIENCE;
        loop {
            let holders: Vec<_> = self.joined().filter(|one| !one.has_let_go()).collect();
            if holders.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                let pids: Vec<_> = holders.iter().map(|one| one.pid().to_string()).collect();
                let message = format!("end run: {}: held by process {}", self.run, pids.join(", "));
                return Err(Fault::busy(message));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn joined(&self) -> impl Iterator<Item = &Client> {
        self.clients.values().filter(|one| one.state == State::Joined)
    }

    /// A line of ours in the log, for those who read it later.
    pub fn note(&mut self, line: &str) {
        self.output.note(line);
    }

    /// Tells everybody who waits how it ended.
    pub fn finish(mut self, ending: &Ending) {
        while self.accept() {}
        let ended = Reply::Ended(short(ending));
        for client in self.clients.values() {
            match client.state {
                State::Waiting => client.tell(&ended, &[]),
                State::Attached => {
                    wait(client, PollFlags::OUT);
                    client.tell(&ended, &[]);
                }
                State::Joining => client.tell(&self.late(&Request::Join, ending, &ended), &[]),
                State::Joined => {}
                State::Silent => {
                    wait(client, PollFlags::IN);
                    if let Ok(Some(request)) = client.request() {
                        client.tell(&self.late(&request, ending, &ended), &[]);
                    }
                }
            }
        }
    }

    /// The answer to who has asked when it was over.
    fn late(&self, request: &Request, ending: &Ending, ended: &Reply) -> Reply {
        match request {
            Request::Wait | Request::Stop { verdict: None, .. } => ended.clone(),
            _ => {
                let fault = Fault::not_found(format!("ask run: {}: it has just ended", self.run));
                Reply::Fault(match ending.kept {
                    true => fault.hint(format!("it was kept: `sandbox shell --run {}`", self.run)),
                    false => fault.hint("`sandbox ps`"),
                })
            }
        }
    }
}

/// What fits into a packet: of too many messages the first.
fn short(ending: &Ending) -> Ending {
    let mut room = PACKET / 4;
    let mut short = ending.clone();
    short.messages.retain(|message| {
        let fits = message.len() <= room;
        room -= if fits { message.len() } else { room };
        fits
    });
    if let Some(fault) = &mut short.fault {
        fault.message = fault.message.chars().take(PACKET / 16).collect();
    }
    short
}

fn wait(client: &Client, flags: PollFlags) {
    let socket = client.socket();
    let mut fds = [PollFd::from_borrowed_fd(socket, flags)];
    while matches!(poll(&mut fds, Some(&MOMENT)), Err(Errno::INTR)) {}
}
