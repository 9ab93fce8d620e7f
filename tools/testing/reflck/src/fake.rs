// SPDX-License-Identifier: GPL-2.0

//! Fake hardware: functions without a device, which remember what the reflck asked of them, and a
//! machine that has them.

use crate::{
    reflck::{
        Address,
        ResetScope, //
    },
    reflck::{
        Event as ReflckEvent,
        Hardware,
        Membership,
        Owned,
        Registry,
        Unused, //
    },
};
use kernel::{
    alloc::live,
    prelude::*,
    sync::held, //
};
use std::{
    sync::{
        Arc,
        Mutex,
        MutexGuard, //
    },
    thread,
};

/// What the reflck has asked of the hardware.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// To reset the domain.
    Reset {
        /// The function that was asked.
        on: Address,
        scope: ResetScope,
        /// The functions said to be unused.
        members: Vec<Address>,
        /// How many of them were said to be dirty.
        dirty: usize,
    },
    /// To reset the domain for its user.
    HotReset {
        /// The function that was asked.
        on: Address,
        scope: ResetScope,
        members: Vec<Address>,
    },
    /// To take note that the domain cannot be reset.
    Deferred {
        /// The function that was told.
        on: Address,
        scope: ResetScope,
        /// The function that is in use.
        user: Address,
    },
}

/// What all functions of a machine share.
#[derive(Default)]
struct Wires {
    events: Vec<Event>,
    /// What has been traced, and when the domain was reset in between.
    traces: Vec<String>,
    /// How many of the next resets fail, and with which error.
    failing: Option<(usize, Error)>,
    /// How many functions there are.
    functions: usize,
    /// Called in every reset.
    during_reset: Option<Box<dyn FnMut() + Send>>,
}

/// A function. It exists until it is dropped, which the machine counts.
pub(crate) struct Fake {
    address: Address,
    wires: Arc<Mutex<Wires>>,
}

impl Fake {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap()
    }
}

impl Wires {
    /// The result of a reset.
    fn outcome(&mut self) -> Result {
        match &mut self.failing {
            Some((count @ 1.., error)) => {
                *count -= 1;
                Err(*error)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.wires().functions -= 1;
    }
}

impl Hardware for Fake {
    type Context = u8;

    type Failure = Error;

    fn address(&self) -> Address {
        self.address
    }

    fn reset_unused(&self, scope: &ResetScope, unused: &Unused<'_, Self>) -> Result {
        let members: Vec<_> = unused.iter().map(Hardware::address).collect();
        // What a test that has failed drops comes here too, and one panic is enough.
        if !thread::panicking() {
            assert_eq!(unused.len(), members.len());
            assert!(members.iter().all(|member| unused.contains(*member)));
            assert!(!unused.contains(STRANGER));
        }

        // Without the wires' lock: a hook that waits must not make other functions wait.
        let hook = self.wires().during_reset.take();
        if let Some(mut hook) = hook {
            hook();
            self.wires().during_reset = Some(hook);
        }

        let mut wires = self.wires();
        wires
            .traces
            .push(format!("{scope}, {}: reset", self.address));
        wires.events.push(Event::Reset {
            on: self.address,
            scope: *scope,
            members,
            dirty: unused.count_dirty(),
        });
        wires.outcome()
    }

    fn reset_owned(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        let members: Vec<_> = owned.iter().map(Hardware::address).collect();
        assert_eq!(owned.len(), members.len());
        assert!(!owned.contains(STRANGER));

        let hook = self.wires().during_reset.take();
        if let Some(mut hook) = hook {
            hook();
            self.wires().during_reset = Some(hook);
        }

        let mut wires = self.wires();
        wires.events.push(Event::HotReset {
            on: self.address,
            scope: *scope,
            members,
        });
        wires.outcome()
    }

    /// All functions of a device do.
    fn shares_iommu_group(&self, other: &Self) -> bool {
        self.address.devfn >> 3 == other.address.devfn >> 3
    }

    fn notify(&self, scope: &ResetScope, event: ReflckEvent<'_, Self>) {
        let (locked, text) = match event {
            ReflckEvent::Wait(purpose) => (None, format!("wait {purpose:?}")),
            ReflckEvent::Claim(purpose, waited) => {
                if !thread::panicking() {
                    assert!(waited.as_nanos() >= 0);
                }
                (Some("reflck"), format!("claim {purpose:?}"))
            }
            ReflckEvent::Settle { open, bound, dirty } => {
                let text = format!("settle open={open} bound={bound} dirty={dirty}");
                (Some("reflck"), text)
            }
            ReflckEvent::Deferred { user } => {
                self.wires().events.push(Event::Deferred {
                    on: self.address,
                    scope: *scope,
                    user,
                });
                return;
            }
            ReflckEvent::ResetFailed { .. } => return,
        };
        if !thread::panicking() {
            assert_eq!(held(), locked, "{text}");
        }

        let trace = format!("{scope}, {}: {text}", self.address);
        self.wires().traces.push(trace);
    }
}

/// Returns an address in the first segment.
pub(crate) const fn at(bus: u8, device: u8, function: u8) -> Address {
    Address {
        segment: 0,
        bus,
        devfn: (device << 3) | function,
    }
}

/// Returns the scope of a bus in the first segment.
pub(crate) const fn bus(bus: u8) -> ResetScope {
    ResetScope::Bus { segment: 0, bus }
}

/// Returns the scope of a slot in the first segment.
pub(crate) const fn slot(bus: u8, number: u16) -> ResetScope {
    ResetScope::Slot {
        segment: 0,
        bus,
        number,
    }
}

/// The address of a function that is never made.
const STRANGER: Address = at(0xff, 0x1f, 7);

/// A registry, and what its functions are wired to.
pub(crate) struct Machine {
    pub(crate) registry: kernel::sync::Arc<Registry<Fake>>,
    wires: Arc<Mutex<Wires>>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            registry: Registry::new().unwrap(),
            wires: Arc::default(),
        }
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap()
    }

