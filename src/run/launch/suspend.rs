//! ^Z: what stops the command of a terminal stops us, so that whoever has started us gets the terminal back, and what
//! continues us continues it. And where we are in the background of a terminal, it is left alone.

use std::os::fd::AsFd;
use std::time::Duration;

use super::super::signals::Stops;
use super::super::spec::RunSpec;
use super::super::terminal::{RawMode, Relay, controls_us, is_in_front, standard};
use super::super::wire::{Down, send_down};
use super::{NixSignal, Supervisor};
use crate::fault::{Context, Result};

/// How often one in the background looks whether it is in front again: a shell's `fg` sends no signal to what runs already.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// Sets the terminal raw if that is to be relayed, and is ours to set now.
pub(super) fn enter_raw_mode(spec: &RunSpec) -> Result<Option<RawMode>> {
    match &spec.terminal {
        Some(terminal) if terminal.replaces[0] && !spec.stays && is_in_front(standard(0)) => {
            RawMode::enter().map(Some).context("set raw mode", "the terminal")
        }
        _ => Ok(None),
    }
}

impl Supervisor {
    /// Whether there is a terminal that we would relay if we were not in the background of it.
    pub(super) fn is_behind(&self) -> bool {
        self.raw.is_none() && self.relay.as_ref().is_some_and(Relay::has_input)
    }

    /// Takes the terminal again if we are in front of it again. One that is gone is not, and no fault of the command.
    pub(super) fn come_to_front(&mut self, spec: &RunSpec) {
        if self.is_behind() && is_in_front(standard(0)) {
            self.raw = enter_raw_mode(spec).ok().flatten();
            self.resize();
        }
    }

    pub(super) fn resize(&self) {
        if let Some(relay) = &self.relay {
            relay.resize();
        }
    }

    /// SIGTSTP from outside. A command whose stopping is told to us takes us along then.
    pub(super) fn stop_with(&mut self, spec: &RunSpec) {
        if spec.suspends() {
            self.stops = true;
        } else {
            self.signals.stop(Stops::Ourselves);
            self.renew_setup(spec);
            self.go_on();
        }
    }

    /// The command has stopped. Returns when we have been continued, or at once where nobody could do that. All that the
    /// caller has in our group is stopped by a key that was typed to us, and by nothing else: a command stops itself, and us.
    /// In the background, and at a terminal that is not the caller's, it stops nobody else.
    pub(super) fn suspend(&mut self, spec: &RunSpec) {
        let typed = self.relay.as_mut().is_some_and(Relay::was_told_to_stop);
        let front = self.raw.is_some() && controls_us(standard(0));
        let whom = match (std::mem::take(&mut self.stops), front) {
            (false, false) => return,
            (false, true) if typed => Stops::Group,
            _ => Stops::Ourselves,
        };
        if let Some(relay) = &mut self.relay {
            relay.show_output();
        }
        // Its keeper goes, too: it would not know what the terminal has become meanwhile.
        self.raw = None;
        self.signals.stop(whom);
        self.renew_setup(spec);
        self.come_to_front(spec);
        // What is to end the command comes before it goes on, or it may have stopped again when that comes.
        self.pass_signals(spec);
        self.go_on();
    }

    fn go_on(&self) {
        send_down(self.wire.as_fd(), Down::SignalGroup(NixSignal::SIGCONT as i32)).ok();
    }
}
