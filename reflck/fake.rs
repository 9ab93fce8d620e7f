// SPDX-License-Identifier: GPL-2.0

//! Fake hardware that checks the invariants of the reflck.
//!
//! The functions of a [`Machine`] keep their own account of each member, from the events that the
//! reflck reports. They warn about a request or an event that contradicts the account, which fails
//! the test. KUnit, the tests on the host and the models share this file.

// Each of them needs a part of it.
#![cfg_attr(CONFIG_VFIO_PCI_RS_KUNIT_TEST, allow(dead_code))]

use super::{
    member::{
        Chore,
        Claim, //
    },
    Address,
    Binding,
    Event,
    Hardware,
    Membership,
    Owned,
    Purpose,
    Registry,
    ResetScope,
    Settled,
    Unused, //
};
use kernel::{
    fmt::{
        self,
        Write, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        new_spinlock,
        Arc,
        SpinLock, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    warn_on, //
};

/// The bus of most tests.
pub(crate) const BUS: ResetScope = ResetScope::Bus { segment: 0, bus: 1 };

/// The most functions of a machine. Each eight of them are one IOMMU group.
const FUNCTIONS: usize = 16;

/// Returns the address of function `number`, whichever its scope is.
pub(crate) const fn at(number: usize) -> Address {
    Address {
        segment: 0,
        bus: 1,
        // CAST: There are no more than `FUNCTIONS`.
        devfn: number as u8,
    }
}

/// A text that fits into the memory allocated at first. The rest is lost.
pub(crate) struct Text(KVec<u8>);

impl Text {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(KVec::with_capacity(2048, GFP_KERNEL)?))
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("not UTF-8")
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0.push_within_capacity(byte).map_err(|_| fmt::Error)?;
        }

        Ok(())
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The account of one function.
#[derive(Clone, Copy)]
struct Account {
    /// `None` if the function does not exist.
    scope: Option<ResetScope>,
    claim: Claim,
    is_bound: bool,
    is_rebinding: bool,
    is_dirty: bool,
    /// It was used or touched, and not reset since. Unlike the reflck, this knows of every touch.
    is_soiled: bool,
    /// An open was asked for, and a reset of its domain may be attempted before.
    is_wanted: bool,
    /// The hardware can prove that it was not touched since its reset.
    is_proven: bool,
    /// A reset of it alone has worked.
    resets_alone: bool,
    /// Its next resets alone fail, so many times, with this error.
    failing: (usize, Error),
    /// The user who asks for a hot reset owns it. No claim or result has come since.
    is_owned: bool,
    /// It has just become unused, and a reset of its domain may be attempted or deferred next.
    is_allowed: bool,
    /// It must be, before the next claim.
    is_due: bool,
    /// It is about to leave its domain, has just left it, or is about to join: the domain may have
    /// its debt.
    is_leaving: bool,
    /// A failed reset of its domain will be retried.
    is_retry_due: bool,
    /// A reset of its domain was deferred, or its retry cancelled, and none was attempted since.
    is_reset_owed: bool,
    /// No two functions of its domain are opening or closing at the same time.
    is_serialized: bool,
}

impl Account {
    const fn new(scope: Option<ResetScope>) -> Self {
        Self {
            scope,
            claim: Claim::Idle,
            is_bound: false,
            is_rebinding: false,
            is_dirty: false,
            is_soiled: true,
            is_wanted: false,
            is_proven: false,
            resets_alone: false,
            failing: (0, EIO),
            is_owned: false,
            is_allowed: false,
            is_due: false,
            is_leaving: false,
            is_retry_due: false,
            is_reset_owed: false,
            is_serialized: false,
        }
    }

    fn is_used(&self) -> bool {
        self.claim != Claim::Idle || self.is_rebinding
    }

    fn is_opening_or_closing(&self) -> bool {
        matches!(self.claim, Claim::Opening | Claim::Closing) || self.is_cleaning()
    }

    fn is_cleaning(&self) -> bool {
        matches!(self.claim, Claim::Cleaning(..))
    }

    /// Resets the function alone, unless it is to fail.
    fn reset(&mut self) -> Result {
        if self.failing.0 > 0 {
            self.failing.0 -= 1;
            return Err(self.failing.1);
        }
        self.is_soiled = false;
        self.is_proven = true;
        self.resets_alone = true;

        Ok(())
    }
}

