// SPDX-License-Identifier: GPL-2.0

//! Users who write to registers that only a reset clears, and who read them.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{ensure, Context, Result};
pub use lab::registers::Content;
use lab::registers::{Kind, LEFT};
use lab::sysfs::Bdf;
use lab::vfio::User;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use vfio_bindings::bindings::vfio::{VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};
use vfio_ioctls::VfioDevice;

use crate::controller::{Controller, NVME, QUEUES};

// linux/pci_regs.h
pub(crate) const COMMAND: u64 = 0x04;
pub(crate) const COMMAND_MEMORY: u16 = 0x02;
const COMMAND_MASTER: u16 = 0x04;
const BARS: Range<usize> = 0x10..0x28;

// QEMU's edu: its registers, and its buffer.
const EDU: &str = "1234";
const EDU_DMA_SOURCE: u64 = 0x80;
const EDU_DMA_TARGET: u64 = 0x88;
const EDU_DMA_COUNT: u64 = 0x90;
const EDU_DMA_COMMAND: u64 = 0x98;
const EDU_DMA_START_TO_MEMORY: u32 = 0x03;
const EDU_BUFFER: u32 = 0x4_0000;

/// An open function whose memory is enabled.
pub struct Registers {
    device: VfioDevice,
    kind: Kind,
}

impl Registers {
    pub fn open(user: &User, function: &Bdf) -> Result<Self> {
        let device = user.device(function)?;
        command(&device, COMMAND_MEMORY);
        let kind = Kind::of(function)?;
        Ok(Registers { device, kind })
    }

    pub fn content(&self) -> Result<Content> {
        self.kind.content(|at| {
            let mut bytes = [0xff; 4];
            // An error is only logged.
            self.device.region_read(self.kind.bar, &mut bytes, at);
            Ok(u32::from_le_bytes(bytes))
        })
    }

    pub fn write(&self) -> Result<()> {
        let (bar, at) = (self.kind.bar, self.kind.register);
        self.device.region_write(bar, &LEFT.to_le_bytes(), at);
        let content = self.content()?;
        ensure!(content == Content::LEFT, "the register has {content}");
        Ok(())
    }
}

/// Sets bits of the command register.
pub(crate) fn command(device: &VfioDevice, bits: u16) {
    let mut command = [0; 2];
    device.region_read(VFIO_PCI_CONFIG_REGION_INDEX, &mut command, COMMAND);
    let command = u16::from_le_bytes(command) | bits;
    device.region_write(VFIO_PCI_CONFIG_REGION_INDEX, &command.to_le_bytes(), COMMAND);
}

/// Opens an edu, and makes it write to memory that it has not, 100 ms from now.
pub fn start_dma(user: &User, edu: &Bdf) -> Result<VfioDevice> {
    let device = user.device(edu)?;
    command(&device, COMMAND_MEMORY | COMMAND_MASTER);
    for (at, value) in [
        (EDU_DMA_SOURCE, EDU_BUFFER),
        (EDU_DMA_TARGET, LEFT),
        (EDU_DMA_COUNT, 4),
        (EDU_DMA_COMMAND, EDU_DMA_START_TO_MEMORY),
    ] {
        device.region_write(VFIO_PCI_BAR0_REGION_INDEX, &value.to_le_bytes(), at);
    }
    Ok(device)
}

/// A user opens the function, writes to the register and closes it.
pub fn leave(function: &Bdf) -> Result<()> {
    Registers::open(&User::new()?, function)?.write()
}

/// Returns the content that the next user of the function finds.
pub fn find(function: &Bdf) -> Result<Content> {
    Registers::open(&User::new()?, function)?.content()
}

/// A process that has a function open, and has used it as [`hold`] does.
#[derive(Debug)]
pub struct Holder(Child);

/// The option by which a program runs [`hold`].
pub const HOLD: &str = "hold";

impl Holder {
    pub fn start(function: &Bdf) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(format!("--{HOLD}={function}"));
        let mut holder = Holder(command.stdout(Stdio::piped()).spawn()?);
        let stdout = holder.0.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim_end() == HOLD, "a process did not open {function}");
        Ok(holder)
    }

    /// Stops the process until it is killed.
    pub fn stop(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.0.id().try_into()?), Signal::SIGSTOP)?)
    }

    /// Kills the process and waits for its end.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens the function at `address`, writes to its register, starts its DMA or enables the NVMe
/// controller, reports that, and waits to be killed.
pub fn hold(address: &str) -> Result<()> {
    let function = Bdf::parse(address)?;
    let user = User::new()?;
    let _open = match function.id()? {
        (vendor, _) if vendor == EDU => start_dma(&user, &function)?,
        (vendor, _) if vendor == NVME => {
            let controller = Controller::open(&user, &function)?;
            controller.enable(QUEUES)?;
            controller.into_device()
        }
        _ => {
            let registers = Registers::open(&user, &function)?;
            registers.write()?;
            registers.device
        }
    };
    println!("{HOLD}");
    loop {
        thread::park();
    }
}

/// Resets everything below `port`, as root can behind the kernel's back.
pub fn reset_below(port: &Bdf) -> Result<()> {
    const BRIDGE_CONTROL: u64 = 0x3e;
    const BUS_RESET: u16 = 0x40;

    let before = port.change_config(BRIDGE_CONTROL, |control| control | BUS_RESET)?;
    thread::sleep(lab::wait::STAY);
    port.change_config(BRIDGE_CONTROL, |_| before)?;
    thread::sleep(lab::wait::STAY);
    Ok(())
}

/// Returns the addresses in the BARs of an awake function.
pub fn bars(function: &Bdf) -> Result<Vec<u8>> {
    let config = function.config()?;
    let bars = config.get(BARS);
    bars.map(<[u8]>::to_vec).context("config space is too short")
}

/// Writes the addresses back that [`bars`] has returned.
pub fn set_bars(function: &Bdf, bars: &[u8]) -> Result<()> {
    let config = OpenOptions::new().write(true).open(function.path().join("config"))?;
    Ok(config.write_all_at(bars, BARS.start as u64)?)
}
