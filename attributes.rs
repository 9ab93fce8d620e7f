// SPDX-License-Identifier: GPL-2.0

//! The files of a function in sysfs, in `/sys/bus/pci/devices/ADDRESS/vfio_reset`.
//!
//! `Documentation/ABI/testing/sysfs-bus-pci-vfio_pci_rs` describes them for user space.

use crate::{
    reflck::{
        Membership,
        Owed,
        Status, //
    },
    reset,
    variant::Variant,
    vfio::{
        Attribute,
        Attributes,
        Function,
        Override,
        ResetBy,
        STATE, //
    }, //
};
use core::marker::PhantomData;
use kernel::{
    fmt::{
        self,
        Write, //
    },
    prelude::*,
    str::Formatter, //
};

/// Makes the attribute by which root overrides a parameter for one function.
macro_rules! overriding {
    ($name:expr, $field:ident) => {
        Some(&Attribute::rw(
            $name,
            |function: &Membership<Function>, f: &mut Formatter<'_>| {
                show_override(&function.hardware().overrides().$field, f)
            },
            |function: &Membership<Function>, text: &[u8]| {
                store_override(&function.hardware().overrides().$field, text)
            },
        ))
    };
}

/// The files of the functions of one driver.
pub(crate) struct Files<V>(PhantomData<V>);

impl<V: Variant> Files<V> {
    pub(crate) const ATTRIBUTES: Attributes<V> = &[
        Some(&Attribute::ro(STATE, show_state)),
        Some(&Attribute::ro(c"last_reset", show_last_reset)),
        Some(&Attribute::ro(c"owed", show_owed)),
        Some(&Attribute::ro(c"obstacles", reset::list_obstacles)),
        Some(&Attribute::ro(c"opens_with_reset", show_opens_with_reset)),
        Some(&Attribute::ro(c"opens_without_reset", show_opens_without)),
        Some(&Attribute::wo(c"reset", store_reset)),
        overriding!(c"skip_clean_reset", skip_clean_reset),
        overriding!(c"background_reset", background_reset),
        overriding!(c"bus_reset", bus_reset),
        overriding!(c"strict", strict),
        None,
    ];
}

fn show_state(membership: &Membership<Function>, f: &mut Formatter<'_>) -> fmt::Result {
    let status = membership.hardware().status(membership.status());

    f.write_fmt(fmt!("{}\n", status.map_or("gone", Status::name)))
}

fn show_last_reset(membership: &Membership<Function>, f: &mut Formatter<'_>) -> fmt::Result {
    const NS_PER_S: u64 = 1_000_000_000;

    let Some((by, at)) = membership.hardware().last_reset() else {
        return f.write_str("none\n");
    };
    let by = match by {
        ResetBy::Function => "function",
        ResetBy::Domain => membership.scope().kind(),
    };

    f.write_fmt(fmt!("{by} {}.{:06}\n", at / NS_PER_S, at % NS_PER_S / 1000))
}

fn show_owed(membership: &Membership<Function>, f: &mut Formatter<'_>) -> fmt::Result {
    match membership.owed() {
        Owed::Nothing => f.write_str("none\n"),
        Owed::Function => f.write_str("function\n"),
        Owed::Domain => f.write_fmt(fmt!("{}\n", membership.scope())),
    }
}

fn show_opens_with_reset(membership: &Membership<Function>, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_fmt(fmt!("{}\n", membership.hardware().opens().0))
}

fn show_opens_without(membership: &Membership<Function>, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_fmt(fmt!("{}\n", membership.hardware().opens().1))
}

fn store_reset(membership: &Membership<Function>, text: &[u8]) -> Result {
    let function = membership.hardware();

    match text {
        b"1" => membership.reset_now(function.has_reset() && function.can_reset_later()),
        _ => Err(EINVAL),
    }
}

fn show_override(of: &Override, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str(match of.get() {
        None => "default\n",
        Some(true) => "on\n",
        Some(false) => "off\n",
    })
}

fn store_override(of: &Override, text: &[u8]) -> Result {
    of.set(match text {
        b"default" => None,
        b"on" | b"1" => Some(true),
        b"off" | b"0" => Some(false),
        _ => return Err(EINVAL),
    });

    Ok(())
}
