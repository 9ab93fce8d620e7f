// SPDX-License-Identifier: GPL-2.0

//! Models of hot resets.

use super::*;

fn hot_reset_and_close(member: &Member) {
    member.reset_owned(anyone).unwrap();
    close_clean(member);
}

/// Resets the bus for the user [`ME`], or fails because of other users.
fn reset_mine(member: &Member) {
    let result = member.reset_owned(user_of(ME));
    assert!(matches!(result, Ok(()) | Err(EINVAL)));
}

fn reset_mine_and_give_back(member: &Member) {
    reset_mine(member);
    close_clean(member);
    unbind(member);
}

model!(hot_reset_while_sibling_comes_and_goes, 2, || {
    pair(|a, _| open(a), hot_reset_and_close, open_and_close_dirty);
});

model!(hot_reset_while_sibling_is_bound, 2, || {
    let bind_and_unbind = |b: &Member| {
        bind(b, ME);
        unbind(b);
    };
    pair(
        |a, _| bind_and_open(a),
        reset_mine_and_give_back,
        bind_and_unbind,
    );
});

model!(hot_reset_while_sibling_changes_hands, 2, || {
    let prepare = |a: &Member, b: &Member| {
        bind_and_open(a);
        bind(b, ME);
    };
    pair(prepare, reset_mine_and_give_back, |b| {
        unbind(b);
        bind(b, OTHER);
    });
});

model!(hot_reset_refused_while_sibling_is_bound, 2, || {
    let prepare = |a: &Member, b: &Member| {
        bind_and_open(a);
        bind(b, OTHER);
    };
    let refused = |a: &Member| {
        assert_eq!(a.reset_owned(user_of(ME)), Err(EINVAL));
        close_clean(a);
        unbind(a);
    };
    pair(prepare, refused, open_and_close_dirty);
});

/// A hot reset may wait for `b`, and then `c` waits for the hot reset.
fn while_opened(prepare: fn(&Machine), is_expected: fn(Result) -> bool) {
    let (machine, a, b, c) = three();
    open(&a);

    let thread = spawn(move || {
        open(&b);
        open(&c);
        (b, c)
    });
    prepare(&machine);
    assert!(is_expected(a.reset_owned(anyone)));
    let (b, c) = done(thread);
    end(machine, [a, b, c]);
}

model!(hot_reset_wakes_an_open, 2, || {
    while_opened(|_| (), |result| result.is_ok());
});

model!(failed_hot_reset_wakes_an_open, 2, || {
    let fail = |machine: &Machine| machine.fail_resets(1, EIO);
    while_opened(fail, |result| result == Err(EIO));
});

model!(interrupted_hot_reset_wakes_an_open, 2, || {
    while_opened(
        |_| signals::send(),
        |result| matches!(result, Ok(()) | Err(ERESTARTNOINTR)),
    );
});

model!(refused_hot_reset_wakes_an_open, 2, || {
    let (machine, a, b, c) = three();
    for member in [&a, &b, &c] {
        bind(member, ME);
    }
    open(&a);

    let thread = spawn(move || {
        unbind(&b);
        open(&c);
        (b, c)
    });
    reset_mine(&a);
    let (b, c) = done(thread);
    end(machine, [a, b, c]);
});

model!(interrupted_bind_lets_a_hot_reset_go_on, 2, || {
    let (machine, a, b, c) = three();
    open(&a);
    let opening = b.open().unwrap();

    let hot_reset = with(a, |a| a.reset_owned(anyone).unwrap());
    // The hot reset may wait for `b`, and then this waits for the hot reset.
    signals::send();
    assert!(matches!(c.bind(ME).err(), None | Some(ERESTARTNOINTR)));
    opening.succeed(true);
    end(machine, [done(hot_reset), b, c]);
});

model!(interrupted_users_leave_nothing_behind, 2, || {
    let (machine, a, b) = two();
    bind_and_open(&a);

    let opening = b.open().unwrap();
    signals::send();
    assert_eq!(a.attach().err(), Some(ERESTARTNOINTR));
    signals::send();
    assert_eq!(a.reset_owned(anyone).err(), Some(ERESTARTNOINTR));
    drop(opening);
    let attaching = a.attach().unwrap();
    signals::send();
    assert_eq!(b.open().err(), Some(ERESTARTNOINTR));
    signals::send();
    assert_eq!(a.for_each_binding(ME, |_, _| ()), Err(ERESTARTNOINTR));
    drop(attaching);
    open(&b);
    a.reset_owned(anyone).unwrap();
    end(machine, [a, b]);
});

model!(hot_reset_is_refused_when_a_stranger_joins, 2, || {
    let (machine, a, b) = two();
    bind_and_open(&a);
    bind(&b, ME);
    let opening = b.open().unwrap();

    let other = machine.clone();
    let c = spawn(move || other.join(BUS, 2).unwrap());
    // Nothing but the stranger ends the wait for `b`.
    assert_eq!(a.reset_owned(user_of(ME)), Err(EINVAL));
    let c = done(c);
    drop(opening);
    end(machine, [a, b, c]);
});

model!(hot_reset_while_two_come_and_go, 3, || {
    let prepare = |a: &Member, _: &Member| open(a);
    trio(
        prepare,
        hot_reset_and_close,
        open_and_close_dirty,
        fail_to_open,
    );
});

model!(hot_reset_while_two_are_opened, 3, || {
    trio(|a, _| open(a), hot_reset_and_close, open, open);
});

model!(two_hot_resets_while_sibling_comes_and_goes, 3, || {
    let prepare = |a: &Member, b: &Member| {
        open(a);
        open(b);
    };
    let hot_reset = hot_reset_and_close;
    trio(prepare, hot_reset, hot_reset, open_and_close_dirty);
});
