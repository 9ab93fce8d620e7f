// SPDX-License-Identifier: GPL-2.0

//! A registry whose members are fake functions.

use super::{
    books::{
        Account,
        Books,
        Text,
        FUNCTIONS, //
    },
    close,
    open,
    Bus,
    Fake,
    BUS, //
};
use crate::reflck::{
    Membership,
    Registry,
    ResetScope,
    Status, //
};
use kernel::{
    fmt::Write,
    prelude::*,
    sync::{
        atomic::Atomic,
        new_spinlock,
        Arc, //
    }, //
};

/// A registry, and functions that join it.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) registry: Arc<Registry<Fake>>,
    bus: Arc<Bus>,
}

impl Machine {
    pub(crate) fn new() -> Result<Self> {
        let log = Text::new()?;
        let bus = Arc::pin_init(
            pin_init!(Bus {
                books <- new_spinlock!(
                    Books {
                        accounts: [Account::new(None); FUNCTIONS],
                        failing: (0, EIO),
                        attempts: 0,
                        resets: 0,
                        log,
                        is_traced: false,
                    },
                    "reflck_fake"
                ),
                is_resetting: Atomic::new(false),
            }),
            GFP_KERNEL,
        )?;

        Ok(Self {
            registry: Registry::new()?,
            bus,
        })
    }

    /// Makes a function that is about to join the domain of `scope`.
    pub(crate) fn function(&self, scope: ResetScope, number: usize) -> Fake {
        let account = &mut self.bus.books.lock().accounts[number];
        // Its debt from before does not count until it has joined.
        let is_dirty = account.is_dirty;
        *account = Account::new(Some(scope));
        account.is_dirty = is_dirty;
        account.is_leaving = is_dirty;

        Fake {
            published: Atomic::new(Status::Unknown as u32),
            is_settled: Atomic::new(true),
            number,
            bus: self.bus.clone(),
        }
    }

    pub(crate) fn join(&self, scope: ResetScope, number: usize) -> Result<Membership<Fake>> {
        let member = self
            .registry
            .join(scope, self.function(scope, number), false)?;
        self.bus.books.lock().accounts[number].is_leaving = false;

        Ok(member)
    }

    /// Adds a function that serialises its domain.
    pub(crate) fn join_serialized(
        &self,
        scope: ResetScope,
        number: usize,
    ) -> Result<Membership<Fake>> {
        let function = self.function(scope, number);
        self.bus.books.lock().accounts[number].is_serialized = true;

        self.registry.join(scope, function, true)
    }

    /// Makes a machine with functions 0 and 1 on the bus.
    pub(crate) fn with_two() -> Result<(Self, Membership<Fake>, Membership<Fake>)> {
        let machine = Self::new()?;
        let (a, b) = (machine.join(BUS, 0)?, machine.join(BUS, 1)?);

        Ok((machine, a, b))
    }

    /// Makes the same. Function 0 is dirty: its reset has failed.
    pub(crate) fn with_dirty() -> Result<(Self, Membership<Fake>, Membership<Fake>)> {
        let (machine, a, b) = Self::with_two()?;
        machine.fail_resets(1, EIO);
        open(&a)?;
        close(&a, true)?;
        machine.log()?;

        Ok((machine, a, b))
    }

    /// Makes the next `count` resets fail with `error`.
    pub(crate) fn fail_resets(&self, count: usize, error: Error) {
        self.bus.books.lock().failing = (count, error);
    }

    /// Logs all events from now on.
    pub(crate) fn trace(&self) {
        self.bus.books.lock().is_traced = true;
    }

    pub(crate) fn attempts(&self) -> usize {
        self.bus.books.lock().attempts
    }

    pub(crate) fn resets(&self) -> usize {
        self.bus.books.lock().resets
    }

    /// Returns how many functions exist.
    pub(crate) fn functions(&self) -> usize {
        let books = self.bus.books.lock();

        books.accounts.iter().filter(|a| a.scope.is_some()).count()
    }

    /// Returns the log since the last call.
    pub(crate) fn log(&self) -> Result<Text> {
        let empty = Text::new()?;

        Ok(core::mem::replace(&mut self.bus.books.lock().log, empty))
    }

    /// Returns the list of domains as it is in debugfs.
    pub(crate) fn list(&self) -> Result<Text> {
        let mut text = Text::new()?;
        text.write_fmt(fmt!("{}", *self.registry))
            .map_err(|_| ENOMEM)?;

        Ok(text)
    }

    /// Returns the list of domains, each on one line, without what the tests have in common.
    pub(crate) fn show(&self) -> Result<Text> {
        let list = self.list()?;
        let mut text = Text::new()?;
        for line in list.as_str().lines() {
            let domain = line.strip_prefix("bus 0000:01 ").unwrap_or(line);
            let result = match line.strip_prefix("  0000:01:00.") {
                Some(member) => text.write_fmt(fmt!(", {member}")),
                None if text.as_str().is_empty() => text.write_str(domain),
                None => text.write_fmt(fmt!("\n{domain}")),
            };
            result.map_err(|_| ENOMEM)?;
        }

        Ok(text)
    }
}
