// SPDX-License-Identifier: GPL-2.0

//! Tests of the checks that the stand-in adds to the kernel.

use crate::sync::{
    new_mutex,
    LockedBy, //
};

#[test]
#[should_panic(expected = "mismatched owners")]
fn reading_needs_the_owner() {
    let [owner, other] = [1, 2].map(|data| new_mutex!(data, "owner"));
    LockedBy::new(&owner, 3).access(&other.lock());
}

#[test]
#[should_panic(expected = "mismatched owners")]
fn writing_needs_the_owner() {
    let [owner, other] = [1, 2].map(|data| new_mutex!(data, "owner"));
    LockedBy::new(&owner, 3).access_mut(&mut other.lock());
}