/// The accounts of all functions of a machine.
struct Books {
    accounts: [Account; FUNCTIONS],
    /// How many of the next resets fail, and with which error.
    failing: (usize, Error),
    attempts: usize,
    resets: usize,
    /// Resets that were attempted, failed or deferred, one a line.
    log: Text,
    /// Whether the log has all other events as well.
    is_traced: bool,
}

impl Books {
    fn domain(&mut self, scope: &ResetScope) -> impl Iterator<Item = (usize, &mut Account)> {
        let scope = Some(*scope);

        self.accounts
            .iter_mut()
            .enumerate()
            .filter(move |(_, account)| account.scope == scope)
    }

    /// Returns how many functions of the domain are dirty at least, and at most.
    fn count_dirty(&mut self, scope: &ResetScope) -> (usize, usize) {
        let count = |least: usize, a: &Account| least + usize::from(a.is_dirty);

        self.domain(scope)
            .fold((0, 0), |(least, most), (_, a)| match a.is_leaving {
                true => (least, count(most, a)),
                false => (count(least, a), count(most, a)),
            })
    }

    /// Returns whether `is` holds for another function in the IOMMU group of `number`.
    fn any_in_iommu_group(&self, number: usize, is: impl Fn(&Account) -> bool) -> bool {
        self.accounts
            .iter()
            .enumerate()
            .any(|(other, account)| other != number && other / 8 == number / 8 && is(account))
    }

    fn log(&mut self, arguments: fmt::Arguments<'_>) {
        // What does not fit any more is not looked at either.
        let _ = self.log.write_fmt(arguments);
    }

    fn trace(&mut self, arguments: fmt::Arguments<'_>) {
        if self.is_traced {
            self.log(arguments);
        }
    }

    /// Checks the members that a reset of the domain is about to affect, and logs their numbers.
    fn check_members(&mut self, settled: &Settled<'_, Fake>) {
        warn_on!(settled.len() != settled.iter().count());
        warn_on!(settled.contains(at(FUNCTIONS)));
        for function in settled.iter() {
            warn_on!(!settled.contains(function.address()));
            // A member has left during the reset.
            warn_on!(self.accounts[function.number].scope.is_none());
            self.log(fmt!(" {}", function.number));
        }
    }

    /// Records the end of a reset of all members.
    fn end_reset(&mut self, settled: &Settled<'_, Fake>) -> Result {
        self.attempts += 1;
        if self.failing.0 > 0 {
            self.failing.0 -= 1;
            return Err(self.failing.1);
        }

        self.resets += 1;
        for function in settled.iter() {
            let account = &mut self.accounts[function.number];
            account.is_dirty = false;
            account.is_soiled = false;
            account.is_proven = true;
            account.is_retry_due = false;
            account.is_reset_owed = false;
        }

        Ok(())
    }

    /// Records that the reflck has put function `number` in transit.
    fn claim(&mut self, scope: &ResetScope, number: usize, purpose: Purpose) {
        for (_, account) in self.domain(scope) {
            // The reset comes before any other claim.
            warn_on!(account.is_due);
            match purpose {
                Purpose::HotReset => {
                    warn_on!(account.is_opening_or_closing() || account.is_rebinding);
                }
                // The retry of the close before it is not cancelled.
                Purpose::Unbind | Purpose::Clean => (),
                _ => account.is_reset_owed |= core::mem::take(&mut account.is_retry_due),
            }
        }

        let is_domain_resetting = self.domain(scope).any(|(_, a)| a.is_serialized)
            && self
                .domain(scope)
                .any(|(other, a)| other != number && a.is_opening_or_closing());
        let is_group_rebinding = self.any_in_iommu_group(number, |other| other.is_rebinding);
        let is_group_resetting = self.any_in_iommu_group(number, Account::is_opening_or_closing);
        let is_group_cleaning = self.any_in_iommu_group(number, Account::is_cleaning);
        let account = &mut self.accounts[number];
        match purpose {
            Purpose::Open => {
                warn_on!(account.claim != Claim::Idle || is_group_rebinding);
                warn_on!(is_domain_resetting);
                account.claim = Claim::Opening;
            }
            Purpose::Close => {
                warn_on!(account.claim != Claim::Open || is_group_rebinding);
                warn_on!(is_domain_resetting);
                account.claim = Claim::Closing;
            }
            Purpose::Bind | Purpose::Unbind | Purpose::Attach | Purpose::Detach => {
                warn_on!(account.is_rebinding);
                warn_on!(account.is_bound == (purpose == Purpose::Bind));
                warn_on!(purpose == Purpose::Attach && is_group_resetting);
                let needs_idle = matches!(purpose, Purpose::Bind | Purpose::Attach);
                warn_on!(needs_idle && account.is_cleaning());
                warn_on!(purpose == Purpose::Bind && is_group_cleaning);
                account.is_rebinding = true;
            }
            Purpose::Clean => {
                let chore = match account.claim {
                    Claim::Idle => Chore::Reset,
                    Claim::Closing => Chore::FinishClose,
                    _ => {
                        warn_on!(true);
                        return;
                    }
                };
                account.claim = Claim::Cleaning(chore, 0);
            }
            Purpose::HotReset => return,
        }
        account.is_owned = false;
    }

