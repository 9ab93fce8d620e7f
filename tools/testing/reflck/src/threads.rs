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
        Fake,
        Machine,
        BUS, //
    },
    Membership,
    ResetScope, //
};
use kernel::sync::hooks::{
    hook,
    Point, //
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

/// Waits for the next report of a thread. Others look again whenever a member settles.
#[track_caller]
fn expect_of(reports: &Receiver<Report>, name: &'static str, expected: Option<Point>) {
    let next = || reports.recv_timeout(LIMIT).expect("a report");
    let (_, found) = std::iter::repeat_with(next)
        .find(|report| report.0 == name)
        .unwrap();
    assert_eq!(found, expected, "{name}");
}

type Member = Membership<Fake>;

/// An operation on a member, by a thread of this name.
type Operation<'a> = (&'static str, &'a Member, fn(&Member));

/// Checks that `first` waits for `in_transit`, that `held` wait for `first`, and `free` for neither.
fn check_order<'a>(
    in_transit: impl Sized,
    first: Operation<'a>,
    held: &[Operation<'a>],
    free: &[Operation<'a>],
) {
    let (sender, reports) = channel();

    thread::scope(|scope| {
        let start = |(name, member, f): Operation<'a>| {
            let sender = sender.clone();
            scope.spawn(move || report(name, &sender, || f(member)));
        };
        start(first);
        expect_of(&reports, first.0, Some(Point::Wait));
        for operation in free {
            start(*operation);
            expect_of(&reports, operation.0, None);
        }
        for operation in held {
            start(*operation);
            expect_of(&reports, operation.0, Some(Point::Wait));
        }
        drop(in_transit);
    });
}

/// Makes seven members of one IOMMU group, and one of another. The last four are bound, and the
/// fifth is open.
fn two_groups() -> [Member; 8] {
    let machine = Machine::new().unwrap();
    let members = [0, 1, 2, 3, 4, 5, 6, 8].map(|number| machine.join(BUS, number).unwrap());
    for member in &members[4..] {
        member.bind(ME).unwrap().bound(10);
    }
    open(&members[4]).unwrap();

    members
}

fn give_back<const N: usize>(members: [Member; N]) {
    for member in members {
        if let Ok(closing) = member.close() {
            closing.settle(false);
        }
        drop(member.unbind());
    }
}

const OPEN: fn(&Member) = |member| open(member).unwrap();
const CLOSE: fn(&Member) = |member| close(member, false).unwrap();
const BIND: fn(&Member) = |member| member.bind(ME).unwrap().bound(10);
const UNBIND: fn(&Member) = |member| drop(member.unbind().unwrap());
const ATTACH: fn(&Member) = |member| drop(member.attach().unwrap());
const DETACH: fn(&Member) = |member| drop(member.detach().unwrap());

#[test]
fn claims_do_not_overtake_a_hot_reset_that_waits() {
    let (machine, a, b) = Machine::with_two().unwrap();
    let c = machine.join(BUS, 2).unwrap();
    BIND(&a);
    BIND(&c);
    OPEN(&a);

    check_order(
        b.open().unwrap(),
        ("hot reset", &a, |a| a.reset_owned(anyone).unwrap()),
        &[("open", &c, OPEN), ("attach", &a, ATTACH)],
        &[],
    );
    assert_eq!(machine.log().unwrap(), "0 resets its own 0 1 2\n");
    give_back([a, b, c]);
}

#[test]
fn members_that_iommufd_binds_in_turns_do_not_starve_an_open() {
    let members = two_groups();
    let [a, b, _, _, c, d, e, other] = &members;

    check_order(
        c.attach().unwrap(),
        ("open", a, OPEN),
        &[
            ("bind", b, BIND),
            ("attach", d, ATTACH),
            ("detach", e, DETACH),
        ],
        &[("attach of another group", other, ATTACH)],
    );
    check_order(
        d.attach().unwrap(),
        ("close", c, CLOSE),
        &[("attach", e, ATTACH)],
        &[
            ("unbind", b, UNBIND),
            ("attach of another group", other, ATTACH),
        ],
    );
    give_back(members);
}

#[test]
fn members_that_come_and_go_do_not_starve_an_attach() {
    let members = two_groups();
    let [a, b, _, _, c, d, e, other] = &members;

    check_order(
        a.open().unwrap(),
        ("attach", d, ATTACH),
        &[("open", b, OPEN)],
        &[
            ("close", c, CLOSE),
            ("detach", e, DETACH),
            ("unbind", e, UNBIND),
            ("open of another group", other, OPEN),
        ],
    );
    give_back(members);
}

#[test]
fn members_that_come_and_go_do_not_starve_a_bind() {
    struct Cleaning<'a>(&'a Member);

    impl Drop for Cleaning<'_> {
        fn drop(&mut self) {
            self.0.finish_cleaning();
        }
    }

    let members = two_groups();
    let [a, b, c, _, d, .., other] = &members;
    open(a).unwrap();
    a.close().unwrap().finish_later();

    check_order(
        Cleaning(a),
        ("bind", b, BIND),
        &[("open", c, OPEN)],
        &[("close", d, CLOSE), ("open of another group", other, OPEN)],
    );
    give_back(members);
}

#[test]
fn iommufd_does_not_hold_up_serialized_members_of_another_group() {
    let machine = Machine::new().unwrap();
    let [a, b, other] = [0, 1, 8].map(|number| machine.join_serialized(BUS, number).unwrap());
    b.bind(ME).unwrap().bound(10);

    check_order(
        b.attach().unwrap(),
        ("open", &a, OPEN),
        &[],
        &[("open of another group", &other, OPEN)],
    );
    give_back([a, b, other]);
}

#[test]
fn serialized_members_open_in_the_order_of_arrival() {
    let machine = Machine::new().unwrap();
    let [a, b, c] = [0, 1, 2].map(|number| machine.join_serialized(BUS, number).unwrap());
    let opening = a.open().unwrap();
    let (sender, reports) = channel();
    let (go, may_go) = channel::<()>();

    thread::scope(|scope| {
        let (first, second, b, c) = (sender.clone(), sender, &b, &c);
        scope.spawn(move || {
            hook(move |point| match point {
                Point::Wait => first.send(("first", Some(point))).unwrap(),
                Point::Notified => _ = may_go.recv(),
                _ => (),
            });
            open(b).unwrap();
        });
        expect(&reports, ("first", Some(Point::Wait)));
        scope.spawn(move || report("second", &second, || open(c).unwrap()));
        expect(&reports, ("second", Some(Point::Wait)));
        opening.succeed(true);
        expect(&reports, ("second", Some(Point::Notified)));
        expect(&reports, ("second", Some(Point::Wait)));
        drop(go);
    });
    give_back([a, b, c]);
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
