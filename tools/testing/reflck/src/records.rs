// SPDX-License-Identifier: GPL-2.0

//! The record of the last reset of a function.

use crate::vfio::record::{
    Record,
    Reset, //
};

/// Makes the record of a function that was reset alone, after it had been woken 7 times.
fn with_reset() -> Record {
    let record = Record::new();
    record.begin();
    record.end(Reset::Bare, 7);

    record
}

#[test]
fn function_that_was_never_reset_is_not_untouched() {
    let record = Record::new();

    assert!(!record.is_untouched(0, 0));
    assert!(!record.is_untouched(1, 1));
    assert!(!record.resets_alone());
    record.begin();
    assert!(!record.is_untouched(0, 0));
}

#[test]
fn function_is_untouched_until_others_wake_it() {
    let record = with_reset();

    assert!(record.resets_alone());
    assert!(record.is_untouched(7, 0));
    assert!(record.is_untouched(8, 1));
    // It was woken by others as well, or has not been asleep in between.
    assert!(!record.is_untouched(9, 1));
    assert!(!record.is_untouched(7, 1));
    record.begin();
    record.end(Reset::Bare, u32::MAX);
    assert!(record.is_untouched(0, 1));
    record.invalidate();
    assert!(!record.is_untouched(0, 1));
}

#[test]
fn function_is_untouched_until_it_is_disturbed() {
    let record = with_reset();

    record.disturb();
    assert!(!record.is_untouched(8, 1));
    record.begin();
    assert!(!record.is_untouched(8, 1));
    record.end(Reset::Bare, 8);
    assert!(record.is_untouched(9, 1));
}

#[test]
fn resets_by_the_driver_disturb_it_as_expected() {
    for (reset, own) in [(Reset::Bare, 0), (Reset::Alone, 1), (Reset::Shared, 1)] {
        for foreign in 0..2 {
            let record = Record::new();
            record.begin();
            (0..own + foreign).for_each(|_| record.disturb());
            record.end(reset, 3);
            assert_eq!(record.is_untouched(4, 1), foreign == 0);
            assert_eq!(record.resets_alone(), reset != Reset::Shared);
        }
    }
}
