// SPDX-License-Identifier: GPL-2.0

//! The operations of users and of root, and the errors that each may fail with.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, RwLock, TryLockError};
use std::time::Duration;
use std::{env, thread};

use anyhow::{ensure, Result};
use lab::driver::{modprobe, Driver};
use lab::helper::{self, Marked};
use lab::machine::{Lab, PF, STUB};
use lab::sriov::{virtual_function, PF_STUB};
use lab::sysfs::{write_attribute, Bdf};
use lab::{debugfs, wait};
use nix::errno::Errno::{self, *};

use crate::user::{Function, Group, Open, Window, STARTING};

/// The machine.
pub struct World {
    pub driver: Driver,
    pub functions: Vec<Function>,
    /// The IOMMU groups.
    pub groups: Vec<Group>,
    /// A PF with [`VFS`] VFs.
    pub pf: Bdf,
    /// For the helper module, which marks one function, and for the number of VFs.
    one_at_a_time: Mutex<()>,
    /// Held for writing while [`LONE`] is found again, and for reading while it is reset.
    finding: RwLock<()>,
}

/// Functions that only a reset of their slot or bus cleans.
const BARE: [&str; 6] = ["bus.a", "bus.b", "bus.c", "slot.a", "slot.b", "mix.b"];

const WITH_FLR: [&str; 7] = ["mix.a", "flr.0", "flr.1", "flr.2", "pair.0", "pair.1", LONE];

/// Alone on its bus.
const LONE: &str = "lone";

const VFS: usize = 2;

/// An operation of an actor. `number` is its argument.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    pub actor: usize,
    pub kind: usize,
    pub function: usize,
    pub number: u32,
}

#[derive(Debug)]
pub enum Outcome {
    Done,
    /// An error that the operation may fail with.
    Refused(Errno),
    /// There was nothing to do, such as to close a function that is not open.
    Idle,
    Wrong(String),
}

/// Performs an operation. Returns whether there was something to do.
type Run = fn(&World, &Function, u32) -> Result<bool>;

/// The name of an operation, how often it is drawn, and the errors that it may fail with.
pub const KINDS: &[(&str, u32, &[Errno], Run)] = &[
    ("open", 100, &[EAGAIN, EACCES, EBUSY, EINVAL, EIO, ENODEV, ENOENT, ENXIO, EPERM], open),
    ("close", 70, &[], close),
    ("touch", 60, &[], |_, f, n| used(f, |open| f.touch(open, tag(n)))),
    ("reset-ioctl", 20, &[EAGAIN, EINVAL, ENOTTY], |_, f, _| used(f, |open| f.reset(open))),
    ("hot-reset", 15, &[EACCES, EAGAIN, EBUSY, EINVAL, ENODEV, ENOTTY], hot_reset),
    ("toggle", 15, &[EBUSY], |w, f, _| used(f, |open| f.toggle(open, w.group(f)))),
    ("map", 15, &[EEXIST, EFAULT, EINVAL, EIO, ENODEV], map),
    ("kill", 2, &[], kill),
    ("rebind", 8, &[EBUSY, ENODEV, ENOENT], |w, f, n| rebind(w, f, n, w.driver.name())),
    ("stub", 4, &[EBUSY, ENODEV, ENOENT], |w, f, n| rebind(w, f, n, STUB)),
    ("remove", 1, &[EBUSY, ENODEV, ENOENT], remove),
    ("surprise", 2, &[EBUSY, ENODEV, ENOENT], surprise),
    ("numvfs", 1, &[EBUSY, ENODEV, ENOENT], numvfs),
    ("sysfs-reset", 8, &[EAGAIN, ENODEV, ENOENT, ENOTTY], sysfs_reset),
    ("driver-reset", 10, &[EBUSY, EIO, ENODEV, ENOENT, EOPNOTSUPP], driver_reset),
    ("policy", 10, &[ENODEV, ENOENT], policy),
    ("power", 6, &[ENODEV, ENOENT], power),
    ("lock", 2, &[ENODEV], |w, f, n| mark(w, f, n, Marked::locked)),
    ("asleep", 2, &[ENODEV], |w, f, n| mark(w, f, n, Marked::asleep)),
    ("look", 10, &[ENODEV, ENOENT], look),
];

