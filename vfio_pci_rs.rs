// SPDX-License-Identifier: GPL-2.0

//! `vfio_pci_rs`: `vfio-pci` with the life cycle of its functions in Rust.
//!
//! `vfio-pci-core` handles one function: config space, BARs, interrupts, power. This driver decides
//! on matters of several: which functions are in use, and when a slot or bus is reset.
//!
//! - `reflck.rs`: the lock of a reset domain
//! - `open_release.rs`: open and close
//! - `reset.rs`: resets of functions, slots and buses
//! - `attributes.rs`: the files of a function in sysfs
//! - `variant.rs`: what differs between the drivers of the module
//! - `nvme.rs`: the driver for NVMe controllers
//! - `vfio/`: the abstractions over C
//!
//! This file: the module, the driver for all functions, probe, and the files in debugfs.

// A kernel without iommufd does not call the functions for it.
#![cfg_attr(not(CONFIG_IOMMUFD), allow(dead_code))]

use kernel::{
    bindings::{
        PCI_DEVICE_ID_INTEL_DSA_SPR0,
        PCI_DEVICE_ID_INTEL_IAX_SPR0,
        PCI_DEVICE_ID_INTEL_QAT_C3XXX,
        PCI_DEVICE_ID_INTEL_QAT_C3XXX_VF,
        PCI_DEVICE_ID_INTEL_QAT_C62X,
        PCI_DEVICE_ID_INTEL_QAT_C62X_VF,
        PCI_DEVICE_ID_INTEL_QAT_DH895XCC,
        PCI_DEVICE_ID_INTEL_QAT_DH895XCC_VF, //
    },
    debugfs,
    device,
    fmt,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

mod attributes;
mod bindings;
mod nvme;
mod open_release;
mod reflck;
mod reset;
mod variant;
mod vfio;

use attributes::Files;
use bindings::work::Queue;
use nvme::VfioPciNvme;
use reflck::{
    Membership,
    Registry, //
};
use variant::Variant;
use vfio::{
    BoundFunction,
    ClosedDevice,
    Context,
    ContextId,
    CoreDevice,
    Dependent,
    DisabledDevice,
    DynamicId,
    EnabledDevice,
    Function,
    OpenDevice,
    Options,
    Owner,
    Params,
    Quiesced, //
};

/// The driver for all functions.
struct VfioPciRs;

impl Variant for VfioPciRs {
    const NAME: &'static CStr = vfio::DRIVER_NAME;
}

impl<V: Variant> vfio::Driver for V {
    const NAME: &'static CStr = V::NAME;

    const CLASS: Option<pci::Class> = V::CLASS;

    type Shared = Arc<Registry<Function>>;

    /// A device is in its reset domain as long as user space can open it.
    type Data = Membership<Function>;

    fn options() -> Options {
        let params = Params::read();

        Options {
            nointxmask: params.nointxmask,
            disable_vga: params.disable_vga,
            disable_idle_d3: params.disable_idle_d3,
        }
    }

    fn allows_sriov() -> bool {
        Params::read().enable_sriov
    }

    fn accept(pdev: &pci::Device<device::Core<'_>>) -> Result {
        if is_denylisted(pdev) {
            return Err(EINVAL);
        }
        if BoundFunction::in_core(pdev).is_bridge() {
            dev_warn!(pdev, "bridges cannot be given to user space\n");
            return Err(EINVAL);
        }

        Ok(())
    }

    fn probe(
        pdev: &pci::Device<device::Core<'_>>,
        core: ARef<CoreDevice>,
        registry: &Self::Shared,
    ) -> Result<Self::Data> {
        let scope = BoundFunction::in_core(pdev).reset_scope();

        registry.join(scope, Function::new(pdev, core), is_serialized(pdev))
    }

    fn registered(membership: &Self::Data) {
        if membership.hardware().params().background_reset
            && membership.hardware().can_reset_later()
        {
            membership.reset_later();
        }
        // It may have been dirty when it was last bound.
        membership.publish();
    }

    fn disturbed(membership: &Self::Data) {
        membership.hardware().disturb();
    }

    fn begin_unbind(membership: &Self::Data) {
        membership.hardware().begin_unbind();
    }

    fn unbind(pdev: &pci::Device<device::Core<'_>>, membership: &Self::Data) {
        membership.finish_cleaning();
        let is_owed = membership.is_dirty()
            && !membership.hardware().is_unplugged()
            && reset::reset_unbound(pdev).is_err();
        if !is_owed {
            membership.forgive();
        }
    }

    fn open(device: ClosedDevice<'_, Self>) -> Result<EnabledDevice<'_, Self>> {
        open_release::open(device)
    }

    fn is_clean(membership: &Self::Data) -> bool {
        open_release::is_clean(membership)
    }

    fn finish_later(membership: &Self::Data) -> bool {
        open_release::finish_later(membership)
    }

    fn close(device: EnabledDevice<'_, Self>) -> DisabledDevice<'_, Self> {
        open_release::close(device)
    }

    fn quiesced(device: &Quiesced<'_, Self>) {
        open_release::quiesced(device)
    }

    fn bind_iommufd(
        membership: &Self::Data,
        context: ContextId,
        bind: impl FnOnce() -> Result<u32>,
    ) -> Result {
        open_release::bind_iommufd(membership, context, bind)
    }

    fn unbind_iommufd(membership: &Self::Data, unbind: impl FnOnce()) {
        open_release::unbind_iommufd(membership, unbind)
    }

    fn attach_iommufd(membership: &Self::Data, attach: impl FnOnce() -> Result) -> Result {
        open_release::attach_iommufd(membership, attach)
    }

    fn detach_iommufd(membership: &Self::Data, detach: impl FnOnce()) {
        open_release::detach_iommufd(membership, detach)
    }

    fn hot_reset_info(
        device: &OpenDevice<'_, Self>,
        context: &Context<'_>,
        dependents: &mut [Dependent],
    ) -> Result {
        reset::hot_reset_info(device.data(), context, dependents)
    }

    fn hot_reset(device: &OpenDevice<'_, Self>, owner: &Owner<'_>) -> Result {
        reset::hot_reset(device.data(), owner)
    }
}

/// Returns whether a function has errata that let user space endanger the host. Logs it if so.
fn is_denylisted(pdev: &pci::Device) -> bool {
    let id = u32::from(pdev.device_id());

    if pdev.vendor_id() != pci::Vendor::INTEL
        || !matches!(
            id,
            PCI_DEVICE_ID_INTEL_QAT_C3XXX
                | PCI_DEVICE_ID_INTEL_QAT_C3XXX_VF
                | PCI_DEVICE_ID_INTEL_QAT_C62X
                | PCI_DEVICE_ID_INTEL_QAT_C62X_VF
                | PCI_DEVICE_ID_INTEL_QAT_DH895XCC
                | PCI_DEVICE_ID_INTEL_QAT_DH895XCC_VF
                | PCI_DEVICE_ID_INTEL_DSA_SPR0
                | PCI_DEVICE_ID_INTEL_IAX_SPR0
        )
    {
        return false;
    }

    let vendor = pdev.vendor_id().as_raw();
    if Params::read().disable_denylist {
        dev_warn!(
            pdev,
            "device denylist disabled - allowing device {vendor:04x}:{id:04x}.\n"
        );
        return false;
    }

    dev_warn!(
        pdev,
        "{vendor:04x}:{id:04x} exists in vfio-pci device denylist, driver probing disallowed.\n"
    );
    true
}

/// Returns whether the parameter `serialize` lists a device.
fn is_serialized(pdev: &pci::Device) -> bool {
    let ids = [
        pdev.vendor_id().as_raw(),
        pdev.device_id(),
        pdev.subsystem_vendor_id(),
        pdev.subsystem_device_id(),
    ];
    let class = pdev.pci_class().as_raw();

    // The IDs are checked when the module is loaded.
    split(Params::read().serialize)
        .filter_map(|text| DynamicId::parse(text).ok())
        .any(|id| id.covers(ids, class))
}

/// The functions that were unbound without the reset that they still need.
struct Debts(Arc<Registry<Function>>);

impl Drop for Debts {
    /// Logs them, as nothing remembers them any more.
    fn drop(&mut self) {
        self.0.for_each_debt(|address| {
            pr_warn!("{address} has not been reset since its last use\n");
        });
    }
}

/// The module. Fields are dropped in this order: the drivers go first.
#[pin_data]
struct Module {
    #[pin]
    driver: vfio::Registration<VfioPciRs>,
    #[pin]
    _nvme: vfio::Registration<VfioPciNvme>,
    _debts: Debts,
    _queue: Queue,
    #[pin]
    _reset_domains: debugfs::File<Arc<Registry<Function>>>,
    _debugfs: debugfs::Dir,
}

impl kernel::InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            if let Some(text) =
                split(Params::read().serialize).find(|text| DynamicId::parse(text).is_err())
            {
                pr_err!("serialize has the invalid id \"{text}\"\n");
                return Err(EINVAL);
            }
            let registry = Registry::new()?;
            let debugfs = debugfs::Dir::new(c"vfio_pci_rs");

            Ok(try_pin_init!(Self {
                _reset_domains <- debugfs.read_callback_file(
                    c"reset_domains",
                    registry.clone(),
                    &|registry, f: &mut fmt::Formatter<'_>| f.write_fmt(fmt!("{}", **registry)),
                ),
                _debts: Debts(registry.clone()),
                _queue: Queue::new()?,
                driver <- register::<VfioPciRs>(module, &registry),
                _nvme <- register::<VfioPciNvme>(module, &registry),
                _: {
                    add_ids(&driver);
                    if Params::read().disable_denylist {
                        pr_warn!("device denylist disabled.\n");
                    }
                },
                _debugfs: debugfs.clone(),
            }))
        })
    }
}

