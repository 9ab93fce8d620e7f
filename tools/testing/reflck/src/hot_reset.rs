// SPDX-License-Identifier: GPL-2.0

//! Bindings to iommufd, and hot reset: who may ask for one, what it waits for, what it leaves.

use crate::{
    fake::{
        at,
        bus,
        close,
        open,
        Event,
        Fake,
        Machine, //
    },
    reflck::{
        Binding,
        Membership, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        watch_waits,
        Wait, //
    }, //
};
use std::{
    sync::mpsc::{
        channel,
        RecvTimeoutError, //
    },
    thread::{
        self,
        ScopedJoinHandle, //
    },
    time::{
        Duration,
        Instant, //
    },
};

const PATIENCE: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(60);

/// A user of iommufd, and somebody else.
const ME: u8 = 1;
const OTHER: u8 = 2;

fn mine(_: &Fake, binding: Binding<u8>) -> bool {
    matches!(binding, Binding::Bound(ME, _) | Binding::Changing(ME))
}

fn everybodys(_: &Fake, _: Binding<u8>) -> bool {
    true
}

/// Two functions of bus 1, both bound to `ME`, the first one open.
fn two(machine: &Machine) -> (Membership<Fake>, Membership<Fake>) {
    let a = machine.join(bus(1), at(1, 0, 0));
    let b = machine.join(bus(1), at(1, 0, 1));
    a.bind(ME).unwrap().bound(10);
    b.bind(ME).unwrap().bound(11);
    open(&a);

    (a, b)
}

/// Takes a function from its user, however much the user has of it.
fn give_back(member: Membership<Fake>) {
    if let Ok(closing) = member.close() {
        closing.settle(false);
    }
    drop(member.unbind());
}

fn hot_reset_of_both() -> Event {
    Event::HotReset {
        on: at(1, 0, 0),
        scope: bus(1),
        members: vec![at(1, 0, 0), at(1, 0, 1)],
    }
}

#[test]
fn resets_what_is_the_callers() {
    let machine = Machine::new();
    let (a, b) = two(&machine);

    a.reset_owned(mine).unwrap();
    open(&b);
    a.reset_owned(mine).unwrap();
    assert_eq!(machine.events(), [hot_reset_of_both(), hot_reset_of_both()]);
    assert_eq!(machine.show()[0], "bus 0000:01 resets 2");
    give_back(b);
    give_back(a);
}

#[test]
fn refuses_what_is_not() {
    let machine = Machine::new();
    let (a, b) = two(&machine);

    drop(b.unbind().unwrap());
    assert_eq!(a.reset_owned(mine), Err(EINVAL));
    b.bind(OTHER).unwrap().bound(1);
    assert_eq!(a.reset_owned(mine), Err(EINVAL));
    // In transit, but not waited for.
    let opening = b.open().unwrap();
    assert_eq!(a.reset_owned(mine), Err(EINVAL));
    drop(opening);
    assert_eq!(machine.events(), []);
    give_back(b);
    give_back(a);
}

#[test]
fn cleans_what_was_dirty_unless_it_fails() {
    let machine = Machine::new();
    let (a, b) = two(&machine);
    open(&b);
    close(&b, true);
    machine.fail_resets(1, EIO);

    assert_eq!(a.reset_owned(mine), Err(EIO));
    assert!(b.is_dirty());
    a.reset_owned(mine).unwrap();
    assert!(!b.is_dirty());
    assert_eq!(machine.show()[0], "bus 0000:01 resets 1");
    give_back(b);
    give_back(a);
}

#[test]
fn private_domains_can_be_reset_too() {
    let machine = Machine::new();
    let a = machine.join(crate::reflck::ResetScope::Private(at(0, 1, 0)), at(0, 1, 0));

    open(&a);
    a.reset_owned(everybodys).unwrap();
    assert_eq!(machine.events().len(), 1);
    close(&a, false);
}

/// What has a function in its hands until it is dropped.
trait InHands {}