    /// Records that function `number` has left transit.
    fn settle(
        &mut self,
        scope: &ResetScope,
        number: usize,
        (open, bound, dirty): (bool, bool, bool),
        is_rebound: bool,
    ) {
        let account = &mut self.accounts[number];
        if is_rebound {
            warn_on!(!account.is_rebinding);
            warn_on!(open != (account.claim == Claim::Open));
            warn_on!(dirty != account.is_dirty);
            account.is_rebinding = false;
            account.is_bound = bound;
        } else {
            warn_on!(bound != account.is_bound);
            match account.claim {
                // A failed open changes nothing, a successful one may have reset the function.
                Claim::Opening => warn_on!(dirty != account.is_dirty && (dirty || !open)),
                Claim::Closing => warn_on!(open),
                Claim::Cleaning(Chore::FinishClose, _) => {
                    warn_on!(open || dirty != account.is_soiled)
                }
                Claim::Cleaning(Chore::Reset, _) => {
                    warn_on!(open || dirty && !account.is_dirty)
                }
                Claim::Idle | Claim::Open => warn_on!(true),
            };
            // A close that does not leave it dirty has reset it.
            if account.claim == Claim::Closing && !dirty {
                account.is_soiled = false;
                account.is_proven = true;
            }
            account.claim = if open { Claim::Open } else { Claim::Idle };
            account.is_dirty = dirty;
            if open {
                account.is_soiled = true;
                account.is_proven = false;
            }
        }

        account.is_owned = false;

        let is_attempted = match is_rebound {
            // A close has attempted it before, or a member that is bound settles again.
            true => {
                !bound
                    && self.domain(scope).any(|(_, a)| a.is_reset_owed)
                    && self.domain(scope).all(|(_, a)| !a.is_used())
            }
            false => account.claim == Claim::Idle && !scope.is_private(),
        };
        let (least, most) = self.count_dirty(scope);
        self.accounts[number].is_allowed = is_attempted && most > 0;
        self.accounts[number].is_due = is_attempted && least > 0;
    }
}

/// What the functions of a machine share.
#[pin_data]
struct Bus {
    #[pin]
    books: SpinLock<Books>,
    /// No test resets two domains at once. The models see this flag, and so the time of a reset.
    is_resetting: Atomic<bool>,
}

/// A function. It exists until it is dropped.
pub(crate) struct Fake {
    number: usize,
    bus: Arc<Bus>,
}

impl Fake {
    /// Records whether the user who asks for a hot reset owns the function, and returns that.
    pub(crate) fn is_owned(&self, is_owned: bool) -> bool {
        self.bus.books.lock().accounts[self.number].is_owned = is_owned;

        is_owned
    }

    /// Records that the membership of the function is about to be dropped.
    ///
    /// A dirty function that leaves while siblings use the domain does so at a time that its
    /// account cannot tell.
    #[cfg(not(CONFIG_VFIO_PCI_RS_KUNIT_TEST))]
    pub(crate) fn leave(&self) {
        self.bus.books.lock().accounts[self.number].is_leaving = true;
    }

