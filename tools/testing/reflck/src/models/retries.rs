// SPDX-License-Identifier: GPL-2.0

//! Models of resets that are retried.

use super::*;

/// Makes a machine with two functions, the first one dirty and with a retry due.
fn with_retry() -> (Machine, Member, Member) {
    let (machine, a, b) = two();
    machine.fail_resets(1, EAGAIN);
    open(&a);
    close_dirty(&a);
    assert_eq!((machine.attempts(), machine.resets()), (1, 0));

    (machine, a, b)
}

model!(retried_while_unbound, 2, || {
    let (machine, a, b) = two();
    machine.fail_resets(1, EAGAIN);
    bind_and_open(&a);
    close_dirty(&a);
    with_work((machine, a, b), |a, _| unbind(a));
});

model!(retried_while_sibling_is_opened, 2, || {
    with_work(with_retry(), |_, b| open_and_close(b));
});

model!(retried_while_listed, 2, || {
    let (machine, a, b) = with_retry();

    let work = run_work();
    let list = machine.show().unwrap();
    assert!([
        "resets 0 failed 1, 0 idle dirty, 1 idle unknown",
        "resets 1, 0 idle clean, 1 idle clean"
    ]
    .contains(&list.as_str()));
    done(work);
    end(machine, [a, b]);
});

model!(retried_while_open_fails, 2, || {
    with_work(with_retry(), |a, _| fail_to_open(a));
});

model!(retried_while_the_dirty_one_is_removed, 2, || {
    let (machine, a, b) = with_retry();

    let work = run_work();
    drop(a);
    done(work);
    end(machine, [b]);
});

model!(retried_while_the_last_is_removed, 2, || {
    let (machine, a, b) = with_retry();
    drop(b);

    let work = run_work();
    drop(a);
    done(work);
    assert!(machine.attempts() <= 2);
    assert_empty(&machine);
});

model!(retried_while_one_is_opened_and_one_is_removed, 3, || {
    let (machine, a, b) = with_retry();

    let work = run_work();
    let b = spawn(move || drop(b));
    open_and_close_dirty(&a);
    done(b);
    done(work);
    end(machine, [a]);
});

model!(new_one_is_reset_while_sibling_is_retried, 2, || {
    let (machine, a, b) = with_retry();
    b.reset_later();
    with_work((machine, a, b), |_, b| open_and_close(b));
});
