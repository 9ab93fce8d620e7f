// SPDX-License-Identifier: GPL-2.0

//! Random calls: the same ones for the same seed, functions and outcomes.
//!
//! Most are valid, many are almost valid. Later calls meet the states that earlier ones left. No
//! call depends on time or makes the device access memory.

use fastrand::Rng;
use raw::Pointer;

use crate::call::{At, Block, Bytes, Call, Handle, Of, Request, To};
use crate::script;
use crate::session::{self, Mode, Session};
use crate::smoke;

/// Sizes of arguments.
const SIZES: [u32; 12] = [0, 1, 8, 11, 12, 16, 19, 20, 24, 32, 4096, u32::MAX];

struct Generator<'a, 's> {
    rng: Rng,
    session: &'a mut Session<'s>,
}

/// Opens the device, and makes at least `calls` calls.
pub fn run(session: &mut Session<'_>, seed: u64, calls: usize) {
    let mut generator = Generator { rng: Rng::with_seed(seed), session };
    generator.session.open(Handle::DEVICE);
    while generator.session.entries.len() < calls {
        generator.next();
    }
    session.call(Call::CloseAll);
    for function in 0..session.functions.len() {
        // CAST: At most 1.
        session.call(Call::Bind(function as u8, To::Driver));
    }
    session.open(Handle::DEVICE);
    smoke::enable_memory(session);
    smoke::write_scratch(session, Handle::DEVICE, 0);
}

/// How often a call is made, and how.
type Kind<G> = (u32, fn(&mut G));

impl Generator<'_, '_> {
    /// The calls, and how often each is made: more often the ones that run the driver's code.
    const KINDS: [Kind<Self>; 12] = [
        (60, Self::open),
        (35, Self::close),
        (3, |this| this.call(Call::CloseAll)),
        (30, Self::iommufd),
        (50, Self::hot_reset_info),
        (60, Self::hot_reset),
        (15, Self::bind),
        (10, Self::set),
        (30, Self::state),
        (40, Self::scratch),
        (20, Self::repair),
        (3, |this| this.call(Call::pointer(Handle::DEVICE, Request::RESET, Pointer::Null))),
    ];

    fn next(&mut self) {
        let total = Self::KINDS.iter().map(|(weight, _)| weight).sum();
        let mut drawn: u32 = self.rng.u32(0..total);
        for (weight, kind) in Self::KINDS {
            if drawn < weight {
                return kind(self);
            }
            drawn -= weight;
        }
    }

    fn call(&mut self, call: Call) {
        self.session.call(call);
    }

    fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())]
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(0..n) == 0
    }

    /// The function under test more often than its sibling.
    fn function(&mut self) -> u8 {
        self.choose(&[0, 0, 1])
    }

    fn device(&mut self) -> Handle {
        self.choose(&[Handle::DEVICE, Handle::DEVICE, Handle::SIBLING, Handle::AGAIN])
    }

    fn file(&mut self) -> Handle {
        let any = self.choose(&Handle::ALL);
        self.choose(&[Handle::Null, Handle::Closed, Handle::Minus, Handle::Event(0), any, any])
    }

    fn open(&mut self) {
        let device =
            if self.session.is_open(Handle::DEVICE) { self.device() } else { Handle::DEVICE };
        match (self.rng.u32(0..6), self.session.mode) {
            (0, _) => {
                let file = self.choose(&Handle::ALL);
                self.call(Call::Open(file));
            }
            (1, Mode::Group) => self.session.get_device(device.function()),
            (1, Mode::Cdev) => self.session.open_cdev(device, 1),
            _ if self.session.is_open(device) => self.state(),
            _ => self.session.open(device),
        }
    }

    fn close(&mut self) {
        let file = self.choose(&Handle::ALL);
        self.call(Call::Close(file));
    }

    /// What a user does with an iommufd or a container.
    fn iommufd(&mut self) {
        let device = self.device();
        let number = self.choose(&[0, 0, 1]);
        let ioas = self.session.ioas[usize::from(number)];
        let ioas = if self.one_in(8) { self.rng.u32(..) } else { ioas };
        let flags = if self.one_in(6) { self.rng.u32(0..4) } else { 0 };
        match (self.rng.u32(0..4), self.session.mode) {
            (0, Mode::Cdev) => self.session.allocate(number),
            (0, Mode::Group) => {
                let group = self.session.group(device.function());
                self.session.enter_container(group);
            }
            (1, _) => {
                let block = session::bind(Handle::Iommufd(number));
                self.call(Call::block(device, Request::BIND_IOMMUFD, block));
            }
            (2, _) => {
                let block = Block::words(&[12, flags, ioas, 1]);
                self.call(Call::block(device, Request::ATTACH_IOMMUFD_PT, block));
            }
            _ => self.call(Call::block(
                device,
                Request::DETACH_IOMMUFD_PT,
                Block::words(&[8, flags, 1]),
            )),
        }
    }

    fn hot_reset_info(&mut self) {
        let device = self.device();
        let argsz = if self.one_in(2) { 4096 } else { self.choose(&SIZES) };
        let mut block = Block::words(&[argsz, self.rng.u32(..), self.rng.u32(..)]);
        block.flush = self.one_in(6);
        self.call(Call::block(device, Request::HOT_RESET_INFO, block));
    }

    /// Seldom a correct one: it takes its time.
    fn hot_reset(&mut self) {
        if self.one_in(6) {
            return script::right_hot_reset(self.session);
        }
        let device = self.device();
        let (first, second) = (self.file(), self.file());
        let argsz = self.choose(&SIZES);
        let flags = if self.one_in(3) { self.rng.u32(..) } else { 0 };
        let count = self.choose(&[1, 1, 2, 3, u32::MAX]);
        let block = Block::words(&[argsz, flags, count]).file(first).file(second);
        self.call(Call::block(device, Request::HOT_RESET, block));
    }

    /// The sibling more often than the function under test, which is soon bound again.
    fn bind(&mut self) {
        let to = self.choose(&[To::Driver, To::Driver, To::Stub, To::None]);
        let function = self.choose(&[0, 1, 1]);
        self.call(Call::Bind(function, to));
        if function == 0 {
            self.state();
            self.call(Call::Bind(0, To::Driver));
        }
    }

    fn set(&mut self) {
        let function = self.function();
        let name = self.choose(&["reset", "reset", "sriov_numvfs"]);
        let value = self.choose(&["1", "0", "nonsense"]).to_owned();
        self.call(Call::Set(Of::Function(function), name, value));
    }

    fn state(&mut self) {
        let function = self.function();
        self.call(Call::State(function));
    }

    fn scratch(&mut self) {
        let device = self.device();
        let value = self.rng.u8(..);
        if self.one_in(3) {
            smoke::write_scratch(self.session, device, value);
        }
        smoke::read_scratch(self.session, device);
    }

    /// Enables the memory that an earlier call may have disabled.
    fn repair(&mut self) {
        let on = self.device();
        self.call(Call::Write(on, At::config(4), Bytes(vec![3, 0])));
    }
}
