// SPDX-License-Identifier: GPL-2.0
/*
 * Puts PCI devices into states that tests of vfio-pci drivers need and that
 * cannot be had from user space, and sees what user space cannot. For test
 * guests only.
 *
 * lock=BDF
 *	takes the device_lock of that device and holds it, until an empty string
 *	or another address is written, or the module is removed. A bus or slot
 *	reset that has to lock the device fails with -EAGAIN in the meantime.
 * identity="BDF VENDOR DEVICE" (hexadecimal)
 *	gives a device that has no driver another vendor and device ID, which
 *	is what the denylist and id tables look at.
 * asleep=BDF
 *	disables runtime PM of that device, as while the system sleeps, until an
 *	empty string is written or the module is removed. If it is suspended, it
 *	cannot be resumed: -EACCES.
 * awake=BDF
 *	wakes that device and keeps it awake, as a user does, until an empty
 *	string is written or the module is removed.
 * unplugged=BDF
 *	marks that device as pciehp marks what was pulled out, until an empty
 *	string is written or the module is removed.
 * silent=BDF
 *	makes reads of the config space of that device return all ones, and
 *	writes have no effect, until an empty string is written or the module is
 *	removed.
 * no_bus_reset=BDF
 *	marks that device as one that must not see a bus reset, like those that
 *	do not survive it, until an empty string is written or the module is
 *	removed.
 * shutting_down=BDF
 *	lets drivers read from that NVMe controller that its shutdown is in
 *	progress once it is complete, until an empty string is written or the
 *	module is removed. vfio-pci-core must be loaded.
 * sleepless=BDF
 *	leaves that device and its driver out when the system goes to sleep, until
 *	an empty string is written or the module is removed. The driver of virtiofs
 *	refuses to sleep.
 * unlocked
 *	counts the secondary bus resets whose bridge was not locked. The kernel
 *	warns of the first one only.
 */

#include <linux/completion.h>
#include <linux/ftrace.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nvme.h>
#include <linux/pci.h>
#include <linux/pm_runtime.h>
#include <linux/vfio_pci_core.h>

static DEFINE_MUTEX(marks_mutex);

static struct pci_dev *get_device_at(const char *address, int *consumed)
{
	unsigned int domain, bus, slot, func;

	if (sscanf(address, "%x:%x:%x.%x%n", &domain, &bus, &slot, &func, consumed) != 4)
		return NULL;
	return pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, func));
}

static int identity_set(const char *val, const struct kernel_param *kp)
{
	struct pci_dev *pdev;
	unsigned int vendor, device;
	int consumed;
	int ret = 0;

	pdev = get_device_at(val, &consumed);
	if (!pdev)
		return -ENODEV;

	device_lock(&pdev->dev);
	if (sscanf(val + consumed, " %x %x", &vendor, &device) != 2 ||
	    vendor > U16_MAX || device > U16_MAX) {
		ret = -EINVAL;
	} else if (pdev->dev.driver) {
		ret = -EBUSY;
	} else {
		pci_info(pdev, "identity [%04x:%04x] becomes [%04x:%04x]\n",
			 pdev->vendor, pdev->device, vendor, device);
		pdev->vendor = vendor;
		pdev->device = device;
	}
	device_unlock(&pdev->dev);
	pci_dev_put(pdev);
	return ret;
}

static const struct kernel_param_ops identity_ops = {
	.set = identity_set,
};
module_param_cb(identity, &identity_ops, NULL, 0200);
MODULE_PARM_DESC(identity, "\"BDF VENDOR DEVICE\": gives an unbound device other IDs");

/* A state that one device at a time is put into; @mark does and undoes it. */
struct mark {
	int (*mark)(struct pci_dev *pdev, bool on);
	struct pci_dev *pdev;
};

/* The thread that holds the lock of the marked device; completed once it does. */
static struct task_struct *holder;
static DECLARE_COMPLETION(held_now);

/* A lock is released by the thread that took it: this thread does both. */
static int hold_lock(void *data)
{
	struct pci_dev *pdev = data;

	device_lock(&pdev->dev);
	complete(&held_now);
	while (!kthread_should_stop()) {
		set_current_state(TASK_IDLE);
		if (!kthread_should_stop())
			schedule();
		__set_current_state(TASK_RUNNING);
	}
	device_unlock(&pdev->dev);
	return 0;
}

static int mark_locked(struct pci_dev *pdev, bool on)
{
	if (!on)
		return kthread_stop(holder);
	reinit_completion(&held_now);
	holder = kthread_run(hold_lock, pdev, "hold-device-lock");
	if (IS_ERR(holder))
		return PTR_ERR(holder);
	wait_for_completion(&held_now);
	return 0;
}

