// SPDX-License-Identifier: GPL-2.0

//! Random schedules of six threads, which have too many interleavings for loom.
//!
//! Shuttle draws the schedules and the operations of the threads: half of the schedules at random,
//! and half by priorities that change a few times. Four users each have a function, another
//! function comes and goes, and a thread runs the work.

use super::*;
use crate::reflck::fake::reset_now;
use shuttle::{
    rand::{
        thread_rng,
        Rng, //
    },
    scheduler::{
        PctScheduler,
        RandomScheduler,
        Scheduler, //
    },
    thread::yield_now,
    Config,
    Runner, //
};

const SEED: u64 = 1;
const OPERATIONS: usize = 4;
const PRIORITY_CHANGES: usize = 4;
/// Functions in two IOMMU groups. The last of them comes and goes.
const NUMBERS: [usize; 5] = [0, 1, 8, 9, 2];

fn one_in(n: u32) -> bool {
    thread_rng().gen_ratio(1, n)
}

/// Uses an open function at random, and closes it.
fn use_open(member: &Member, context: u8, is_bound: bool) {
    if one_in(4) {
        if let Err(error) = member.reset_owned(user_of(context)) {
            assert!(
                [EINVAL, EAGAIN, ERESTARTNOINTR].contains(&error),
                "{error:?}"
            );
        }
    }
    if is_bound && one_in(2) {
        drop(restart(|| member.attach()));
    }
    if one_in(4) {
        member.hardware().fail_alone(1, EIO);
    }
    let closing = member.close().unwrap();
    pass(member);
    match thread_rng().gen_range(0..3) {
        0 => closing.settle(false),
        1 => closing.settle(true),
        _ => closing.finish_later(),
    }
}

fn use_idle(member: &Member, context: u8, is_bound: &mut bool) {
    if one_in(8) {
        // It ends the next wait, perhaps of a later call.
        signals::send();
    }
    match thread_rng().gen_range(0..8) {
        0 if *is_bound => unbind(member),
        0 => {
            let binding = restart(|| member.bind(context));
            pass(member);
            binding.bound(u32::from(context));
        }
        1 => return member.hardware().touch(),
        2 => return member.reset_later(),
        3 => {
            let reset = reset_now(member, one_in(2));
            return assert!(matches!(reset, Ok(()) | Err(EBUSY | EIO)), "{reset:?}");
        }
        _ => {
            let opening = restart(|| member.open());
            pass(member);
            if one_in(4) {
                return;
            }
            if member.is_clean() {
                member.hardware().skip_reset();
            }
            opening.succeed(true);
            return use_open(member, context, *is_bound);
        }
    }
    *is_bound = !*is_bound;
}

fn six_threads() {
    let machine = Machine::new().unwrap();
    if one_in(2) {
        machine.fail_resets(2, EAGAIN);
    }
    let [a, b, c, d, visitor] = NUMBERS;
    let users = [a, b, c, d].map(|number| {
        // One in four machines serialises the others by it.
        let member = match number == a && one_in(4) {
            true => machine.join_serialized(BUS, number),
            false => machine.join(BUS, number),
        };
        let (member, context) = (member.unwrap(), if number == c { OTHER } else { ME });
        spawn(move || {
            let mut is_bound = false;
            for _ in 0..OPERATIONS {
                use_idle(&member, context, &mut is_bound);
            }
            if is_bound {
                unbind(&member);
            }
            member
        })
    });
    let other = machine.clone();
    let visits = spawn(move || {
        for _ in 0..OPERATIONS {
            let member = other.join(BUS, visitor).unwrap();
            open_and_close(&member);
            member.hardware().leave();
        }
    });
    // Shuttle does not see it: no schedule depends on when it is set.
    let is_over = Arc::new(AtomicBool::new(false));
    let work = spawn({
        let is_over = is_over.clone();
        move || {
            while !is_over.load(SeqCst) {
                run_next();
                yield_now();
            }
        }
    });
    let members = users.map(done);
    done(visits);
    is_over.store(true, SeqCst);
    done(work);
    while run_next().is_some() {}
    end(machine, members);
}

fn run(scheduler: impl Scheduler + 'static) -> usize {
    let mut config = Config::new();
    config.stack_size = 0x10_0000;
    Runner::new(scheduler, config).run(|| {
        six_threads();
        assert_eq!(live(), 0, "an object outlives its users");
    })
}

#[test]
fn random_schedules() {
    let count = std::env::var("SCHEDULES").map_or(10_000, |count| count.parse().unwrap());
    let random = RandomScheduler::new_from_seed(SEED, count / 2);
    let by_priority = PctScheduler::new_from_seed(SEED, PRIORITY_CHANGES, count / 2);
    let found = run(random) + run(by_priority);
    println!("model random_schedules: {found} schedules");
}
