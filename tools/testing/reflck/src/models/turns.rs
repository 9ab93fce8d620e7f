// SPDX-License-Identifier: GPL-2.0

//! Models of transitions that wait for their turn.

use super::*;

model!(siblings_begin_in_turns, 3, || {
    let bind_and_unbind = |member: &Member| {
        bind(member, ME);
        unbind(member);
    };
    trio(|_, _| (), open_and_close, bind_and_unbind, bind_and_unbind);
});

model!(interrupted_open_gives_up_its_turn, 2, || {
    let (machine, a, b, c) = three();
    bind(&a, ME);
    bind(&c, ME);

    let attaching = a.attach().unwrap();
    let attach = with(c, |c| drop(c.attach().unwrap()));
    signals::send();
    assert_eq!(b.open().err(), Some(ERESTARTNOINTR));
    // It may have waited for the open, and never waits for the first one.
    let c = done(attach);
    drop(attaching);
    end(machine, [a, b, c]);
});

model!(refused_open_gives_up_its_turn, 3, || {
    let (machine, a, b, c) = three();
    bind(&a, ME);
    bind(&c, ME);
    open(&b);

    let attaching = a.attach().unwrap();
    let attach = with(c, |c| drop(c.attach().unwrap()));
    let open = with(b, |b| assert_eq!(b.open().err(), Some(EBUSY)));
    drop(attaching);
    end(machine, [a, done(open), done(attach)]);
});
