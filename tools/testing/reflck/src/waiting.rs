// SPDX-License-Identifier: GPL-2.0

//! What waits for a reset that is under way, and what does not.
//!
//! That something waits is seen by its not being done after [`PATIENCE`]. On a slow machine this
//! may overlook that it does not wait, but never blames it. [`LIMIT`] is for what must happen.

use crate::{
    fake::{
        at,
        bus,
        close,
        open,
        Fake,
        Machine, //
    },
    reflck::Membership,
};
use std::{
    sync::mpsc::{
        channel,
        Receiver,
        RecvTimeoutError,
        Sender, //
    },
    thread::{
        self,
        ScopedJoinHandle, //
    },
    time::Duration,
};

const PATIENCE: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(60);

/// The two ends of a reset that a test is in control of.
struct SlowReset {
    has_begun: Receiver<()>,
    /// The reset goes on when something is sent, or when this is dropped.
    finish: Sender<()>,
}

impl SlowReset {
    fn new(machine: &Machine) -> Self {
        let (begin, has_begun) = channel();
        let (finish, may_finish) = channel();
        machine.during_reset(move || {
            // A test that has failed does not listen any more.
            let _ = begin.send(());
            let _ = may_finish.recv_timeout(LIMIT);
        });

        Self { has_begun, finish }
    }

    /// Waits until the reset has begun that is part of `release`.
    fn wait_for_begin(&self, release: &ScopedJoinHandle<'_, ()>) {
        while self.has_begun.recv_timeout(PATIENCE).is_err() {
            assert!(!release.is_finished(), "released without a reset");
        }
    }
}

/// Has function 0 of bus 1 released and the bus reset, and asserts that `action`, which is given
/// functions 0 and 1, waits until the reset is over.
fn assert_waits(action: impl FnOnce(&Machine, &[Membership<Fake>; 2]) + Send) {
    let machine = &Machine::new();
    let members = &[0, 1].map(|function| machine.join(bus(1), at(1, 0, function)));
    open(&members[0]);
    let reset = SlowReset::new(machine);

    thread::scope(move |scope| {
        let release = scope.spawn(|| close(&members[0], true));
        reset.wait_for_begin(&release);

        let (done, is_done) = channel();
        scope.spawn(move || {
            action(machine, members);
            done.send(()).unwrap();
        });
        assert_eq!(
            is_done.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Timeout),
            "did not wait for the reset"
        );

        reset.finish.send(()).unwrap();
        is_done.recv_timeout(LIMIT).unwrap();
    });
}

#[test]
fn open_of_a_sibling_waits() {
    assert_waits(|_, members| open(&members[1]));
}

#[test]
fn open_of_the_released_function_waits() {
    assert_waits(|_, members| open(&members[0]));
}

#[test]
fn join_waits() {
    assert_waits(|machine, _| drop(machine.join(bus(1), at(1, 0, 2))));
}

#[test]
fn leave_waits() {
    let machine = &Machine::new();
    let a = &machine.join(bus(1), at(1, 0, 0));
    let b = machine.join(bus(1), at(1, 0, 1));
    open(a);
    let reset = SlowReset::new(machine);

    thread::scope(move |scope| {
        let release = scope.spawn(move || close(a, true));
        reset.wait_for_begin(&release);

        let (done, is_done) = channel();
        scope.spawn(move || {
            drop(b);
            done.send(()).unwrap();
        });
        assert_eq!(
            is_done.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Timeout),
            "a member left during the reset"
        );

        reset.finish.send(()).unwrap();
        is_done.recv_timeout(LIMIT).unwrap();
    });
    assert_eq!(machine.functions(), 1);
}

#[test]
fn list_of_domains_waits_and_sees_what_came_of_the_reset() {
    assert_waits(|machine, _| {
        assert_eq!(
            machine.show(),
            [
                "bus 0000:01 resets 1",
                "  0000:01:00.0 idle clean",
                "  0000:01:00.1 idle clean",
            ]
        );
    });
}

#[test]
fn other_domains_do_not_wait() {
    let machine = &Machine::new();
    let a = &machine.join(bus(1), at(1, 0, 0));
    let other = machine.join(bus(2), at(2, 0, 0));
    open(a);
    let reset = SlowReset::new(machine);

    thread::scope(move |scope| {
        let release = scope.spawn(move || close(a, true));
        reset.wait_for_begin(&release);
        // Whoever lists the domains waits for the reset, but nobody else waits for them.
        let listing = scope.spawn(|| machine.show());
        thread::sleep(PATIENCE);

        let (done, is_done) = channel();
        scope.spawn(move || {
            open(&other);
            close(&other, false);
            drop(machine.join(bus(2), at(2, 0, 1)));
            drop(other);
            drop(machine.join(bus(3), at(3, 0, 0)));
            done.send(()).unwrap();
        });
        is_done
            .recv_timeout(LIMIT / 4)
            .expect("waited for the reset of another domain");

        reset.finish.send(()).unwrap();
        // Bus 2 was there when the listing began, but it has nothing to show any more.
        assert_eq!(
            listing.join().unwrap(),
            ["bus 0000:01 resets 1", "  0000:01:00.0 idle clean"]
        );
    });
}
