// SPDX-License-Identifier: GPL-2.0

//! The accounts of the functions of a fake machine, and the checks of each event against them.

use crate::reflck::{
    member::{
        Chore,
        Claim, //
    },
    Address,
    Purpose,
    ResetScope, //
};
use kernel::{
    fmt::{
        self,
        Write, //
    },
    prelude::*,
    warn_on, //
};

/// The most functions of a machine. Each eight of them are one IOMMU group.
pub(super) const FUNCTIONS: usize = 16;

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
pub(super) struct Account {
    /// `None` if the function does not exist.
    pub(super) scope: Option<ResetScope>,
    pub(super) claim: Claim,
    pub(super) is_bound: bool,
    pub(super) is_rebinding: bool,
    pub(super) is_dirty: bool,
    /// It was used, and not reset since.
    pub(super) is_soiled: bool,
    /// It was touched while it was idle, and not reset since. The reflck does not learn of that.
    pub(super) is_touched: bool,
    /// An open was asked for, and a reset of its domain may be attempted before.
    pub(super) is_wanted: bool,
    /// Root wants a reset of its domain, even if it is reset alone.
    pub(super) wants_domain: bool,
    /// Root asks for that reset now.
    pub(super) is_asked_for: bool,
    /// Others can reach it while it is idle.
    pub(super) is_exposed: bool,
    /// They could during its last reset.
    pub(super) was_exposed: bool,
    /// The hardware can prove that it was not touched since its reset.
    pub(super) is_proven: bool,
    /// A reset of it alone has worked.
    pub(super) resets_alone: bool,
    /// Its next resets alone fail, so many times, with this error.
    pub(super) failing: (usize, Error),
    /// The user who asks for a hot reset owns it. No claim or result has come since.
    pub(super) is_owned: bool,
    /// It has just become unused, and a reset of its domain may be attempted or deferred next.
    pub(super) is_allowed: bool,
    /// It must be, before the next claim.
    pub(super) is_due: bool,
    /// It is about to leave its domain, has just left it, or is about to join: the domain may have
    /// its debt.
    pub(super) is_leaving: bool,
    /// A failed reset of its domain will be retried.
    pub(super) is_retry_due: bool,
    /// A reset of its domain was deferred, or its retry cancelled, and none was attempted since.
    pub(super) is_reset_owed: bool,
    /// No two functions of its domain are opening or closing at the same time.
    pub(super) is_serialized: bool,
}

impl Account {
    pub(super) const fn new(scope: Option<ResetScope>) -> Self {
        Self {
            scope,
            claim: Claim::Idle,
            is_bound: false,
            is_rebinding: false,
            is_dirty: false,
            is_soiled: true,
            is_touched: false,
            is_wanted: false,
            wants_domain: false,
            is_asked_for: false,
            is_exposed: false,
            was_exposed: false,
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

    pub(super) fn is_used(&self) -> bool {
        self.claim != Claim::Idle || self.is_rebinding
    }

    pub(super) fn is_opening_or_closing(&self) -> bool {
        matches!(self.claim, Claim::Opening | Claim::Closing) || self.is_cleaning()
    }

    pub(super) fn is_cleaning(&self) -> bool {
        matches!(self.claim, Claim::Cleaning(..))
    }

    /// Resets the function alone, unless it is to fail.
    pub(super) fn reset(&mut self) -> Result {
        if self.failing.0 > 0 {
            self.failing.0 -= 1;
            return Err(self.failing.1);
        }
        self.note_reset();
        self.resets_alone = true;

        Ok(())
    }

    /// Records a reset. The user of an open function goes on with it.
    fn note_reset(&mut self) {
        self.is_soiled = self.claim == Claim::Open;
        self.is_touched = false;
        self.was_exposed = self.is_exposed;
        self.is_proven = !self.is_soiled && !self.is_exposed;
    }
}

/// The accounts of all functions of a machine.
pub(super) struct Books {
    pub(super) accounts: [Account; FUNCTIONS],
    /// How many of the next resets fail, and with which error.
    pub(super) failing: (usize, Error),
    pub(super) attempts: usize,
    pub(super) resets: usize,
    /// Resets that were attempted, failed or deferred, one a line.
    pub(super) log: Text,
    /// Whether the log has all other events as well.
    pub(super) is_traced: bool,
}

impl Books {
    pub(super) fn domain(
        &mut self,
        scope: &ResetScope,
    ) -> impl Iterator<Item = (usize, &mut Account)> {
        let scope = Some(*scope);

        self.accounts
            .iter_mut()
            .enumerate()
            .filter(move |(_, account)| account.scope == scope)
    }

    /// Returns how many functions of the domain are dirty at least, and at most.
    pub(super) fn count_dirty(&mut self, scope: &ResetScope) -> (usize, usize) {
        let count = |least: usize, a: &Account| least + usize::from(a.is_dirty);

        self.domain(scope)
            .fold((0, 0), |(least, most), (_, a)| match a.is_leaving {
                true => (least, count(most, a)),
                false => (count(least, a), count(most, a)),
            })
    }

    /// Returns whether `is` holds for another function in the IOMMU group of `number`.
    pub(super) fn any_in_iommu_group(&self, number: usize, is: impl Fn(&Account) -> bool) -> bool {
        self.accounts
            .iter()
            .enumerate()
            .any(|(other, account)| other != number && other / 8 == number / 8 && is(account))
    }

    pub(super) fn log(&mut self, arguments: fmt::Arguments<'_>) {
        // What does not fit any more is not looked at either.
        let _ = self.log.write_fmt(arguments);
    }

    pub(super) fn trace(&mut self, arguments: fmt::Arguments<'_>) {
        if self.is_traced {
            self.log(arguments);
        }
    }

    /// Records the end of a reset of all members, by their numbers.
    pub(super) fn end_reset(&mut self, members: impl Iterator<Item = usize>) -> Result {
        self.attempts += 1;
        if self.failing.0 > 0 {
            self.failing.0 -= 1;
            return Err(self.failing.1);
        }

        self.resets += 1;
        for number in members {
            let account = &mut self.accounts[number];
            account.note_reset();
            account.is_dirty = false;
            account.is_retry_due = false;
            account.is_reset_owed = false;
        }

        Ok(())
    }

    /// Records that the reflck has put function `number` in transit.
    pub(super) fn claim(&mut self, scope: &ResetScope, number: usize, purpose: Purpose) {
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
                    Claim::Idle => {
                        warn_on!(is_domain_resetting);
                        Chore::Reset
                    }
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
    pub(super) fn settle(
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
                account.note_reset();
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
        let is_wanted = self.domain(scope).any(|(_, account)| account.wants_domain);
        self.accounts[number].is_allowed = is_attempted && (most > 0 || is_wanted);
        self.accounts[number].is_due = is_attempted && least > 0;
    }
}