impl<T> InHands for T {}

/// Asserts that a hot reset waits as long as what `begin` returns has a function in its hands.
fn assert_waits(
    prepare: fn(&Membership<Fake>),
    begin: for<'a> fn(&'a Membership<Fake>) -> Box<dyn InHands + 'a>,
) {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    prepare(b);
    let in_hands = begin(b);

    thread::scope(|scope| {
        let (done, is_done) = channel();
        scope.spawn(move || done.send(a.reset_owned(mine)).unwrap());
        assert_eq!(
            is_done.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Timeout),
            "did not wait"
        );
        assert_eq!(machine.events(), []);
        drop(in_hands);
        assert_eq!(is_done.recv_timeout(LIMIT), Ok(Ok(())));
    });
    give_back(members.0);
    give_back(members.1);
}

#[test]
fn waits_for_an_open() {
    assert_waits(|_| (), |b| Box::new(b.open().unwrap()));
}

#[test]
fn waits_for_a_release() {
    assert_waits(open, |b| Box::new(b.close().unwrap()));
}

#[test]
fn waits_for_an_attachment() {
    assert_waits(open, |b| Box::new(b.attach().unwrap()));
}

#[test]
fn waits_for_an_open_that_succeeds() {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let opening = b.open().unwrap();

    thread::scope(|scope| {
        let reset = scope.spawn(|| a.reset_owned(mine));
        thread::sleep(PATIENCE);
        assert!(!reset.is_finished());
        opening.succeed(true);
        assert_eq!(reset.join().unwrap(), Ok(()));
    });
    assert_eq!(machine.events(), [hot_reset_of_both()]);
    give_back(members.0);
    give_back(members.1);
}

#[test]
fn refuses_when_it_waited_for_what_is_not_the_callers_any_more() {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let unbinding = b.unbind().unwrap();

    thread::scope(|scope| {
        let reset = scope.spawn(|| a.reset_owned(mine));
        thread::sleep(PATIENCE);
        assert!(!reset.is_finished());
        drop(unbinding);
        assert_eq!(reset.join().unwrap(), Err(EINVAL));
    });
    assert_eq!(machine.events(), []);
    give_back(members.0);
    give_back(members.1);
}

#[test]
fn refuses_when_another_function_joins_while_it_waits() {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let opening = b.open().unwrap();

    thread::scope(|scope| {
        let (done, is_done) = channel();
        scope.spawn(move || done.send(a.reset_owned(mine)).unwrap());
        thread::sleep(PATIENCE);
        let _c = machine.join(bus(1), at(1, 0, 2));
        let result = is_done.recv_timeout(LIMIT);
        opening.succeed(true);
        assert_eq!(result, Ok(Err(EINVAL)));
    });
    assert_eq!(machine.events(), []);
    give_back(members.0);
    give_back(members.1);
}

#[test]
fn claims_wait_for_a_hot_reset() {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let (begin, has_begun) = channel();
    let (finish, may_finish) = channel::<()>();
    machine.during_reset(move || {
        begin.send(()).unwrap();
        let _ = may_finish.recv_timeout(LIMIT);
    });

    thread::scope(|scope| {
        scope.spawn(|| a.reset_owned(mine).unwrap());
        has_begun.recv_timeout(LIMIT).unwrap();
        let opening = scope.spawn(|| open(b));
        let attaching = scope.spawn(|| drop(a.attach().unwrap()));
        thread::sleep(PATIENCE);
        assert!(!opening.is_finished(), "opened during the reset");
        assert!(!attaching.is_finished(), "attached during the reset");
        finish.send(()).unwrap();
    });
    give_back(members.0);
    give_back(members.1);
}

