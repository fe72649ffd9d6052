//! The side of the supervisor: who is connected, and what each of them gets.

mod end;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::client::{Client, State};
use super::held::Held;
use super::output::Output;
use super::protocol::{PACKET, Reply, Request, Typed, Verdict};
use crate::fault::{Fault, Result};
use crate::run::moments::Order;
use crate::run::outcome::Reason;
use crate::store::RunId;

/// More than these are sent away: each takes a descriptor.
const MOST_CLIENTS: usize = 200;

const LISTENER: u64 = 0;
const FROM: u64 = 1;
const TO: u64 = 2;
const FIRST: u64 = 3;

/// Says whether a run may be stopped with this verdict.
pub type Judge<'a> = &'a mut dyn FnMut(&Verdict) -> Result<()>;

/// What a supervisor that is asked has.
#[derive(Debug)]
pub struct Server {
    run: RunId,
    epoll: OwnedFd,
    listener: OwnedFd,
    /// By the number that epoll knows them by.
    clients: BTreeMap<u64, Client>,
    next: u64,
    held: Vec<(Held, OwnedFd)>,
    /// What must be in it before anybody gets it: it comes one by one.
    needed: Vec<Held>,
    output: Output,
    /// The log once more, for those who read it.
    log: OwnedFd,
    /// What epoll waits for on the output's descriptors.
    watched: [Option<PollFlags>; 2],
    verdict: Option<Verdict>,
}