pub const POLICIES: [&str; 4] = ["background_reset", "bus_reset", "skip_clean_reset", "strict"];

impl Outcome {
    pub fn text(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused(errno) => errno.desc(),
            Outcome::Idle => "nothing to do",
            Outcome::Wrong(_) => "wrong",
        }
    }
}

impl World {
    /// Loads the driver and binds all functions to it.
    pub fn new(lab: &Lab) -> Result<Self> {
        lab.driver.load_as_is(&[])?;
        for module in [helper::MODULE, "pci_stub", "pci_pf_stub"] {
            modprobe(module, &[])?;
        }
        write_attribute(Path::new("/sys/bus/pci/drivers_autoprobe"), "0")?;
        let pf = lab.topology.device(PF)?.bdf().clone();
        pf.bind(PF_STUB)?;
        pf.write("sriov_numvfs", &VFS.to_string())?;
        let device = |role| lab.topology.device(role);
        let devices = BARE.into_iter().chain(WITH_FLR).map(device);
        let devices = devices.chain((0..VFS).map(|number| virtual_function(&pf, number)));
        let mut groups: Vec<String> = Vec::new();
        let mut functions = Vec::new();
        for device in devices.collect::<Result<Vec<_>>>()? {
            let group = device.iommu_group()?;
            if !groups.contains(&group) {
                groups.push(group.clone());
            }
            let group = groups.iter().position(|other| *other == group).unwrap_or(0);
            let has_flr = !BARE.contains(&device.role());
            functions.push(Function::new(device.role(), device.bdf(), has_flr, group));
        }
        let world = World {
            driver: lab.driver.clone(),
            functions,
            groups: groups.iter().map(|_| Group::new(false)).collect(),
            pf,
            one_at_a_time: Mutex::new(()),
            finding: RwLock::new(()),
        };
        world.functions.iter().try_for_each(|function| world.bind(function))?;
        Ok(world)
    }

    pub fn perform(&self, operation: &Operation) -> Outcome {
        let (name, _, errnos, run) = KINDS[operation.kind];
        let function = &self.functions[operation.function];
        match run(self, function, operation.number) {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Idle,
            Err(error) => match lab::errno(&error).filter(|errno| errnos.contains(errno)) {
                Some(errno) => Outcome::Refused(errno),
                None => Outcome::Wrong(format!("{name} of {}: {error:#}", function.role)),
            },
        }
    }

    pub fn text(&self, operation: &Operation) -> String {
        let Operation { actor, kind, number, .. } = operation;
        format!("{} {} {number} by {actor}", KINDS[*kind].0, self.subject(operation).role)
    }

    /// Returns the function that an operation is about, or the first one of several.
    pub fn subject(&self, operation: &Operation) -> &Function {
        let mut vfs = self.functions.iter().filter(|function| function.is_vf());
        match KINDS[operation.kind].0 {
            "remove" | "surprise" => self.lone(),
            "numvfs" => vfs.next().expect("there are VFs"),
            _ => &self.functions[operation.function],
        }
    }

    /// Returns whether an operation touches a function.
    pub fn touches(&self, operation: &Operation, function: &Function) -> bool {
        let subject = self.subject(operation);
        match KINDS[operation.kind].0 {
            "numvfs" => function.is_vf(),
            "hot-reset" | "kill" => function.group == subject.group,
            _ => function.role == subject.role,
        }
    }

    pub fn bind(&self, function: &Function) -> Result<()> {
        function.bdf.bind(self.driver.name())
    }

    /// Gives functions back that root wants.
    pub fn give_back(&self) {
        for function in self.functions.iter().filter(|f| f.wanted.quiet().is_none()) {
            if let Ok(mut open) = function.open.try_lock() {
                drop(open.take());
            }
        }
    }

    fn lone(&self) -> &Function {
        let lone = self.functions.iter().find(|function| function.role == LONE);
        lone.expect("it is one of the functions")
    }

    fn group(&self, function: &Function) -> &Group {
        &self.groups[function.group]
    }
}

