// SPDX-License-Identifier: GPL-2.0

//! Fake hardware that checks the invariants of the reflck.
//!
//! The functions of a [`Machine`] keep their own account of each member, from the events that the
//! reflck reports. They warn about a request or an event that contradicts the account, which fails
//! the test. KUnit, the tests on the host and the models share this file.

// Each of them needs a part of it.
#![cfg_attr(CONFIG_VFIO_PCI_RS_KUNIT_TEST, allow(dead_code))]

mod books;
mod machine;

pub(crate) use self::{
    books::{
        at,
        Text, //
    },
    machine::Machine, //
};

use self::books::{
    Account,
    Books,
    FUNCTIONS, //
};
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
    ResetScope,
    Settled,
    Status,
    Unused, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
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
    /// The last status.
    published: Atomic<u32>,
    is_settled: Atomic<bool>,
}

impl Fake {
    /// Wants a reset of the domain, even if the function is reset alone.
    pub(crate) fn want_domain(&self) {
        self.bus.books.lock().accounts[self.number].wants_domain = true;
    }

    /// Returns whether this is the status that was last published, and whether it was settled.
    pub(crate) fn has_published(&self, status: Status, is_settled: bool) -> bool {
        self.published.load(Relaxed) == status as u32 && self.is_settled.load(Relaxed) == is_settled
    }

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
        account.is_touched = true;
        account.is_proven = false;
    }

    /// Puts the function within the reach of others, or out of it.
    pub(crate) fn expose(&self, is_exposed: bool) {
        self.bus.books.lock().accounts[self.number].is_exposed = is_exposed;
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
        warn_on!(account.is_dirty || account.is_soiled || account.is_touched);
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

/// Returns the numbers of the members of a domain.
fn numbers<'a>(settled: &'a Settled<'_, Fake>) -> impl Iterator<Item = usize> + 'a {
    settled.iter().map(|function| function.number)
}

/// Checks the members that a reset of the domain is about to affect, and logs their numbers.
fn check_members(books: &mut Books, settled: &Settled<'_, Fake>) {
    warn_on!(settled.len() != settled.iter().count());
    warn_on!(settled.contains(at(FUNCTIONS)));
    for number in numbers(settled) {
        warn_on!(!settled.contains(at(number)));
        // A member has left during the reset.
        warn_on!(books.accounts[number].scope.is_none());
        books.log(fmt!(" {number}"));
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
        check_members(&mut books, unused);
        books.log(fmt!(", {} dirty\n", unused.count_dirty()));

        let account = &mut books.accounts[self.number];
        warn_on!(account.scope != Some(*scope));
        let wants_domain = account.wants_domain || account.is_asked_for;
        let is_wanted = account.is_wanted && (account.is_dirty || wants_domain);
        let is_due = account.is_allowed || account.is_retry_due || account.is_asked_for;
        warn_on!(!is_due && !is_wanted);
        account.is_allowed = false;
        account.is_due = false;
        for (_, account) in books.domain(scope) {
            account.is_reset_owed = false;
        }
        warn_on!(scope.is_private());
        warn_on!(numbers(unused).any(|number| books.accounts[number].is_used()));
        warn_on!(unused.count_dirty() == 0 && !wants_domain);
        let is_dirty = |number: &usize| books.accounts[*number].is_dirty;
        warn_on!(unused.count_dirty() != numbers(unused).filter(is_dirty).count());

        books.end_reset(numbers(unused))
    }

    fn reset_owned(&self, scope: &ResetScope, owned: &Owned<'_, Self>) -> Result {
        self.reset();

        let mut books = self.bus.books.lock();
        books.log(fmt!("{} resets its own", self.number));
        check_members(&mut books, owned);
        books.log(fmt!("\n"));

        let account = &books.accounts[self.number];
        warn_on!(account.scope != Some(*scope));
        warn_on!(account.claim != Claim::Open);
        for number in numbers(owned) {
            let account = &mut books.accounts[number];
            warn_on!(account.is_opening_or_closing() || account.is_rebinding);
            warn_on!(!account.is_owned);
            account.is_owned = false;
        }

        books.end_reset(numbers(owned))
    }

    fn reset_alone(&self) -> Result {
        fsleep(Delta::from_micros(1));
        let account = &mut self.bus.books.lock().accounts[self.number];
        warn_on!(!matches!(account.claim, Claim::Cleaning(Chore::Reset, _)));

        account.reset()
    }

    fn finish_close(&self, force: bool) -> Result<bool> {
        fsleep(Delta::from_micros(1));
        let account = &mut self.bus.books.lock().accounts[self.number];
        warn_on!(!matches!(
            account.claim,
            Claim::Cleaning(Chore::FinishClose, _)
        ));

        match account.reset() {
            Err(EAGAIN) if !force => Err(EAGAIN),
            result => Ok(result.is_err()),
        }
    }

    fn needs_domain(&self) -> bool {
        !self.bus.books.lock().accounts[self.number].resets_alone
    }

    fn is_untouched(&self, _wakes: u32) -> bool {
        self.bus.books.lock().accounts[self.number].is_proven
    }

    fn was_exposed(&self) -> bool {
        self.bus.books.lock().accounts[self.number].was_exposed
    }

    fn is_exposed(&self) -> bool {
        self.bus.books.lock().accounts[self.number].is_exposed
    }

    fn shares_iommu_group(&self, other: &Self) -> bool {
        self.number / 8 == other.number / 8
    }

    fn wants_domain(&self) -> bool {
        // The models need no more steps.
        cfg!(not(loom)) && self.bus.books.lock().accounts[self.number].wants_domain
    }

    fn publish(&self, status: Status, is_settled: bool) {
        // As above.
        if cfg!(not(loom)) {
            self.published.store(status as u32, Relaxed);
            self.is_settled.store(is_settled, Relaxed);
        }
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

/// Asks for a reset now, as root.
pub(crate) fn reset_now(member: &Membership<Fake>, is_resettable: bool) -> Result {
    let function = member.hardware();
    let ask = |asks| function.bus.books.lock().accounts[function.number].is_asked_for = asks;

    ask(true);
    let result = member.reset_now(is_resettable);
    ask(false);

    result
}

/// Owns every function, bound or not.
pub(crate) fn anyone(function: &Fake, _: Binding<u8>) -> bool {
    function.is_owned(true)
}