    /// Makes a function.
    pub(crate) fn function(&self, address: Address) -> Fake {
        self.wires().functions += 1;

        Fake {
            address,
            wires: self.wires.clone(),
        }
    }

    /// Makes a function and has it join.
    pub(crate) fn join(&self, scope: ResetScope, address: Address) -> Membership<Fake> {
        self.registry.join(scope, self.function(address)).unwrap()
    }

    /// Lets the next `count` resets fail with `error`.
    pub(crate) fn fail_resets(&self, count: usize, error: Error) {
        self.wires().failing = Some((count, error));
    }

    /// Has `hook` called in every reset.
    pub(crate) fn during_reset(&self, hook: impl FnMut() + Send + 'static) {
        self.wires().during_reset = Some(Box::new(hook));
    }

    /// Returns what has been asked of the hardware since this was called last.
    pub(crate) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.wires().events)
    }

    /// Returns what has been traced since this was called last, resets included.
    pub(crate) fn traces(&self) -> Vec<String> {
        std::mem::take(&mut self.wires().traces)
    }

    /// Returns how many functions there are.
    pub(crate) fn functions(&self) -> usize {
        self.wires().functions
    }

    /// Returns the list of domains, line by line.
    pub(crate) fn show(&self) -> Vec<String> {
        self.registry
            .to_string()
            .lines()
            .map(str::to_string)
            .collect()
    }

    /// Asserts what there is: this many domains and members, and nothing that nobody can see.
    #[track_caller]
    pub(crate) fn assert_has(&self, domains: usize, members: usize) {
        let (shown_members, shown_domains): (Vec<_>, Vec<_>) =
            self.show().into_iter().partition(|l| l.starts_with("  "));

        assert_eq!(shown_domains.len(), domains, "domains");
        assert_eq!(shown_members.len(), members, "members");
        assert_eq!(self.functions(), members, "functions");
        assert_eq!(live(), 1 + domains + members, "live objects");
    }
}

/// Opens a function that is idle.
#[track_caller]
pub(crate) fn open(member: &Membership<Fake>) {
    member.open().unwrap().succeed(true);
}

/// Closes a function that is open.
#[track_caller]
pub(crate) fn close(member: &Membership<Fake>, dirty: bool) {
    member.close().unwrap().settle(dirty);
}