/// Asserts that the end of a hot reset wakes `threads`, which waited for it. If it does not, using
/// the unused or bound `member` does, or they would wait for ever.
fn assert_wakes(member: &Membership<Fake>, threads: &[&ScopedJoinHandle<'_, ()>]) {
    let start = Instant::now();
    let are_finished = || threads.iter().all(|thread| thread.is_finished());

    while !are_finished() && start.elapsed() < LIMIT / 4 {
        thread::sleep(Duration::from_millis(1));
    }
    let are_woken = are_finished();
    match member.attach() {
        Ok(attaching) => drop(attaching),
        Err(_) => drop(member.bind(ME).unwrap()),
    }
    assert!(
        are_woken,
        "the hot reset is over, and somebody waits for it"
    );
}

#[test]
fn claims_wait_for_a_hot_reset_that_waits() {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let c = machine.join(bus(1), at(1, 0, 2));
    c.bind(ME).unwrap().bound(12);
    let opening = b.open().unwrap();

    thread::scope(|scope| {
        let reset = scope.spawn(|| a.reset_owned(mine));
        thread::sleep(PATIENCE);
        let opening_c = scope.spawn(|| open(&c));
        let attaching = scope.spawn(|| drop(a.attach().unwrap()));
        thread::sleep(PATIENCE);
        assert!(!opening_c.is_finished(), "it could wait for ever");
        assert!(!attaching.is_finished(), "it could wait for ever");
        opening.succeed(true);
        assert_eq!(reset.join().unwrap(), Ok(()));
        assert_wakes(b, &[&opening_c, &attaching]);
    });
    assert_eq!(
        machine.events(),
        [Event::HotReset {
            on: at(1, 0, 0),
            scope: bus(1),
            members: vec![at(1, 0, 0), at(1, 0, 1), at(1, 0, 2)],
        }]
    );
    give_back(c);
    give_back(members.0);
    give_back(members.1);
}

/// Asserts that a claim which waits for a hot reset, and for nothing else, is made when that ends,
/// with `expected`.
///
/// The hot reset waits for what `begin` returns, and is notified that this is over. Before it has
/// the reflck, somebody comes to claim function 0: what has woken the hot reset cannot wake them.
fn assert_wakes_a_claim(
    machine: &Machine,
    begin: for<'a> fn(&'a Membership<Fake>) -> Box<dyn InHands + 'a>,
    expected: Result,
) {
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let in_hands = begin(b);
    let (tell, told) = channel();
    let (go, may_go) = channel::<()>();

    thread::scope(|scope| {
        // If this fails, the hot reset goes on.
        let go = go;
        let tell_of_claim = tell.clone();
        let reset = scope.spawn(move || {
            watch_waits(move |wait| {
                // A test that has failed does not listen any more.
                let _ = tell.send(("hot reset", wait));
                if wait == Wait::IsNotified {
                    let _ = may_go.recv_timeout(LIMIT);
                }
            });
            a.reset_owned(mine)
        });
        assert_eq!(told.recv_timeout(LIMIT), Ok(("hot reset", Wait::Begins)));
        drop(in_hands);
        assert_eq!(
            told.recv_timeout(LIMIT),
            Ok(("hot reset", Wait::IsNotified))
        );

        let claim = scope.spawn(move || {
            watch_waits(move |wait| {
                let _ = tell_of_claim.send(("claim", wait));
            });
            drop(a.attach().unwrap());
        });
        assert_eq!(told.recv_timeout(LIMIT), Ok(("claim", Wait::Begins)));
        go.send(()).unwrap();
        assert_eq!(reset.join().unwrap(), expected);
        assert_wakes(b, &[&claim]);
    });
    give_back(members.0);
    give_back(members.1);
}

#[test]
fn a_hot_reset_that_is_done_wakes_a_claim() {
    assert_wakes_a_claim(&Machine::new(), |b| Box::new(b.open().unwrap()), Ok(()));
}

#[test]
fn a_hot_reset_that_fails_wakes_a_claim() {
    let machine = Machine::new();

    machine.fail_resets(1, EIO);
    assert_wakes_a_claim(&machine, |b| Box::new(b.open().unwrap()), Err(EIO));
}