    /// Touches the function as others than the driver can, while it is idle.
    ///
    /// The hardware notices that.
    pub(crate) fn touch(&self) {
        let account = &mut self.bus.books.lock().accounts[self.number];
        account.is_soiled = true;
        account.is_proven = false;
    }

    /// Lets the hardware claim that the function was not touched since its reset.
    pub(crate) fn prove(&self) {
        self.bus.books.lock().accounts[self.number].is_proven = true;
    }

    /// Makes the next `count` resets of the function alone fail with `error`.
    pub(crate) fn fail_alone(&self, count: usize, error: Error) {
        self.bus.books.lock().accounts[self.number].failing = (count, error);
    }

    /// Records a reset of the function alone that the reflck learns of by `Membership::forgive()`.
    pub(crate) fn forgive(&self) {
        self.bus.books.lock().accounts[self.number].is_dirty = false;
    }

    /// Says that a reset of the function alone has worked.
    pub(crate) fn set_resets_alone(&self) {
        self.bus.books.lock().accounts[self.number].resets_alone = true;
    }

    /// Records that the open in progress skips the reset of the function.
    pub(crate) fn skip_reset(&self) {
        let account = self.bus.books.lock().accounts[self.number];
        warn_on!(account.claim != Claim::Opening);
        warn_on!(account.is_dirty || account.is_soiled);
    }

    pub(crate) fn is_resetting(&self) -> bool {
        self.bus.is_resetting.load(Relaxed)
    }

    /// Takes the time of a reset.
    fn reset(&self) {
        warn_on!(self.bus.is_resetting.xchg(true, Full));
        fsleep(Delta::from_micros(1));
        self.bus.is_resetting.store(false, Relaxed);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let account = &mut self.bus.books.lock().accounts[self.number];
        let is_dirty = account.is_dirty;
        *account = Account::new(None);
        account.is_dirty = is_dirty;
    }
}

impl Hardware for Fake {
    type Context = u8;
    type Failure = Error;

    fn address(&self) -> Address {
        at(self.number)
    }

    fn reset_unused(&self, scope: &ResetScope, unused: &Unused<'_, Self>) -> Result {
        self.reset();

        let mut books = self.bus.books.lock();
        books.log(fmt!("{} resets", self.number));
        books.check_members(unused);
        books.log(fmt!(", {} dirty\n", unused.count_dirty()));

        let account = &mut books.accounts[self.number];
        warn_on!(account.scope != Some(*scope));
        let is_wanted = account.is_wanted && account.is_dirty;
        warn_on!(!account.is_allowed && !account.is_retry_due && !is_wanted);
        account.is_allowed = false;
        account.is_due = false;
        for (_, account) in books.domain(scope) {
            account.is_reset_owed = false;
        }
        warn_on!(scope.is_private());
        warn_on!(unused.iter().any(|f| books.accounts[f.number].is_used()));
        warn_on!(unused.count_dirty() == 0);
        let is_dirty = |f: &&Fake| books.accounts[f.number].is_dirty;
        warn_on!(unused.count_dirty() != unused.iter().filter(is_dirty).count());

        books.end_reset(unused)
    }

    fn reset_owned(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        self.reset();

        let mut books = self.bus.books.lock();
        books.log(fmt!("{} resets its own", self.number));
        books.check_members(owned);
        books.log(fmt!("\n"));

        let account = &books.accounts[self.number];
        warn_on!(account.scope != Some(*scope));
        warn_on!(account.claim != Claim::Open);
        for function in owned.iter() {
            let account = &mut books.accounts[function.number];
            warn_on!(account.is_opening_or_closing() || account.is_rebinding);
            warn_on!(!account.is_owned);
            account.is_owned = false;
        }

        books.end_reset(owned)
    }

    fn reset_alone(&self) -> Result {
        fsleep(Delta::from_micros(1));
        let account = &mut self.bus.books.lock().accounts[self.number];
        warn_on!(!matches!(account.claim, Claim::Cleaning(Chore::Reset, _)));

        account.reset()
    }

    fn finish_close(&self, force: bool, settle: impl FnOnce(bool)) -> Result {
        fsleep(Delta::from_micros(1));
        let result = {
            let account = &mut self.bus.books.lock().accounts[self.number];
            warn_on!(!matches!(
                account.claim,
                Claim::Cleaning(Chore::FinishClose, _)
            ));
            account.reset()
        };
        if result == Err(EAGAIN) && !force {
            return result;
        }
        settle(result.is_err());

        Ok(())
    }