/// Returns a value for the register of a function.
fn tag(number: u32) -> u32 {
    (number | 1) << 12
}

fn pause(number: u32) {
    thread::sleep(Duration::from_millis(u64::from(number % 40)));
}

fn used(function: &Function, work: impl FnOnce(&mut Open) -> Result<()>) -> Result<bool> {
    match &mut *function.open.lock().expect("no panic") {
        Some(open) => work(open).map(|()| true),
        None => Ok(false),
    }
}

fn open(world: &World, function: &Function, number: u32) -> Result<bool> {
    let mut open = function.open.lock().expect("no panic");
    let is_new = open.is_none();
    if is_new {
        *open = Some(function.open(world.group(function), tag(number), false)?);
    }
    Ok(is_new)
}

fn close(_: &World, function: &Function, _: u32) -> Result<bool> {
    Ok(function.open.lock().expect("no panic").take().is_some())
}

fn hot_reset(world: &World, function: &Function, _: u32) -> Result<bool> {
    let members = world.functions.iter().filter(|f| f.group == function.group);
    let windows: Vec<_> = members.map(|f| &f.disturbed).collect();
    let reset = |open: &mut Open| function.hot_reset(open, world.group(function));
    used(function, |open| Window::during(&windows, || reset(open)))
}

/// The user maps the function for DMA by the functions of any group, or removes such mappings.
fn map(world: &World, function: &Function, number: u32) -> Result<bool> {
    let group = &world.groups[number as usize / 3 % world.groups.len()];
    match &*function.open.lock().expect("no panic") {
        Some(open) => group.map(function, open, number),
        None => Ok(false),
    }
}

/// Another user takes the group, and is killed.
fn kill(world: &World, function: &Function, number: u32) -> Result<bool> {
    let group = world.group(function);
    let members = world.functions.iter().filter(|f| f.group == function.group);
    let slots = members.map(|f| f.open.try_lock()).collect::<Result<Vec<_>, TryLockError<_>>>();
    let Ok(mut slots) = slots else { return Ok(false) };
    slots.iter_mut().for_each(|slot| drop(slot.take()));
    if !group.leave() {
        return Ok(false);
    }
    let mut command = Command::new(env::current_exe()?);
    command.arg(format!("--live={}={}", function.role, function.bdf));
    command.args(group.is_cdev.then_some("--cdev"));
    let starting = STARTING.write().expect("no panic");
    let mut child = command.spawn()?;
    drop(starting);
    thread::sleep(Duration::from_millis(u64::from(20 + number % 150)));
    child.kill()?;
    child.wait()?;
    // The kernel closes its files later.
    let open = || function.open(group, tag(number), false).map(drop);
    let opened = wait::until(wait::SETTLE, open, |opened| {
        !matches!(opened.as_ref().err().and_then(lab::errno), Some(EBUSY | EINVAL))
    });
    opened.or_else(|error| lab::errno(&error).map(drop).ok_or(error))?;
    Ok(true)
}

/// The life of a user that is killed at any time. `function` is ROLE=ADDRESS.
pub fn live(function: &str, is_cdev: bool) -> Result<()> {
    let (role, address) = function.split_once('=').ok_or(EINVAL)?;
    let function = Function::new(role, &Bdf::parse(address)?, false, 0);
    for number in 0.. {
        let group = Group::new(is_cdev);
        let _open = function.open(&group, tag(number), false);
        pause(number * 7 % 11);
    }
    Ok(())
}

/// Takes the function from its driver, which may be the same as `driver`, and gives it back.
fn rebind(world: &World, function: &Function, number: u32, driver: &str) -> Result<bool> {
    Window::during(&[&function.wanted], || {
        match driver == STUB {
            true => function.bdf.bind(STUB)?,
            false => function.bdf.unbind()?,
        }
        pause(number);
        world.bind(function)?;
        Ok(true)
    })
}

/// Finds a function again. Scans its bus alone: a scan of the port above a bus that is being reset
/// can leave the bus in reset, see "Not serialised" in Documentation/design.rst.
pub fn rescan(function: &Function) -> Result<()> {
    let bus = Path::new("/sys/class/pci_bus").join(function.bdf.bus());
    write_attribute(&bus.join("rescan"), "1")
}

