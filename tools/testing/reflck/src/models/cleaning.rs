// SPDX-License-Identifier: GPL-2.0

//! Models of functions that work cleans.

use super::*;

/// Opens a function, and skips its reset if it is clean.
fn open_if_clean(member: &Member) {
    let opening = member.open().unwrap();
    pass(member);
    if member.is_clean() {
        member.hardware().skip_reset();
    }
    opening.succeed(true);
}

/// Leaves the rest of a close to work.
fn close_later(member: &Member) {
    let closing = member.close().unwrap();
    pass(member);
    closing.finish_later();
}

fn close_later_dirty(member: &Member) {
    member.hardware().fail_alone(1, EIO);
    close_later(member);
}

/// Uses two functions while work cleans the first one, and the second one if it is closed so.
fn while_cleaning(
    prepare: fn(&Member, &Member),
    use_a: fn(&Member),
    use_b: fn(&Member),
) -> (usize, bool) {
    let (machine, a, b) = two();
    prepare(&a, &b);
    let work = run_work();
    let b = with(b, use_b);
    use_a(&a);
    done(work);
    let members = [a, done(b)];
    for member in &members {
        member.finish_cleaning();
    }
    let found = (machine.resets(), members.iter().any(Member::is_dirty));
    end(machine, members);

    found
}

/// Makes a machine with two functions, the first of which is closed and waits for work.
fn with_cleaning() -> (Machine, Member, Member) {
    let (machine, a, b) = two();
    open(&a);
    close_later(&a);

    (machine, a, b)
}

/// Makes a machine with two functions, the first of which was within the reach of others when it
/// was closed and reset.
fn with_exposed() -> (Machine, Member, Member) {
    let (machine, a, b) = two();
    open(&a);
    a.hardware().expose(true);
    close_later(&a);
    run_next();
    a.hardware().expose(false);

    (machine, a, b)
}

model!(opened_while_it_is_cleaned_again, 2, || {
    let (machine, a, b) = with_exposed();
    // It would look for as long as the open is in transit.
    let work = spawn(|| (0..2).for_each(|_| _ = run_next()));
    open_if_clean(&a);
    done(work);
    close_clean(&a);
    while run_next().is_some() {}
    end(machine, [a, b]);
});

model!(hot_reset_while_sibling_is_cleaned_again, 2, || {
    with_work(with_exposed(), |_, b| {
        open(b);
        b.reset_owned(anyone).unwrap();
        close_clean(b);
    });
});

model!(removed_while_it_is_cleaned_again, 2, || {
    let (machine, a, b) = with_exposed();

    let work = run_work();
    drop(a);
    done(work);
    end(machine, [b]);
});

model!(opened_while_cleaning, 2, || {
    with_work(with_cleaning(), |a, _| open_if_clean(a));
});

model!(opened_while_cleaning_fails, 2, || {
    let (machine, a, b) = two();
    open(&a);
    close_later_dirty(&a);

    let work = run_work();
    open_if_clean(&a);
    // The bus reset came before the open.
    assert_eq!(machine.resets(), 1);
    done(work);
    end(machine, [a, b]);
});

model!(touched_while_cleaning, 2, || {
    with_work(with_cleaning(), |a, _| {
        a.hardware().touch();
        open_if_clean(a);
    });
});

model!(interrupted_while_cleaning, 2, || {
    let (machine, a, b) = two();
    bind_and_open(&a);
    close_later(&a);
    with_work((machine, a, b), |a, _| {
        unbind(a);
        let binding = interrupt(|| a.bind(ME));
        pass(a);
        binding.bound(1);
    });
});

model!(attached_while_sibling_is_cleaning, 2, || {
    let (machine, a, b) = two();
    bind(&b, ME);
    open(&a);
    close_later(&a);
    with_work((machine, a, b), |_, b| drop(b.attach().unwrap()));
});

model!(bound_while_sibling_is_cleaning, 2, || {
    with_work(with_cleaning(), |_, b| bind(b, ME));
});

model!(hot_reset_while_sibling_is_cleaning, 2, || {
    let (machine, a, b) = two();
    open(&a);
    open(&b);
    close_later(&b);
    with_work((machine, a, b), |a, _| {
        a.reset_owned(anyone).unwrap();
        close_clean(a);
    });
});

model!(removed_while_cleaning, 2, || {
    let (machine, a, b) = with_cleaning();

    let work = run_work();
    drop(a);
    done(work);
    end(machine, [b]);
});

model!(unbound_while_cleaning_fails, 3, || {
    let prepare = |a: &Member, _: &Member| {
        bind_and_open(a);
        close_later_dirty(a);
    };
    assert_eq!(while_cleaning(prepare, unbind, |_| ()), (1, false));
});

model!(sibling_is_closed_while_cleaning_fails, 3, || {
    let prepare = |a: &Member, b: &Member| {
        open(a);
        open(b);
        close_later_dirty(a);
    };
    assert_eq!(while_cleaning(prepare, |_| (), close_dirty), (1, false));
});

model!(both_are_cleaned, 3, || {
    let prepare = |a: &Member, b: &Member| {
        open(a);
        open(b);
        close_later_dirty(a);
        close_later_dirty(b);
    };
    let other = |_: &Member| while run_next().is_some() {};
    assert_eq!(while_cleaning(prepare, |_| (), other), (1, false));
});

model!(new_one_is_opened_while_cleaning, 2, || {
    let (machine, a, b) = two();
    a.reset_later();
    with_work((machine, a, b), |a, _| {
        open_if_clean(a);
        close_clean(a);
    });
});

model!(dirty_one_is_opened_while_new_one_is_reset, 2, || {
    let (machine, a, b) = two();
    machine.fail_resets(1, EIO);
    open_and_close_dirty(&a);
    b.reset_later();

    let work = run_work();
    open(&a);
    // The bus reset came before the open.
    assert_eq!(machine.resets(), 1);
    close_clean(&a);
    done(work);
    end(machine, [a, b]);
});
