// SPDX-License-Identifier: GPL-2.0

//! Threads that use, join and leave one bus at random, for longer than the models can.

use crate::{
    bindings::work::run_next,
    reflck::{
        fake::{
            anyone,
            Fake,
            Machine,
            BUS, //
        },
        Membership, //
    },
};
use kernel::{
    prelude::*,
    sync::hooks::{
        hook,
        Point, //
    },
};
use std::{
    sync::atomic::{
        AtomicBool,
        Ordering::SeqCst, //
    },
    thread,
    time::Duration,
};

const ROUNDS: usize = 1000;

/// Pseudo-random numbers, the same in every run.
#[derive(Clone)]
struct Dice(u32);

impl Dice {
    /// Makes the dice of a thread, which pauses now and then before it takes a lock.
    fn of_thread(number: usize) -> Self {
        // CAST: There are few threads.
        let dice = Self(0x9e37_79b9 + number as u32);
        let mut pauses = dice.clone();
        hook(move |point| {
            if matches!(point, Point::Lock(_) | Point::Sleep) {
                pauses.pause();
            }
        });

        dice
    }

    /// Returns true once in `sides` times.
    fn roll(&mut self, sides: u32) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;

        self.0 % sides == 0
    }

    fn pause(&mut self) {
        if self.roll(4) {
            thread::sleep(Duration::from_micros(20));
        }
    }
}

/// Uses the function once, at times through iommufd.
fn bind_and_use(member: &Membership<Fake>, owner: &AtomicBool, dice: &mut Dice) {
    if dice.roll(2) {
        return use_once(member, owner, dice);
    }

    let binding = member.bind(1).unwrap();
    dice.pause();
    if dice.roll(4) {
        return drop(binding);
    }
    binding.bound(10);
    use_once(member, owner, dice);
    let unbinding = member.unbind().unwrap();
    dice.pause();
    drop(unbinding);
}

/// Opens and closes the function, or fails to open it.
fn use_once(member: &Membership<Fake>, owner: &AtomicBool, dice: &mut Dice) {
    let opening = member.open().unwrap();
    assert!(!owner.swap(true, SeqCst), "two owners");
    assert!(!member.hardware().is_resetting(), "opened during a reset");
    dice.pause();
    if dice.roll(4) {
        owner.store(false, SeqCst);
        return drop(opening);
    }

    opening.succeed(dice.roll(2));
    if dice.roll(3) {
        let _ = member.reset_owned(anyone);
    }
    dice.pause();
    let closing = member.close().unwrap();
    dice.pause();
    assert!(!member.hardware().is_resetting(), "reset while in use");
    owner.store(false, SeqCst);
    if dice.roll(8) {
        drop(closing);
    } else {
        closing.settle(dice.roll(2));
    }
}

/// Uses functions of one bus at once while another one joins and leaves. Some resets fail with
/// `error`.
fn use_one_bus(error: Option<Error>) {
    let machine = &Machine::new().unwrap();
    let members: Vec<_> = (0..3).map(|n| machine.join(BUS, n).unwrap()).collect();
    let play = |dice: &mut Dice| {
        if let (Some(error), true) = (error, dice.roll(3)) {
            machine.fail_resets(1, error);
        }
        if dice.roll(4) {
            run_next();
        }
    };

    thread::scope(|scope| {
        for (number, member) in members.iter().enumerate() {
            scope.spawn(move || {
                let mut dice = Dice::of_thread(number);
                let owner = AtomicBool::new(false);
                for _ in 0..ROUNDS {
                    bind_and_use(member, &owner, &mut dice);
                    play(&mut dice);
                }
                while run_next().is_some() {}
            });
        }
        scope.spawn(|| {
            let mut dice = Dice::of_thread(members.len());
            let owner = AtomicBool::new(false);
            for _ in 0..ROUNDS / 4 {
                let guest = machine.join(BUS, members.len()).unwrap();
                while dice.roll(2) {
                    bind_and_use(&guest, &owner, &mut dice);
                }
                guest.hardware().leave();
                drop(guest);
                play(&mut dice);
            }
            while run_next().is_some() {}
        });
    });

    assert!(machine.resets() > 0);
    // No failure is left over: the next close makes any reset that is still owed.
    machine.fail_resets(0, EIO);
    members[0].open().unwrap().succeed(true);
    members[0].close().unwrap().settle(true);
    let expected = format!(
        "resets {}, 0 idle clean, 1 idle clean, 2 idle clean",
        machine.resets()
    );
    assert_eq!(machine.show().unwrap(), expected.as_str());
}

#[test]
fn one_bus_whose_resets_succeed() {
    use_one_bus(None);
}

#[test]
fn one_bus_whose_resets_fail() {
    use_one_bus(Some(EIO));
}

#[test]
fn one_bus_whose_resets_fail_transiently() {
    use_one_bus(Some(EAGAIN));
}