/// Removes a function that has no siblings. One that is found again while its bus is reset makes the
/// PCI core warn: see there.
fn remove(world: &World, _: &Function, number: u32) -> Result<bool> {
    let function = world.lone();
    Window::during(&[&function.wanted], || {
        let removed = function.bdf.write("remove", "1");
        pause(number);
        let no_reset = world.finding.write().expect("no panic");
        rescan(function)?;
        drop(no_reset);
        removed?;
        world.bind(function)?;
        Ok(true)
    })
}

/// As pciehp does it. A function that is plugged in is empty, so this one must be resettable.
fn surprise(world: &World, _: &Function, number: u32) -> Result<bool> {
    let Ok(_mark) = world.one_at_a_time.try_lock() else { return Ok(false) };
    let function = world.lone();
    Window::during(&[&function.disturbed], || {
        let _mark = Marked::unplugged(&function.bdf)?;
        remove(world, function, number)
    })
}

fn numvfs(world: &World, _: &Function, number: u32) -> Result<bool> {
    let Ok(_vfs) = world.one_at_a_time.try_lock() else { return Ok(false) };
    let vfs: Vec<_> = world.functions.iter().filter(|f| f.is_vf()).collect();
    let windows: Vec<_> = vfs.iter().map(|f| &f.wanted).collect();
    Window::during(&windows, || {
        world.pf.write("sriov_numvfs", "0")?;
        pause(number);
        world.pf.write("sriov_numvfs", &VFS.to_string())?;
        vfs.into_iter().try_for_each(|vf| world.bind(vf))?;
        Ok(true)
    })
}

/// Resets a function, but none that is just being found: the PCI core saves its state then, and the
/// reset restores that. See "Not serialised" in Documentation/design.rst.
fn sysfs_reset(world: &World, function: &Function, _: u32) -> Result<bool> {
    let is_found = || world.finding.read().expect("no panic");
    let _found = (function.role == LONE).then(is_found);
    Window::during(&[&function.disturbed], || function.bdf.write("reset", "1"))?;
    Ok(true)
}

fn driver_reset(_: &World, function: &Function, _: u32) -> Result<bool> {
    function.bdf.write("vfio_reset/reset", "1")?;
    Ok(true)
}

fn policy(_: &World, function: &Function, number: u32) -> Result<bool> {
    let value = ["on", "off", "default"][number as usize / 4 % 3];
    function.bdf.write(&format!("vfio_reset/{}", POLICIES[number as usize % 4]), value)?;
    Ok(true)
}

fn power(_: &World, function: &Function, number: u32) -> Result<bool> {
    function.bdf.write("power/control", if number % 2 == 0 { "on" } else { "auto" })?;
    Ok(true)
}

/// Puts the function into a state of the helper module, often for longer than the driver tries to
/// take a device lock.
fn mark(
    world: &World,
    function: &Function,
    number: u32,
    mark: fn(&Bdf) -> Result<Marked>,
) -> Result<bool> {
    let Ok(_mark) = world.one_at_a_time.try_lock() else { return Ok(false) };
    // Its user can be what its device lock waits for.
    let _marked = Window::during(&[&function.wanted], || mark(&function.bdf))?;
    thread::sleep(Duration::from_millis(u64::from(number % 800)));
    Ok(true)
}

/// Reads the files, as a monitor does.
fn look(world: &World, function: &Function, _: u32) -> Result<bool> {
    if !world.driver.shows_domains() {
        return Ok(false);
    }
    let state = function.bdf.read("vfio_reset/state")?;
    let states = ["clean", "unknown", "dirty", "cleaning", "in-use", "gone"];
    ensure!(states.contains(&&*state), "{} is {state}", function.role);
    for file in ["owed", "last_reset", "obstacles", "opens_with_reset", "opens_without_reset"] {
        function.bdf.read(&format!("vfio_reset/{file}"))?;
    }
    debugfs::domains()?;
    Ok(true)
}
