// SPDX-License-Identifier: GPL-2.0

//! Functions that leave the driver, or whose driver is removed, just after they were closed; and
//! DMA of a function whose user is killed.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Result};
use lab::helper::Marked;
use lab::kmsg::Mark;
use lab::machine::{Lab, PF};
use lab::report::Test;
use lab::resets::Counts;
use lab::topology::Device;
use lab::vfio::User;
use lab::wait;
use nix::unistd::{gettid, Pid};

use crate::registers::{start_dma, Content, Holder, Registers};
use crate::together::result;

const FUNCTIONS: usize = 8;

/// Longer than the time from the start of DMA to its end.
const DMA_END: Duration = Duration::from_millis(500);

/// How often to try until two things come in the order that is to be tested.
const ATTEMPTS: usize = 20;

/// Every function is reset before it is unbound, and the next user finds it clean.
pub(super) fn run(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    lab.driver.load_as_is(&[])?;
    let functions = lab.topology.family("flr", FUNCTIONS)?;
    let (mut unreset, mut left) = (0, 0);
    for round in 0..lab.rounds {
        let binding = lab.bind(&functions)?;
        let user = User::new()?;
        let opened = open(&user, &functions)?;
        let found = opened.iter().map(Registers::content).collect::<Result<Vec<_>>>()?;
        left += found.iter().filter(|content| **content != Content::ZERO).count();
        opened.iter().try_for_each(Registers::write)?;
        drop(user);
        let ((), calls) = lab.tracer.count(|| {
            drop(opened);
            // Every other round, the module takes the functions along.
            match round % 2 {
                0 => unbind_all(&functions),
                _ => lab.driver.unload(),
            }
        })?;
        unreset += FUNCTIONS.saturating_sub(calls.counts().flr);
        binding.release()?;
        lab.driver.load_as_is(&[])?;
    }
    let all = FUNCTIONS * lab.rounds;
    t.eq(format!("resets lost of {all} before the unbind"), 0, unreset);
    t.eq(format!("of {all} users who find content"), 0, left);
    beside_vfs(lab, t)
}

/// VFs that root enables before the work has reset their PF do not see its reset.
fn beside_vfs(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    let what = "resets of a PF that has got VFs";
    if !lab.driver.shows_domains() {
        t.skip(what, "vfio-pci has reset it by then");
        return Ok(());
    }
    lab.driver.load_as_is(&["enable_sriov=1"])?;
    let pf = lab.topology.device(PF)?;
    let binding = lab.bind([&pf])?;
    // The work may take the device lock before the writer does, and then rightly resets the PF.
    let mut resets = Counts::NONE;
    for _ in 0..ATTEMPTS {
        resets = get_vfs_first(lab, &pf)?;
        if resets == Counts::NONE {
            break;
        }
        pf.write("sriov_numvfs", "0")?;
    }
    t.eq(what, Counts::NONE, resets);
    lab.domain(t, &pf, "a PF that was not reset is dirty", |domain| domain.dirty() == 1)?;
    pf.write("sriov_numvfs", "0")?;
    binding.release()
}

/// Closes a PF, enables a VF as soon as its device lock is free, and counts the resets.
fn get_vfs_first(lab: &Lab, pf: &Device) -> Result<Counts> {
    lab.driver.set("background_reset", true)?;
    lab.wait_idle(pf)?;
    let opened = User::new()?.open(pf)?;
    let lock = Marked::locked(pf)?;
    let ((), calls) = lab.tracer.count(|| {
        drop(opened);
        // The VFs are not reset when they are bound.
        lab.driver.set("background_reset", false)?;
        thread::scope(|scope| {
            let (sender, thread) = mpsc::channel();
            let enabled = scope.spawn(move || {
                sender.send(gettid())?;
                pf.write("sriov_numvfs", "1")
            });
            let thread = thread.recv()?;
            // The work still tries to take the lock then.
            let waits = wait::until(wait::SETTLE, || is_blocked(thread), |blocked| *blocked);
            ensure!(waits, "nothing waits for the device lock");
            drop(lock);
            result(enabled.join())
        })?;
        lab.wait_idle(pf)
    })?;
    Ok(calls.counts())
}

/// Returns whether a thread of this process waits in the kernel, and ignores signals.
pub(super) fn is_blocked(thread: Pid) -> bool {
    let path = format!("/proc/self/task/{thread}/stat");
    fs::read_to_string(path).is_ok_and(|stat| stat.contains(") D "))
}

fn open(user: &User, functions: &[Device]) -> Result<Vec<Registers>> {
    functions.iter().map(|function| Registers::open(user, function)).collect()
}

/// Unbinds all functions at once.
fn unbind_all(functions: &[Device]) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = functions.iter().map(|f| scope.spawn(|| f.unbind())).collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ended.into_iter().try_for_each(result)
    })
}

/// A function that is about to write to memory when its user is killed does not do so later. The
/// IOMMU reports it, as the function may write to none.
pub(super) fn dma(lab: &Lab, t: &mut Test<'_>) -> Result<()> {
    if cfg!(target_arch = "aarch64") {
        t.skip("DMA after the user was killed", "an SMMUv3 blocks it, and reports nothing");
        return Ok(());
    }
    lab.driver.load_as_is(&[])?;
    let function = lab.topology.device("conv.a")?;
    // Nothing resets it: the others on its bus are not bound.
    let binding = lab.bind([&function])?;
    let mut mark = Mark::here()?;
    let device = start_dma(&User::new()?, &function)?;
    thread::sleep(DMA_END);
    t.seen("DMA while it is open", true, faults(&mut mark)? > 0);
    drop(device);

    let mut late = 0;
    let mut stopped = false;
    for _ in 0..ATTEMPTS {
        Holder::start(&function)?.kill()?;
        lab.wait_unreferenced()?;
        let early = faults(&mut mark)?;
        thread::sleep(DMA_END);
        late += faults(&mut mark)?;
        stopped = early == 0;
        if stopped {
            break;
        }
    }
    t.seen("a user is killed before DMA", true, stopped);
    t.seen("DMA after the user was killed", 0, late);
    binding.release()
}

/// Returns how often the IOMMU has reported a forbidden write since the last call.
fn faults(mark: &mut Mark) -> Result<usize> {
    Ok(mark.lines_with(&["DMAR:", "DMA Write", "fault"])?.len())
}