    fn resets_alone(&self) -> bool {
        self.bus.books.lock().accounts[self.number].resets_alone
    }

    fn is_untouched(&self, _wakes: u32) -> bool {
        self.bus.books.lock().accounts[self.number].is_proven
    }

    fn shares_iommu_group(&self, other: &Self) -> bool {
        self.number / 8 == other.number / 8
    }

    fn notify(&self, scope: &ResetScope, event: Event<'_, Self>) {
        #[cfg(not(CONFIG_VFIO_PCI_RS_KUNIT_TEST))]
        warn_on!(kernel::sync::held() != (!matches!(event, Event::Wait(_))).then_some("reflck"));

        let number = self.number;
        let mut books = self.bus.books.lock();
        warn_on!(books.accounts[number].scope != Some(*scope));
        let is_rebound = matches!(event, Event::Rebound { .. });
        match event {
            Event::Wait(purpose) => {
                books.accounts[number].is_wanted |= purpose == Purpose::Open;
                books.trace(fmt!("{number} waits to {}\n", name_of(purpose)));
            }
            Event::Claim(purpose, waited) => {
                warn_on!(waited.as_nanos() < 0);
                books.trace(fmt!("{number} is claimed to {}\n", name_of(purpose)));
                books.claim(scope, number, purpose);
            }
            Event::Settle { open, bound, dirty } | Event::Rebound { open, bound, dirty } => {
                let claim = if open { "open" } else { "not open" };
                let binding = if bound { "bound" } else { "unbound" };
                let dirtiness = if dirty { "dirty" } else { "clean" };
                books.trace(fmt!("{number} is {claim}, {binding}, {dirtiness}\n"));
                books.settle(scope, number, (open, bound, dirty), is_rebound);
            }
            Event::Deferred { user } => {
                let user = usize::from(user.devfn);
                books.log(fmt!("{number} is deferred by {user}\n"));
                let account = &mut books.accounts[number];
                // Only a retry runs while its member is in use: iommufd unbinds that, or it is
                // cleaning.
                warn_on!(user == number && !account.is_rebinding && !account.is_cleaning());
                warn_on!(!account.is_allowed && !account.is_retry_due);
                account.is_allowed = false;
                account.is_due = false;
                warn_on!(!books.accounts[user].is_used());
                for (_, account) in books.domain(scope) {
                    account.is_retry_due = false;
                    account.is_reset_owed = true;
                }
            }
            Event::ResetFailed {
                failure,
                dirty,
                retry_in,
            } => {
                let errno = failure.to_errno();
                match retry_in {
                    Some(ms) => books.log(fmt!("{number} fails with {errno}, retry in {ms}\n")),
                    None => books.log(fmt!("{number} fails with {errno}\n")),
                }
                let (least, most) = books.count_dirty(scope);
                warn_on!(dirty < least || dirty > most);
                for (_, account) in books.domain(scope) {
                    account.is_retry_due = retry_in.is_some();
                }
            }
        }
    }
}

fn name_of(purpose: Purpose) -> &'static str {
    purpose.name().to_str().unwrap_or("not UTF-8")
}

/// Returns who owns a function according to its binding: the user of `context`.
pub(crate) fn user_of(context: u8) -> impl Fn(&Fake, Binding<u8>) -> bool {
    move |function, binding| function.is_owned(binding.context() == Some(context))
}

/// Opens the function, which resets it.
pub(crate) fn open(member: &Membership<Fake>) -> Result {
    member.open()?.succeed(true);

    Ok(())
}

pub(crate) fn close(member: &Membership<Fake>, dirty: bool) -> Result {
    member.close()?.settle(dirty);

    Ok(())
}

/// Owns every function, bound or not.
pub(crate) fn anyone(function: &Fake, _: Binding<u8>) -> bool {
    function.is_owned(true)
}

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
    #[cfg(loom)]
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
                None if text.0.is_empty() => text.write_str(domain),
                None => text.write_fmt(fmt!("\n{domain}")),
            };
            result.map_err(|_| ENOMEM)?;
        }

        Ok(text)
    }
}
