// SPDX-License-Identifier: GPL-2.0

//! Threads in an order that hooks of the stand-in enforce.
//!
//! These are for what the models do not notice: an order that starves a thread, and waits for
//! another domain. A deadlock fails a test after [`LIMIT`].

use crate::reflck::{
    fake::{
        anyone,
        close,
        open,
        Machine,
        BUS, //
    },
    ResetScope, //
};
use kernel::{
    fmt::{
        self,
        Write, //
    },
    sync::hooks::{
        hook,
        Point, //
    },
};
use std::{
    sync::mpsc::{
        channel,
        Receiver,
        Sender, //
    },
    thread,
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(20);

const ME: u8 = 1;

/// A thread, or a point or the end that it has reached.
type Report = (&'static str, Option<Point>);

/// Calls `f` as the thread of this name, and reports when it waits and when it is over.
fn report<R>(name: &'static str, reports: &Sender<Report>, f: impl FnOnce() -> R) -> R {
    let waits = reports.clone();
    hook(move |point| {
        if matches!(point, Point::Wait | Point::Notified) {
            let _ = waits.send((name, Some(point)));
        }
    });
    let result = f();
    let _ = reports.send((name, None));

    result
}

#[track_caller]
fn expect(reports: &Receiver<Report>, expected: Report) {
    assert_eq!(reports.recv_timeout(LIMIT), Ok(expected));
}

#[test]
fn claims_do_not_overtake_a_hot_reset_that_waits() {
    let (machine, a, b) = Machine::with_two().unwrap();
    let c = machine.join(BUS, 2).unwrap();
    for member in [&a, &c] {
        member.bind(ME).unwrap().bound(10);
    }
    open(&a).unwrap();
    let opening = b.open().unwrap();
    let (sender, reports) = channel();

    thread::scope(|scope| {
        let send = || sender.clone();
        let (hot_reset, opener, attacher) = (send(), send(), send());
        let (a, c) = (&a, &c);
        scope.spawn(move || report("hot reset", &hot_reset, || a.reset_owned(anyone).unwrap()));
        expect(&reports, ("hot reset", Some(Point::Wait)));
        scope.spawn(move || report("open", &opener, || open(c).unwrap()));
        expect(&reports, ("open", Some(Point::Wait)));
        scope.spawn(move || report("attach", &attacher, || drop(a.attach().unwrap())));
        expect(&reports, ("attach", Some(Point::Wait)));
        opening.succeed(true);
    });
    assert_eq!(machine.log().unwrap(), "0 resets its own 0 1 2\n");
    for member in [a, b, c] {
        close(&member, false).unwrap();
        drop(member.unbind());
    }
}

#[test]
fn reset_does_not_block_other_domains() {
    const OTHER_BUS: ResetScope = ResetScope::Bus { segment: 0, bus: 2 };

    let machine = Machine::new().unwrap();
    let a = machine.join(BUS, 0).unwrap();
    let b = machine.join(OTHER_BUS, 1).unwrap();
    open(&a).unwrap();
    let (sender, reports) = channel();

    let during_reset = {
        let machine = machine.clone();
        let mut b = Some(b);
        move |point| {
            let Some(b) = (point == Point::Sleep).then(|| b.take()).flatten() else {
                return;
            };
            let (machine, sender) = (machine.clone(), sender.clone());
            thread::spawn(move || {
                open(&b).unwrap();
                close(&b, false).unwrap();
                drop(machine.join(OTHER_BUS, 2).unwrap());
                drop(b);
                drop(machine.join(OTHER_BUS, 3).unwrap());
                let _ = sender.send(());
            });
            assert_eq!(reports.recv_timeout(LIMIT), Ok(()), "waits for the reset");
        }
    };
    hook(during_reset);
    close(&a, true).unwrap();
    assert_eq!(machine.resets(), 1);
}

/// Calls `f` when it is written to.
struct Writer<F>(F);

impl<F: FnMut()> Write for Writer<F> {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        (self.0)();

        Ok(())
    }
}

#[test]
fn join_finds_the_domain_that_its_last_member_leaves() {
    let machine = Machine::new().unwrap();
    let a = machine.join(BUS, 0).unwrap();
    // Tells this domain from another one.
    open(&a).unwrap();
    close(&a, true).unwrap();

    let mut a = Some(a);
    let mut joiner = None;
    let mut leaver = None;
    // Listing holds the reflck. The leaver and the joiner come as far as that.
    let meet = || {
        let Some(a) = a.take() else { return };
        let (sender, at_reflck) = channel();
        let hook_at_reflck = move || {
            hook(move |point| {
                if point == Point::Lock("reflck") {
                    let _ = sender.send(());
                }
            });
        };
        let hook_leaver = hook_at_reflck.clone();
        leaver = Some(thread::spawn(move || {
            hook_leaver();
            drop(a);
        }));
        assert_eq!(at_reflck.recv_timeout(LIMIT), Ok(()));
        let machine = machine.clone();
        joiner = Some(thread::spawn(move || {
            hook_at_reflck();
            machine.join(BUS, 1).unwrap()
        }));
        assert_eq!(at_reflck.recv_timeout(LIMIT), Ok(()));
    };
    write!(Writer(meet), "{}", *machine.registry).unwrap();

    leaver.unwrap().join().unwrap();
    let _b = joiner.unwrap().join().unwrap();
    assert_eq!(machine.show().unwrap(), "resets 1, 1 idle unknown");
}