impl Server {
    /// Serves a run on a socket that listens. `log` is its log, open for reading; nobody joins before all of `needed` is
    /// held.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new(
        run: RunId,
        listener: OwnedFd,
        log: OwnedFd,
        output: Output,
        confinement: OwnedFd,
        needed: Vec<Held>,
    ) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let mut server = Self {
            run,
            epoll,
            listener,
            clients: BTreeMap::new(),
            next: FIRST,
            held: vec![(Held::Confinement, confinement)],
            needed,
            output,
            log,
            watched: [None, None],
            verdict: None,
        };
        server.watch();
        Ok(server)
    }

    /// Becomes readable when [`Server::turn`] has something to do.
    pub fn waits_for(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Keeps a descriptor for those who join.
    pub fn hold(&mut self, what: Held, fd: OwnedFd) {
        self.held.push((what, fd));
        if self.is_whole() {
            let joining = self.clients.iter().filter(|(_, one)| one.state == State::Joining);
            let joining: Vec<u64> = joining.map(|(number, _)| *number).collect();
            for number in joining {
                let state = self.let_in(number);
                if let Some(client) = self.clients.get_mut(&number) {
                    client.state = state;
                }
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.needed.iter().all(|needed| self.held.iter().any(|(what, _)| what == needed))
    }

    /// Hands all of it to one who joins, once it is all there.
    fn let_in(&self, number: u64) -> State {
        if !self.is_whole() {
            return State::Joining;
        }
        let what = self.held.iter().map(|(what, _)| *what).collect();
        let fds: Vec<_> = self.held.iter().map(|(_, fd)| fd.as_fd()).collect();
        self.tell(number, &Reply::Joined(what), &fds);
        State::Joined
    }

    /// The command has a terminal.
    ///
    /// # Errors
    /// As [`Output::use_terminal`].
    pub fn use_terminal(&mut self, master: OwnedFd) -> Result<(), Errno> {
        self.output.use_terminal(master)?;
        self.watch();
        Ok(())
    }

    /// Whether the command has written more than it may.
    pub fn is_over(&self) -> bool {
        self.output.is_over()
    }

    /// What becomes of the changes, if somebody has stopped the run.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Does what there is to do now, and says what is to be done to the run.
    ///
    /// # Errors
    /// What epoll_wait(2) says.
    pub fn turn(&mut self, judge: Judge<'_>) -> Result<Vec<Order>, Errno> {
        let mut events: Vec<Event> = Vec::with_capacity(32);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec::default())) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut orders = Vec::new();
        for event in events {
            let flags = event.flags;
            match event.data.u64() {
                // One a turn: there are others.
                LISTENER => _ = self.accept(),
                FROM => {
                    self.output.flush();
                    if self.output.take() {
                        self.poke();
                    }
                    if self.output.is_over() {
                        orders.push(Order::Cut(Reason::Output));
                    }
                }
                TO if flags.contains(EventFlags::ERR) => self.output.close_input(),
                TO => self.output.flush(),
                // There is no room for what he types, so his end would not be read.
                number if flags.contains(EventFlags::HUP) && !self.output.has_room() => {
                    self.clients.remove(&number);
                }
                number => {
                    if let Err(_gone) = self.hear(number, judge, &mut orders) {
                        self.clients.remove(&number);
                    }
                }
            }
        }
        self.watch();
        Ok(orders)
    }

    /// Takes one who has connected; false if there is none.
    fn accept(&mut self) -> bool {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = accept_with(&self.listener, flags) else { return false };
        let Some(client) = Client::of(socket) else { return true };
        if self.clients.len() >= MOST_CLIENTS {
            let fault = Fault::busy(format!("ask run: {}: too many ask it at once", self.run));
            client.tell(&Reply::Fault(fault), &[]);
            return true;
        }
        let data = EventData::new_u64(self.next);
        if epoll::add(&self.epoll, client.socket(), data, EventFlags::IN).is_ok() {
            self.clients.insert(self.next, client);
            self.next += 1;
        }
        true
    }

    fn hear(
        &mut self,
        number: u64,
        judge: Judge<'_>,
        orders: &mut Vec<Order>,
    ) -> Result<(), Errno> {
        let Some(client) = self.clients.get(&number) else { return Ok(()) };
        if client.state == State::Attached {
            return self.typed(number, orders);
        }
        let Some(request) = client.request()? else { return Ok(()) };
        if client.state != State::Silent {
            // One connection asks one thing.
            return Err(Errno::PROTO);
        }
        self.answer(number, request, judge, orders)
    }

    /// EPIPE ends the connection.
    fn answer(
        &mut self,
        number: u64,
        request: Request,
        judge: Judge<'_>,
        orders: &mut Vec<Order>,
    ) -> Result<(), Errno> {
        let stays = match request {
            Request::Status => {
                let attached = self.clients.values().filter(|one| one.state == State::Attached);
                let (terminal, input) = (self.output.is_terminal(), self.output.takes_input());
                let status =
                    Reply::Status { run: self.run, terminal, input, attached: attached.count() };
                self.tell(number, &status, &[]);
                None
            }
            Request::Join => Some(self.let_in(number)),
            Request::Wait => Some(State::Waiting),
            Request::Kill { signal } => {
                orders.push(Order::Signal(signal));
                self.tell(number, &Reply::Done, &[]);
                None
            }
            Request::Stop { verdict, grace_ms } => match self.judge(verdict, judge) {
                Ok(()) => {
                    orders.push(Order::End(Duration::from_millis(grace_ms)));
                    Some(State::Waiting)
                }
                Err(fault) => {
                    self.tell(number, &Reply::Fault(fault), &[]);
                    None
                }
            },
            Request::Attach { .. } => {
                let (terminal, input) = (self.output.is_terminal(), self.output.takes_input());
                self.tell(number, &Reply::Attached { terminal, input }, &[self.log.as_fd()]);
                Some(State::Attached)
            }
        };
        match (stays, self.clients.get_mut(&number)) {
            (Some(state), Some(client)) => client.state = state,
            _ => return Err(Errno::PIPE),
        }
        Ok(())
    }

    fn tell(&self, number: u64, reply: &Reply, fds: &[BorrowedFd<'_>]) {
        if let Some(client) = self.clients.get(&number) {
            client.tell(reply, fds);
        }
    }

    fn judge(&mut self, verdict: Option<Verdict>, judge: Judge<'_>) -> Result<()> {
        let Some(verdict) = verdict else { return Ok(()) };
        if self.verdict.as_ref().is_some_and(|old| *old != verdict) {
            return Err(Fault::conflict(format!(
                "stop run: {}: it is being stopped in another way",
                self.run
            )));
        }
        judge(&verdict)?;
        self.verdict = Some(verdict);
        Ok(())
    }

    fn typed(&mut self, number: u64, orders: &mut Vec<Order>) -> Result<(), Errno> {
        let mut buffer = [0; PACKET];
        while self.output.has_room() {
            let Some(client) = self.clients.get_mut(&number) else { break };
            let Some(packet) = client.packet(&mut buffer)? else { break };
            match Typed::read(packet).ok_or(Errno::PROTO)? {
                Typed::Bytes(bytes) => self.output.give(bytes),
                Typed::End => self.output.give_end(),
                Typed::Size(rows, columns) => self.output.resize(rows, columns),
                Typed::Heard => client.has_heard(),
                Typed::Signal(number) => orders.push(Order::Signal(i32::from(number))),
            }
        }
        Ok(())
    }

    fn poke(&mut self) {
        let attached = self.clients.values_mut().filter(|one| one.state == State::Attached);
        attached.for_each(Client::poke);
    }

    /// Tells epoll what the output waits for now, and stops listening to those who type too much.
    fn watch(&mut self) {
        let room = self.output.has_room();
        for (at, (fd, flags)) in self.output.waits_for().into_iter().enumerate() {
            let wanted = fd.is_some().then_some(flags);
            if self.watched[at] == wanted {
                continue;
            }
            // A descriptor that is closed leaves epoll by itself.
            if let Some(fd) = fd {
                let data = EventData::new_u64(if at == 0 { FROM } else { TO });
                let flags = EventFlags::from_bits_truncate(u32::from(flags.bits()));
                let done = match self.watched[at] {
                    None => epoll::add(&self.epoll, fd, data, flags),
                    Some(_) => epoll::modify(&self.epoll, fd, data, flags),
                };
                done.ok();
            }
            self.watched[at] = wanted;
        }
        for (number, client) in &self.clients {
            if client.state == State::Attached {
                let flags = if room { EventFlags::IN } else { EventFlags::empty() };
                epoll::modify(&self.epoll, client.socket(), EventData::new_u64(*number), flags)
                    .ok();
            }
        }
    }
}