#[test]
fn a_hot_reset_that_is_refused_wakes_a_claim() {
    assert_wakes_a_claim(
        &Machine::new(),
        |b| Box::new(b.unbind().unwrap()),
        Err(EINVAL),
    );
}

#[test]
fn a_bound_member_is_in_use_until_it_is_unbound() {
    let machine = Machine::new();
    let (a, b) = two(&machine);

    close(&a, true);
    assert_eq!(machine.events(), []);
    drop(b.unbind().unwrap());
    assert_eq!(
        machine.events(),
        [Event::Deferred {
            on: at(1, 0, 1),
            scope: bus(1),
            user: at(1, 0, 0),
        }]
    );
    drop(a.unbind().unwrap());
    assert!(!a.is_dirty());
    assert!(matches!(machine.events()[..], [Event::Reset { .. }]));
}

#[test]
fn a_binding_that_fails_is_none() {
    let machine = Machine::new();
    let a = machine.join(bus(1), at(1, 0, 0));

    drop(a.bind(ME).unwrap());
    assert_eq!(a.unbind().err(), Some(EBUSY));
    assert_eq!(a.attach().err(), Some(EBUSY));
    a.bind(ME).unwrap().bound(10);
    assert_eq!(a.bind(ME).err(), Some(EBUSY));
    // What it is attached to changes, and its ID does not.
    drop(a.attach().unwrap());
    let mut ids = Vec::new();
    a.for_each_binding(ME, |_, binding| {
        ids.push(matches!(binding, Binding::Bound(ME, 10)))
    });
    assert_eq!(ids, [true]);
    give_back(a);
}

/// Asserts that attaching `member` waits for what `settle` ends, and that attaching `of_another`
/// group does not.
fn assert_attaching_waits(
    member: &Membership<Fake>,
    of_another: &Membership<Fake>,
    settle: impl FnOnce(),
) {
    drop(of_another.attach().unwrap());
    thread::scope(|scope| {
        let attaching = scope.spawn(|| drop(member.attach().unwrap()));
        thread::sleep(PATIENCE);
        assert!(!attaching.is_finished());
        settle();
    });
}

#[test]
fn attaching_waits_for_the_group() {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let of_another = machine.join(bus(1), at(1, 1, 0));
    of_another.bind(ME).unwrap().bound(12);

    let opening = b.open().unwrap();
    assert_attaching_waits(a, &of_another, || opening.succeed(true));
    let closing = b.close().unwrap();
    assert_attaching_waits(a, &of_another, || closing.settle(false));

    give_back(of_another);
    give_back(members.0);
    give_back(members.1);
}

#[test]
fn opening_and_closing_wait_for_what_is_attached() {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let of_another = machine.join(bus(1), at(1, 1, 0));

    let close: fn(&Membership<Fake>) = |b| b.close().unwrap().settle(false);
    for change in [open, close] {
        let attaching = a.attach().unwrap();
        open(&of_another);
        of_another.close().unwrap().settle(false);
        thread::scope(|scope| {
            let changing = scope.spawn(|| change(b));
            thread::sleep(PATIENCE);
            assert!(!changing.is_finished());
            drop(attaching);
        });
    }
    give_back(of_another);
    give_back(members.0);
    give_back(members.1);
}

#[test]
fn bindings_are_listed_when_they_have_their_id() {
    let machine = &Machine::new();
    let members = two(machine);
    let (a, b) = (&members.0, &members.1);
    let in_hands = b.attach().unwrap();
    let list = |context| {
        let mut bound = 0;
        a.for_each_binding(context, |_, b| {
            bound += i32::from(matches!(b, Binding::Bound(..)))
        });
        bound
    };

    // Those of others are not waited for.
    assert_eq!(list(OTHER), 1);
    thread::scope(|scope| {
        let listing = scope.spawn(|| list(ME));
        thread::sleep(PATIENCE);
        assert!(!listing.is_finished());
        drop(in_hands);
        assert_eq!(listing.join().unwrap(), 2);
    });
    give_back(members.0);
    give_back(members.1);
}