/// Registers a driver, whose functions join the domains of `registry`.
fn register<V: Variant>(
    module: &'static ThisModule,
    registry: &Arc<Registry<Function>>,
) -> impl PinInit<vfio::Registration<V>, Error> {
    vfio::Registration::new(module, registry.clone(), vfio::DIRECTORY, Files::ATTRIBUTES)
}

/// Returns the texts in a list that are separated by commas.
///
/// A list that is not valid UTF-8 comes as one text, which is no ID.
fn split(list: &'static CStr) -> impl Iterator<Item = &'static str> {
    let list = list.to_str().unwrap_or("not UTF-8");

    list.split(',').filter(|text| !text.is_empty())
}

/// Adds the IDs of the parameter `ids` to the driver. Logs and skips those that fail.
fn add_ids(driver: &vfio::Registration<VfioPciRs>) {
    for text in split(Params::read().ids) {
        let Ok(id) = DynamicId::parse(text) else {
            pr_warn!("invalid id string \"{text}\"\n");
            continue;
        };
        match driver.add_dynid(&id) {
            Ok(()) => pr_info!("add {id}\n"),
            Err(error) => pr_warn!("failed to add dynamic id {id} ({})\n", error.to_errno()),
        }
    }
}

module! {
    type: Module,
    name: "vfio_pci_rs",
    authors: ["vfio-pci-rs"],
    description: "VFIO PCI - User Level meta-driver, life cycle in Rust",
    license: "GPL v2",
}