/*
 * The PM core holds a reference while the system sleeps, and puts it afterwards:
 * a device that could not be suspended meanwhile is suspended then.
 *
 * It also blocks probing. Here a driver can be probed meanwhile, and must not be
 * asked to resume the device before it has set the driver data. So the end waits
 * for the device lock.
 */
static int mark_asleep(struct pci_dev *pdev, bool on)
{
	if (on) {
		pm_runtime_get_noresume(&pdev->dev);
		pm_runtime_disable(&pdev->dev);
		return 0;
	}

	guard(device)(&pdev->dev);
	pm_runtime_enable(&pdev->dev);
	/* A reset through sysfs has woken it, which runtime PM does not know. */
	if (pm_runtime_suspended(&pdev->dev) && pdev->current_state == PCI_D0)
		pm_runtime_resume(&pdev->dev);
	pm_runtime_put(&pdev->dev);
	return 0;
}

static int mark_awake(struct pci_dev *pdev, bool on)
{
	if (on)
		return pm_runtime_resume_and_get(&pdev->dev);
	pm_runtime_put(&pdev->dev);
	return 0;
}

static int mark_unplugged(struct pci_dev *pdev, bool on)
{
	WRITE_ONCE(pdev->error_state,
		   on ? pci_channel_io_perm_failure : pci_channel_io_normal);
	return 0;
}

static int mark_no_bus_reset(struct pci_dev *pdev, bool on)
{
	if (on)
		pdev->dev_flags |= PCI_DEV_FLAGS_NO_BUS_RESET;
	else
		pdev->dev_flags &= ~PCI_DEV_FLAGS_NO_BUS_RESET;
	return 0;
}

static int mark_sleepless(struct pci_dev *pdev, bool on)
{
	dev_pm_syscore_device(&pdev->dev, on);
	return 0;
}

static int mark_silent(struct pci_dev *pdev, bool on);
static int mark_shutting_down(struct pci_dev *pdev, bool on);

static struct mark locked = { .mark = mark_locked };
static struct mark asleep = { .mark = mark_asleep };
static struct mark awake = { .mark = mark_awake };
static struct mark unplugged = { .mark = mark_unplugged };
static struct mark silent = { .mark = mark_silent };
static struct mark shutting_down = { .mark = mark_shutting_down };
static struct mark no_bus_reset = { .mark = mark_no_bus_reset };
static struct mark sleepless = { .mark = mark_sleepless };

/* Those of the bus of the silent device. */
static struct pci_ops *bus_ops;

static bool is_silent(struct pci_bus *bus, unsigned int devfn)
{
	return bus == silent.pdev->bus && devfn == silent.pdev->devfn;
}

static int silent_read(struct pci_bus *bus, unsigned int devfn, int where,
		       int size, u32 *val)
{
	if (!is_silent(bus, devfn))
		return bus_ops->read(bus, devfn, where, size, val);
	PCI_SET_ERROR_RESPONSE(val);
	return PCIBIOS_SUCCESSFUL;
}

