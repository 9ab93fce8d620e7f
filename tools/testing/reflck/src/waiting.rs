// SPDX-License-Identifier: GPL-2.0

//! What waits for a reset that is under way, or for who else has the reflck, and what does not.
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
use kernel::fmt::{
    self,
    Write, //
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
/// functions 0 and 1, waits until the reset is over. Other domains wait neither for the reset nor
/// for `action`.
///
/// Returns function 0 and what `action` does: whatever that drops itself may wait as well.
fn assert_waits<R: Send>(
    action: impl FnOnce(&Machine, &Membership<Fake>, Membership<Fake>) -> R + Send,
) -> (Membership<Fake>, R) {
    let machine = &Machine::new();
    let a = machine.join(bus(1), at(1, 0, 0));
    let b = machine.join(bus(1), at(1, 0, 1));
    let other = machine.join(bus(2), at(2, 0, 0));
    open(&a);
    let reset = SlowReset::new(machine);

    let result = thread::scope(|scope| {
        // If this fails, the reset goes on, and so do the threads.
        let reset = reset;
        let release = scope.spawn(|| close(&a, true));
        reset.wait_for_begin(&release);

        let (done, is_done) = channel();
        let a = &a;
        scope.spawn(move || done.send(action(machine, a, b)).unwrap());
        assert!(
            matches!(
                is_done.recv_timeout(PATIENCE),
                Err(RecvTimeoutError::Timeout)
            ),
            "did not wait for the reset"
        );

        let (others_done, others_are_done) = channel();
        scope.spawn(move || {
            use_other_domains(machine, other);
            others_done.send(()).unwrap();
        });
        others_are_done
            .recv_timeout(LIMIT / 4)
            .expect("waited for the reset of another domain");

        reset.finish.send(()).unwrap();
        is_done.recv_timeout(LIMIT).unwrap()
    });

    (a, result)
}

/// Uses function 0 of bus 2, which is `member`, has others join and leave, and then has it leave.
fn use_other_domains(machine: &Machine, member: Membership<Fake>) {
    open(&member);
    close(&member, false);
    drop(machine.join(bus(2), at(2, 0, 1)));
    drop(member);
    drop(machine.join(bus(3), at(3, 0, 0)));
}

#[test]
fn open_of_a_sibling_waits() {
    let (_, b) = assert_waits(|_, _, b| {
        open(&b);
        b
    });

    close(&b, false);
}

#[test]
fn open_of_the_released_function_waits() {
    let (a, _) = assert_waits(|_, a, b| {
        open(a);
        b
    });

    close(&a, false);
}

#[test]
fn join_waits() {
    assert_waits(|machine, _, b| [machine.join(bus(1), at(1, 0, 2)), b]);
}

#[test]
fn leave_waits() {
    assert_waits(|machine, _, b| {
        drop(b);
        // That of bus 2 has left before.
        assert_eq!(machine.functions(), 1);
    });
}

#[test]
fn list_of_domains_waits_and_sees_what_came_of_the_reset() {
    assert_waits(|machine, _, b| {
        // Bus 2 was there when this began, but it has nothing to show any more.
        assert_eq!(
            machine.show(),
            [
                "bus 0000:01 resets 1",
                "  0000:01:00.0 idle clean",
                "  0000:01:00.1 idle clean",
            ]
        );
        b
    });
}

/// Takes what is written to it only when something is sent, or when the sender is dropped.
struct SlowWriter {
    begin: Sender<()>,
    may_finish: Receiver<()>,
}

impl Write for SlowWriter {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        // A test that has failed does not listen any more.
        let _ = self.begin.send(());
        let _ = self.may_finish.recv_timeout(LIMIT);

        Ok(())
    }
}

#[test]
fn domain_stays_until_its_last_member_has_left() {
    let machine = &Machine::new();
    let a = machine.join(bus(1), at(1, 0, 0));
    let (begin, has_begun) = channel();
    let (finish, may_finish) = channel();
    let mut writer = SlowWriter { begin, may_finish };

    let _b = thread::scope(move |scope| {
        // The list of domains is written with the reflck held, so the member cannot leave yet.
        scope.spawn(move || write!(writer, "{}", *machine.registry).unwrap());
        has_begun.recv_timeout(LIMIT).unwrap();
        scope.spawn(move || drop(a));
        thread::sleep(PATIENCE);

        let (done, is_done) = channel();
        scope.spawn(move || done.send(machine.join(bus(1), at(1, 0, 1))).unwrap());
        assert!(
            matches!(
                is_done.recv_timeout(PATIENCE),
                Err(RecvTimeoutError::Timeout)
            ),
            "joined a second domain of the same scope"
        );

        drop(finish);
        is_done.recv_timeout(LIMIT).unwrap()
    });
    assert_eq!(
        machine.show(),
        ["bus 0000:01 resets 0", "  0000:01:00.1 idle clean"]
    );
}
