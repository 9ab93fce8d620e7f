// SPDX-License-Identifier: GPL-2.0

//! With the parameter `strict`, a function that nothing can clean is not opened, and no other
//! function is affected.

use anyhow::Result;
use lab::kmsg::Mark;
use lab::machine::Lab;
use lab::report::Test;
use lab::topology::Device;
use lab::vfio::User;

use super::errno;
use super::oracle::{leave_beside_stranger, Functions};
use crate::registers::{find, leave, Content, Registers};

const STRICT: &str = "strict";

/// The reason in the log.
const REFUSED: &str = "not opened: it has the state of its last user, and cannot be reset";

/// The attribute by which root chooses the resets of a function alone.
const METHODS: &str = "reset_method";

/// Binds the functions, leaves one dirty that cannot be reset, and checks that it is refused.
type Case = fn(&Lab, &mut Test<'_>, &Functions) -> Result<()>;

const CASES: &[Case] = &[stranger, own_reset];

pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let functions = Functions::of(lab)?;
    for case in CASES {
        lab.driver.load_as_is(&[&format!("{STRICT}=1")])?;
        functions.clean_bus()?;
        case(lab, t, &functions)?;
        lab.unreferenced(t)?;
        lab.restore()?;
    }
    Ok(())
}

/// C has another driver, and the bus must not be reset.
fn stranger(lab: &Lab, t: &mut Test<'_>, functions: &Functions) -> Result<()> {
    leave_beside_stranger(lab, functions.bus())?;
    let refused =
        Refused { what: "beside a stranger", function: &functions.a, other: &functions.b };
    refused.until(lab, t, || functions.c.bind(lab.driver.name()))
}

/// Root has disabled the function's own reset, and the rest of the bus is not bound.
fn own_reset(lab: &Lab, t: &mut Test<'_>, _: &Functions) -> Result<()> {
    let [function, other] = lab.topology.devices(["flr.0", "flr.1"])?;
    let _bound = lab.bind([&function, &other])?;
    function.write(METHODS, "\n")?;
    leave(&function)?;
    let refused = Refused { what: "without its own reset", function: &function, other: &other };
    let refused = refused.until(lab, t, || function.write(METHODS, "default"));
    function.write(METHODS, "default")?;
    refused
}

/// A function with the state of its last user, beside another one that has never been used.
struct Refused<'a> {
    what: &'static str,
    function: &'a Device,
    other: &'a Device,
}

impl Refused<'_> {
    /// Checks that the function is refused until `remove` removes the obstacle to its reset.
    fn until(
        &self,
        lab: &Lab,
        t: &mut Test<'_>,
        remove: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Refused { what, function, .. } = self;
        lab.wait_idle(function)?;
        let mut mark = Mark::here()?;
        for nth in ["first", "second"] {
            self.refused(lab, t, &mut mark, nth, || find(function))?;
        }
        lab.power(t, function, &format!("refused {what}"), "D3hot")?;

        let user = User::new()?;
        let other = Registers::open(&user, self.other)?;
        let nth = "third, with another function open,";
        self.refused(lab, t, &mut mark, nth, || Registers::open(&user, function))?;
        let found = other.content()?;
        let when = format!("content of the other function {what}");
        t.eq(when, Content::ZERO, found);
        drop((other, user));

        lab.driver.set(STRICT, false)?;
        let when = format!("{what}, {STRICT}=0");
        self.opens(t, &mut mark, &when, Content::LEFT)?;
        lab.driver.set(STRICT, true)?;
        self.refused(lab, t, &mut mark, "last", || find(function))?;
        remove()?;
        self.opens(t, &mut mark, &format!("no longer {what}"), Content::ZERO)
    }

    /// Checks that an open fails, says why once, and leaves the function as it was.
    fn refused<T>(
        &self,
        lab: &Lab,
        t: &mut Test<'_>,
        mark: &mut Mark,
        nth: &str,
        open: impl FnOnce() -> Result<T>,
    ) -> Result<()> {
        let Refused { what, function, .. } = self;
        let got = errno(&open().map(drop));
        t.eq(format!("the {nth} open {what}"), "EIO", got.as_str());
        let when = format!("log lines about the {nth} open {what}");
        t.eq(when, 1, self.lines(mark)?);
        let when = format!("idle and dirty after the {nth} open {what}");
        lab.domain(t, function, &when, |domain| {
            let member = domain.member(function);
            member.is_some_and(|m| m.state == "idle" && m.dirty)
        })
    }

    /// Checks that the function can be opened, and the content that its user finds.
    fn opens(
        &self,
        t: &mut Test<'_>,
        mark: &mut Mark,
        what: &str,
        expected: Content,
    ) -> Result<()> {
        if let Some(found) = t.done(format!("opens {what}"), find(self.function)) {
            t.eq(format!("content {what}"), expected, found);
        }
        let when = format!("log lines about an open {what}");
        t.eq(when, 0, self.lines(mark)?);
        Ok(())
    }

    /// Returns the number of new log lines that say why the function was refused.
    fn lines(&self, mark: &mut Mark) -> Result<usize> {
        let line = format!("{}: {REFUSED}", self.function.bdf());
        Ok(mark.lines_with(&[&line])?.len())
    }
}