static int silent_write(struct pci_bus *bus, unsigned int devfn, int where,
			int size, u32 val)
{
	if (!is_silent(bus, devfn))
		return bus_ops->write(bus, devfn, where, size, val);
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops silent_ops;

static int mark_silent(struct pci_dev *pdev, bool on)
{
	if (on) {
		bus_ops = pdev->bus->ops;
		/* Those of arm64's host bridge call others, map_bus(). */
		silent_ops = *bus_ops;
		silent_ops.read = silent_read;
		silent_ops.write = silent_write;
		pci_bus_set_ops(pdev->bus, &silent_ops);
	} else {
		pci_bus_set_ops(pdev->bus, bus_ops);
	}
	return 0;
}

static int set_hook(struct ftrace_ops *hook, unsigned char *name, bool on)
{
	int ret = 0;

	if (on) {
		ret = ftrace_set_filter(hook, name, strlen(name), 0);
		if (!ret)
			ret = register_ftrace_function(hook);
	} else {
		unregister_ftrace_function(hook);
	}
	if (!on || ret)
		ftrace_free_filter(hook);
	return ret;
}

/* Takes the place of vfio_pci_core_ioread32(), for the marked device. */
static int read_shutting_down(struct vfio_pci_core_device *vdev, bool test_mem,
			      u32 *val, void __iomem *io)
{
	*val = ioread32(io);
	if (offset_in_page(io) == NVME_REG_CSTS &&
	    (*val & NVME_CSTS_SHST_MASK) == NVME_CSTS_SHST_CMPLT)
		*val ^= NVME_CSTS_SHST_CMPLT | NVME_CSTS_SHST_OCCUR;
	return 0;
}

static void notrace redirect_read(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *op, struct ftrace_regs *fregs)
{
	struct vfio_pci_core_device *vdev = (void *)ftrace_regs_get_argument(fregs, 0);

	if (vdev->pdev == shutting_down.pdev)
		ftrace_regs_set_instruction_pointer(fregs, (unsigned long)read_shutting_down);
}

static struct ftrace_ops reads = {
	.func = redirect_read,
	.flags = FTRACE_OPS_FL_RECURSION | FTRACE_OPS_FL_IPMODIFY,
};

static int mark_shutting_down(struct pci_dev *pdev, bool on)
{
	static unsigned char name[] = "vfio_pci_core_ioread32";

	return set_hook(&reads, name, on);
}

static void unmark(struct mark *mark)
{
	lockdep_assert_held(&marks_mutex);
	if (!mark->pdev)
		return;
	mark->mark(mark->pdev, false);
	pci_dev_put(mark->pdev);
	mark->pdev = NULL;
}

/*
 * While the module is being loaded, a later parameter may still be refused, and
 * then the module goes away without its exit function having been called.
 */
static int mark_set(const char *val, const struct kernel_param *kp)
{
	struct mark *mark = kp->arg;
	int ret, consumed;

	if (THIS_MODULE->state != MODULE_STATE_LIVE)
		return -EINVAL;
	guard(mutex)(&marks_mutex);
	unmark(mark);
	if (!*val || *val == '\n')
		return 0;

	mark->pdev = get_device_at(val, &consumed);
	if (!mark->pdev)
		return -ENODEV;
	ret = mark->mark(mark->pdev, true);
	if (ret) {
		pci_dev_put(mark->pdev);
		mark->pdev = NULL;
	}
	return ret;
}

static const struct kernel_param_ops mark_ops = {
	.set = mark_set,
};
module_param_cb(lock, &mark_ops, &locked, 0200);
MODULE_PARM_DESC(lock, "PCI address of the device whose device_lock is held, empty for none");
module_param_cb(asleep, &mark_ops, &asleep, 0200);
MODULE_PARM_DESC(asleep, "PCI address of the device whose runtime PM is disabled, empty for none");
module_param_cb(awake, &mark_ops, &awake, 0200);
MODULE_PARM_DESC(awake, "PCI address of the device that is kept awake, empty for none");
module_param_cb(unplugged, &mark_ops, &unplugged, 0200);
MODULE_PARM_DESC(unplugged, "PCI address of the device that is marked as unplugged, empty for none");
module_param_cb(silent, &mark_ops, &silent, 0200);
MODULE_PARM_DESC(silent, "PCI address of the device that does not answer, empty for none");
module_param_cb(no_bus_reset, &mark_ops, &no_bus_reset, 0200);
MODULE_PARM_DESC(no_bus_reset, "PCI address of the device that must not see a bus reset, empty for none");
module_param_cb(shutting_down, &mark_ops, &shutting_down, 0200);
MODULE_PARM_DESC(shutting_down, "PCI address of the NVMe controller whose shutdown does not end, empty for none");
module_param_cb(sleepless, &mark_ops, &sleepless, 0200);
MODULE_PARM_DESC(sleepless, "PCI address of the device that does not sleep with the system, empty for none");

static unsigned int unlocked;
module_param(unlocked, uint, 0400);
MODULE_PARM_DESC(unlocked, "Number of secondary bus resets whose bridge was not locked");

static void notrace count_unlocked(unsigned long ip, unsigned long parent_ip,
				   struct ftrace_ops *op, struct ftrace_regs *fregs)
{
	struct pci_dev *bridge = (struct pci_dev *)ftrace_regs_get_argument(fregs, 0);

	if (!bridge->block_cfg_access)
		unlocked++;
}

static struct ftrace_ops bus_resets = {
	.func = count_unlocked,
	.flags = FTRACE_OPS_FL_RECURSION,
};

static int hook_bus_resets(bool on)
{
	static unsigned char name[] = "pcibios_reset_secondary_bus";

	return set_hook(&bus_resets, name, on);
}

static int __init vfio_pci_rs_test_helper_init(void)
{
	return hook_bus_resets(true);
}
module_init(vfio_pci_rs_test_helper_init);

static void __exit vfio_pci_rs_test_helper_exit(void)
{
	hook_bus_resets(false);
	guard(mutex)(&marks_mutex);
	unmark(&locked);
	unmark(&asleep);
	unmark(&awake);
	unmark(&unplugged);
	unmark(&silent);
	unmark(&no_bus_reset);
	unmark(&shutting_down);
	unmark(&sleepless);
}
module_exit(vfio_pci_rs_test_helper_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Puts PCI devices into states that vfio-pci tests need");
