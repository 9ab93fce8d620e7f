// SPDX-License-Identifier: GPL-2.0
/*
 * What the user of one open function can do with it: power states, memory that is
 * disabled, resets, interrupts, ioeventfds; what a release undoes of that, and how
 * the user is asked for the release.
 *
 * The functions are named by environment variables, see vfio_pci_rs_test.c. Here
 * all functions of the bus have to be named, and they have to be QEMU's:
 *
 *   VFIO_PCI_RS_BUS   two virtio 1 functions at least, without a reset of their own
 *   VFIO_PCI_RS_FLR   two virtio 1 functions at least, with function level reset
 *   VFIO_PCI_RS_EDU   edu devices of a conventional bus, without a reset of their
 *                     own and without power management
 *
 * With VFIO_PCI_RS_DRIVER=vfio-pci they are tested with that driver, which has to
 * give the same answers. The driver's parameter nointxmask is set now and then.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "functions.h"
#include "kselftest_harness.h"

/* How long something may take that has to happen. */
#define LIMIT_MS	10000
/* How long something is watched that must not change. */
#define WATCH_MS	200

/* Of an edu device, in BAR 0; to be accessed by 32 bits. */
#define EDU_ID		0x00
#define EDU_ID_LOW	0xed
/* Reads as the inverse of what was written. */
#define EDU_LIVENESS	0x04
#define EDU_RAISE	0x60
#define EDU_ACK		0x64

/* Power states, as PCI_PM_CTRL has them. */
#define D0		0
#define D3HOT		3

#define TRIGGER		VFIO_IRQ_SET_ACTION_TRIGGER
#define MASK		VFIO_IRQ_SET_ACTION_MASK
#define UNMASK		VFIO_IRQ_SET_ACTION_UNMASK
#define NONE		VFIO_IRQ_SET_DATA_NONE
#define BOOL		VFIO_IRQ_SET_DATA_BOOL
#define EVENTFD		VFIO_IRQ_SET_DATA_EVENTFD

#define VECTORS		2
#define BARS_SIZE	(PCI_STD_NUM_BARS * sizeof(__u32))

/* An open function: its largest BAR in the file, and the first page of that mapped. */
struct handle {
	int fd;
	off_t bar;
	unsigned char *page;
};

static int config_write(int fd, int where, __u16 value)
{
	return pwrite(fd, &value, sizeof(value), config_offset(fd) + where) == sizeof(value) ?
		0 : -errno;
}

static int set_command(int fd, __u16 set, __u16 clear)
{
	return config_write(fd, PCI_COMMAND, (config_read(fd, PCI_COMMAND) & ~clear) | set);
}

/* Returns where a capability is in configuration space, or 0. */
static int find_capability(int fd, unsigned int id)
{
	unsigned int header, where = config_read(fd, PCI_CAPABILITY_LIST) & 0xfc;
	int left;

	for (left = 48; left && where; left--) {
		header = config_read(fd, where);
		if ((header & 0xff) == id)
			return where;
		where = header >> 8 & 0xfc;
	}
	return 0;
}

static int set_power_state(int fd, __u16 state)
{
	int where = find_capability(fd, PCI_CAP_ID_PM) + PCI_PM_CTRL;

	return config_write(fd, where, (config_read(fd, where) & ~PCI_PM_CTRL_STATE_MASK) | state);
}

static unsigned int power_state(int fd)
{
	return config_read(fd, find_capability(fd, PCI_CAP_ID_PM) + PCI_PM_CTRL) &
		PCI_PM_CTRL_STATE_MASK;
}

static bool host_has(const char *bdf, int where, __u16 bits)
{
	__u16 value;

	return read_host_config(bdf, where, &value, sizeof(value)) == sizeof(value) &&
		(value & bits) == bits;
}

/* Opens a function, with memory enabled. */
static int take(struct user *user, const char *bdf, struct handle *handle)
{
	__u64 size = 0;
	int i, ret;

	handle->fd = open_function(user, bdf);
	if (handle->fd < 0)
		return handle->fd;
	handle->page = MAP_FAILED;
	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		struct vfio_region_info info = {
			.argsz = sizeof(info),
			.index = VFIO_PCI_BAR0_REGION_INDEX + i,
		};

		if (ioctl(handle->fd, VFIO_DEVICE_GET_REGION_INFO, &info) || info.size <= size ||
		    !(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
			continue;
		size = info.size;
		handle->bar = info.offset;
	}
	ret = set_command(handle->fd, PCI_COMMAND_MEMORY, 0);
	if (!ret)
		handle->page = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED,
				    handle->fd, handle->bar);
	return ret ?: handle->page == MAP_FAILED ? -errno : 0;
}

static int unmap(struct handle *handle)
{
	int ret = handle->page == MAP_FAILED ? 0 : munmap(handle->page, getpagesize());

	handle->page = MAP_FAILED;
	return ret ? -errno : 0;
}

/* Releases it, if that has not been done: a mapping would keep it open. */
static int let_go(struct handle *handle)
{
	int ret;

	if (handle->fd < 0)
		return 0;
	ret = unmap(handle);
	if (close(handle->fd))
		ret = -errno;
	handle->fd = -1;
	return ret;
}

static bool raises_sigbus(const unsigned char *page)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		(void)__atomic_load_n((const __u32 *)page, __ATOMIC_RELAXED);
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
		WTERMSIG(status) == SIGBUS;
}

static int feature(int fd, unsigned int number, int eventfd)
{
	struct {
		struct vfio_device_feature header;
		struct vfio_device_low_power_entry_with_wakeup entry;
	} feature = {
		.header = {
			.argsz = sizeof(feature),
			.flags = VFIO_DEVICE_FEATURE_SET | number,
		},
		.entry = {
			.wakeup_eventfd = eventfd,
		},
	};

	return ioctl(fd, VFIO_DEVICE_FEATURE, &feature) ? -errno : 0;
}

static int fall_asleep(int fd)
{
	return feature(fd, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, 0);
}

static int fall_asleep_with_wakeup(int fd, int eventfd)
{
	return feature(fd, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, eventfd);
}

static int wake_up(int fd)
{
	return feature(fd, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT, 0);
}

static bool can_be_reset(int fd)
{
	struct vfio_device_info info = {
		.argsz = sizeof(info),
	};

	return !ioctl(fd, VFIO_DEVICE_GET_INFO, &info) && info.flags & VFIO_DEVICE_FLAGS_RESET;
}

static int reset_function(int fd)
{
	return ioctl(fd, VFIO_DEVICE_RESET) ? -errno : 0;
}

/* Waits for an event and takes it. */
static bool arrives(int eventfd)
{
	eventfd_t count;

	return is_signalled(eventfd, LIMIT_MS) && !eventfd_read(eventfd, &count);
}

static bool stays_quiet(int eventfd)
{
	return !is_signalled(eventfd, WATCH_MS);
}

static int irq_count(int fd, unsigned int index)
{
	struct vfio_irq_info info = {
		.argsz = sizeof(info),
		.index = index,
	};

	return ioctl(fd, VFIO_DEVICE_GET_IRQ_INFO, &info) ? -errno : (int)info.count;
}

/* Returns an eventfd that is signalled by the first vector of an interrupt. */
static int enable_irq(int fd, unsigned int index)
{
	int ret, trigger = eventfd(0, EFD_CLOEXEC);

	ret = set_irqs(fd, index, EVENTFD | TRIGGER, 1, &trigger);
	return ret ?: trigger;
}

static int disable_irqs(int fd, unsigned int index)
{
	return set_irqs(fd, index, NONE | TRIGGER, 0, NULL);
}

static void check_loopback(struct __test_metadata *_metadata, int fd, unsigned int index)
{
	int i, trigger[VECTORS], count = irq_count(fd, index);
	__u8 last[VECTORS] = {}, none[VECTORS] = {};

	ASSERT_LT(0, count);
	if (count > VECTORS)
		count = VECTORS;
	last[count - 1] = 1;
	EXPECT_EQ(-EINVAL, set_irqs(fd, index, NONE | TRIGGER, count, NULL));
	for (i = 0; i < count; i++)
		trigger[i] = eventfd(0, EFD_CLOEXEC);
	ASSERT_EQ(0, set_irqs(fd, index, EVENTFD | TRIGGER, count, trigger));

	ASSERT_EQ(0, set_irqs(fd, index, NONE | TRIGGER, count, NULL));
	for (i = 0; i < count; i++)
		EXPECT_TRUE(arrives(trigger[i]));
	ASSERT_EQ(0, set_irqs(fd, index, BOOL | TRIGGER, count, last));
	EXPECT_TRUE(arrives(trigger[count - 1]));
	ASSERT_EQ(0, set_irqs(fd, index, BOOL | TRIGGER, count, none));
	for (i = 0; i < count; i++)
		EXPECT_FALSE(is_signalled(trigger[i], 0));

	ASSERT_EQ(0, disable_irqs(fd, index));
	EXPECT_EQ(-EINVAL, set_irqs(fd, index, NONE | TRIGGER, count, NULL));
	for (i = 0; i < count; i++)
		ASSERT_EQ(0, close(trigger[i]));
}

/* Compares two states of a configuration space, and says where they differ. */
static bool same_config(const char *whose, const unsigned char *before, const unsigned char *after)
{
	bool same = true;
	int i;

	for (i = 0; i < PCI_CFG_SPACE_EXP_SIZE; i++) {
		if (before[i] == after[i])
			continue;
		ksft_print_msg("%s config space: 0x%x is 0x%02x, and was 0x%02x\n", whose, i,
			       after[i], before[i]);
		same = false;
	}
	return same;
}

/* Reads all of it, as the user sees it. */
static bool read_config(int fd, unsigned char *config)
{
	struct vfio_region_info info = {
		.argsz = sizeof(info),
		.index = VFIO_PCI_CONFIG_REGION_INDEX,
	};

	return !ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info) &&
		info.size <= PCI_CFG_SPACE_EXP_SIZE &&
		pread(fd, config, info.size, info.offset) == (ssize_t)info.size;
}

/* What a user has written to configuration space, and enabled, does not outlive a release. */
static void check_restored(struct __test_metadata *_metadata, struct user *user, const char *bdf,
			   struct handle *handle, unsigned int index)
{
	unsigned char host[2][PCI_CFG_SPACE_EXP_SIZE] = {}, own[2][PCI_CFG_SPACE_EXP_SIZE] = {};
	bool msix = index == VFIO_PCI_MSIX_IRQ_INDEX;
	const __u32 all = ~0;
	int i, msi, trigger;

	ASSERT_EQ(0, let_go(handle));
	ASSERT_TRUE(attribute_comes_to(bdf, "power/runtime_status", "suspended"));
	ASSERT_LE(PCI_CFG_SPACE_SIZE, read_host_config(bdf, 0, host[0], sizeof(host[0])));
	ASSERT_EQ(0, take(user, bdf, handle));
	ASSERT_TRUE(read_config(handle->fd, own[0]));

	/* Virtual ones, and one that the hardware gets. */
	for (i = 0; i < BARS_SIZE; i += sizeof(all))
		ASSERT_EQ(sizeof(all), pwrite(handle->fd, &all, sizeof(all),
					      config_offset(handle->fd) + PCI_BASE_ADDRESS_0 + i));
	ASSERT_EQ(0, config_write(handle->fd, PCI_INTERRUPT_LINE, 0x5a));
	ASSERT_EQ(0, config_write(handle->fd, PCI_CACHE_LINE_SIZE, 0x3c));
	ASSERT_TRUE(read_config(handle->fd, own[1]));
	EXPECT_NE(0, memcmp(own[0] + PCI_BASE_ADDRESS_0, own[1] + PCI_BASE_ADDRESS_0, BARS_SIZE));
	EXPECT_EQ(0x5a, own[1][PCI_INTERRUPT_LINE]);
	EXPECT_EQ(0x3c, own[1][PCI_CACHE_LINE_SIZE]);
	ASSERT_LE(PCI_CFG_SPACE_SIZE, read_host_config(bdf, 0, host[1], sizeof(host[1])));
	EXPECT_EQ(0, memcmp(host[0] + PCI_BASE_ADDRESS_0, host[1] + PCI_BASE_ADDRESS_0, BARS_SIZE));
	EXPECT_EQ(host[0][PCI_INTERRUPT_LINE], host[1][PCI_INTERRUPT_LINE]);
	EXPECT_EQ(0x3c, host[1][PCI_CACHE_LINE_SIZE]);

	ASSERT_EQ(0, set_command(handle->fd, PCI_COMMAND_MASTER, 0));
	trigger = enable_irq(handle->fd, index);
	ASSERT_LE(0, trigger);
	msi = find_capability(handle->fd, msix ? PCI_CAP_ID_MSIX : PCI_CAP_ID_MSI) + PCI_MSI_FLAGS;
	EXPECT_TRUE(host_has(bdf, msi, msix ? PCI_MSIX_FLAGS_ENABLE : PCI_MSI_FLAGS_ENABLE));
	EXPECT_TRUE(host_has(bdf, PCI_COMMAND, PCI_COMMAND_MASTER));

	ASSERT_EQ(0, let_go(handle));
	ASSERT_EQ(0, close(trigger));
	ASSERT_TRUE(attribute_comes_to(bdf, "power/runtime_status", "suspended"));
	ASSERT_LE(PCI_CFG_SPACE_SIZE, read_host_config(bdf, 0, host[1], sizeof(host[1])));
	EXPECT_TRUE(same_config("the host's", host[0], host[1]));
	ASSERT_EQ(0, take(user, bdf, handle));
	ASSERT_TRUE(read_config(handle->fd, own[1]));
	EXPECT_TRUE(same_config("the user's", own[0], own[1]));
}

/*
 * A function with power management, whose siblings are not bound. Each kind of it is
 * opened in one of the two ways, which make no difference once it is open.
 */
FIXTURE(device) {
	struct functions functions;
	const char *bdf;
	struct user user;
	struct handle handle;
	int fd;
};

FIXTURE_VARIANT(device) {
	const char *functions;
	bool resets;
	bool cdev;
};

FIXTURE_VARIANT_ADD(device, bus_group) {
	.functions = "VFIO_PCI_RS_BUS",
	.resets = false,
	.cdev = false,
};

FIXTURE_VARIANT_ADD(device, flr_cdev) {
	.functions = "VFIO_PCI_RS_FLR",
	.resets = true,
	.cdev = true,
};

/* Reads the status of the virtio device, which a reset sets to 0, as does writing that. */
static int read_status(struct handle *handle)
{
	__u8 status;

	return pread(handle->fd, &status, 1, handle->bar + VIRTIO_PCI_COMMON_STATUS) == 1 ?
		status : -errno;
}

static int write_status(struct handle *handle, __u8 status)
{
	return pwrite(handle->fd, &status, 1, handle->bar + VIRTIO_PCI_COMMON_STATUS) == 1 ?
		0 : -errno;
}

FIXTURE_SETUP(device)
{
	int ret = functions_find(variant->functions, 1, &self->functions);

	self->handle.fd = -1;
	if (ret == -ENODEV)
		SKIP(return, "%s names no function", variant->functions);
	ASSERT_EQ(0, ret);
	self->bdf = self->functions.bdf[0];
	self->functions.count = 1;
	ASSERT_EQ(0, bind_functions(&self->functions));
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
	ASSERT_EQ(0, take(&self->user, self->bdf, &self->handle));
	self->fd = self->handle.fd;
	/* Firmware may have used it, and nothing has reset it since. */
	ASSERT_EQ(0, write_status(&self->handle, 0));
}

FIXTURE_TEARDOWN(device)
{
	EXPECT_EQ(0, let_go(&self->handle));
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

/* Whether the function does what is written to its BAR, by either way. Leaves its status 0. */
static bool is_usable(struct handle *handle)
{
	unsigned char *status = handle->page + VIRTIO_PCI_COMMON_STATUS;

	if (write_status(handle, VIRTIO_CONFIG_S_ACKNOWLEDGE) ||
	    __atomic_load_n(status, __ATOMIC_RELAXED) != VIRTIO_CONFIG_S_ACKNOWLEDGE)
		return false;
	__atomic_store_n(status, 0, __ATOMIC_RELAXED);
	return read_status(handle) == 0;
}

TEST_F(device, unbind_asks_for_release)
{
	int request = request_eventfd(self->fd);
	pid_t pid;

	ASSERT_LE(0, request);
	EXPECT_FALSE(is_signalled(request, 0));
	/* The child would inherit the mapping, and wait for itself. */
	ASSERT_EQ(0, unmap(&self->handle));
	pid = begin(unbind_function, self->bdf);
	ASSERT_LE(0, pid);
	EXPECT_TRUE(is_signalled(request, LIMIT_MS));
	EXPECT_TRUE(waits(pid));
	EXPECT_EQ(0, read_status(&self->handle));
	ASSERT_EQ(0, let_go(&self->handle));
	EXPECT_TRUE(succeeds(pid));
	EXPECT_FALSE(is_bound(self->bdf));
	ASSERT_EQ(0, close(request));
}

TEST_F(device, asleep_until_it_is_used)
{
	int i;

	EXPECT_TRUE(comes_to(self->bdf, "D0"));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, fall_asleep(self->fd));
		EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
		/* Only in D0 it can be read, after which the function goes back to sleep. */
		EXPECT_EQ(0, read_status(&self->handle));
		EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
		EXPECT_NE(~0U, config_read(self->fd, PCI_VENDOR_ID));
		EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
		EXPECT_TRUE(raises_sigbus(self->handle.page));

		ASSERT_EQ(0, wake_up(self->fd));
		EXPECT_TRUE(comes_to(self->bdf, "D0"));
		EXPECT_TRUE(is_usable(&self->handle));
	}
}

TEST_F(device, low_power_refused)
{
	EXPECT_EQ(0, wake_up(self->fd));
	EXPECT_EQ(-EINVAL, fall_asleep_with_wakeup(self->fd, -1));
	EXPECT_EQ(-EBADF, fall_asleep_with_wakeup(self->fd, 1000));
	EXPECT_EQ(-EINVAL, fall_asleep_with_wakeup(self->fd, self->fd));
	EXPECT_TRUE(is_usable(&self->handle));

	ASSERT_EQ(0, fall_asleep(self->fd));
	EXPECT_EQ(-EINVAL, fall_asleep(self->fd));
	EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
	EXPECT_EQ(0, wake_up(self->fd));
	EXPECT_EQ(0, wake_up(self->fd));
	EXPECT_TRUE(is_usable(&self->handle));
}

/* Who wakes a function up with an eventfd for it ends its sleep. */
TEST_F(device, woken_by_the_host)
{
	int event = eventfd(0, EFD_CLOEXEC);

	ASSERT_EQ(0, fall_asleep_with_wakeup(self->fd, event));
	EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
	EXPECT_TRUE(raises_sigbus(self->handle.page));
	EXPECT_FALSE(is_signalled(event, 0));
	ASSERT_EQ(0, write_attribute(self->bdf, "power/control", "on"));
	EXPECT_TRUE(arrives(event));
	ASSERT_EQ(0, write_attribute(self->bdf, "power/control", "auto"));
	EXPECT_TRUE(stays_quiet(event));
	EXPECT_TRUE(comes_to(self->bdf, "D0"));
	EXPECT_TRUE(is_usable(&self->handle));

	ASSERT_EQ(0, fall_asleep(self->fd));
	EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
	ASSERT_EQ(0, wake_up(self->fd));
	EXPECT_FALSE(is_signalled(event, 0));
	ASSERT_EQ(0, close(event));
}

TEST_F(device, woken_by_its_user)
{
	int event = eventfd(0, EFD_CLOEXEC);

	ASSERT_EQ(0, fall_asleep_with_wakeup(self->fd, event));
	EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
	EXPECT_NE(~0U, config_read(self->fd, PCI_VENDOR_ID));
	EXPECT_TRUE(arrives(event));
	EXPECT_TRUE(stays_quiet(event));
	EXPECT_TRUE(comes_to(self->bdf, "D0"));
	EXPECT_TRUE(is_usable(&self->handle));
	ASSERT_EQ(0, close(event));
}

TEST_F(device, released_asleep)
{
	int i, event = eventfd(0, EFD_CLOEXEC);

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, i == 0 ? fall_asleep(self->fd) :
			  i == 1 ? fall_asleep_with_wakeup(self->fd, event) :
			  set_power_state(self->fd, D3HOT));
		EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
		ASSERT_EQ(0, let_go(&self->handle));
		EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
		ASSERT_EQ(0, take(&self->user, self->bdf, &self->handle));
		self->fd = self->handle.fd;
		EXPECT_TRUE(comes_to(self->bdf, "D0"));
		EXPECT_TRUE(is_usable(&self->handle));
	}
	/* The release woke it up itself, when nobody was to be told any more. */
	EXPECT_FALSE(is_signalled(event, 0));
	ASSERT_EQ(0, close(event));
}

TEST_F(device, memory_disabled)
{
	int i;

	for (i = 0; i < 2; i++) {
		EXPECT_TRUE(is_usable(&self->handle));
		ASSERT_EQ(0, set_command(self->fd, 0, PCI_COMMAND_MEMORY));
		EXPECT_EQ(-EIO, read_status(&self->handle));
		EXPECT_EQ(-EIO, write_status(&self->handle, 0));
		EXPECT_TRUE(raises_sigbus(self->handle.page));
		ASSERT_EQ(0, set_command(self->fd, PCI_COMMAND_MEMORY, 0));
		EXPECT_TRUE(is_usable(&self->handle));
	}
}

TEST_F(device, d3hot_by_config)
{
	int i;

	for (i = 0; i < 2; i++) {
		EXPECT_TRUE(is_usable(&self->handle));
		ASSERT_EQ(0, set_power_state(self->fd, D3HOT));
		EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
		EXPECT_EQ(D3HOT, power_state(self->fd));
		EXPECT_EQ(-EIO, read_status(&self->handle));
		EXPECT_EQ(-EIO, write_status(&self->handle, 0));
		EXPECT_TRUE(raises_sigbus(self->handle.page));
		ASSERT_EQ(0, set_power_state(self->fd, D0));
		EXPECT_TRUE(comes_to(self->bdf, "D0"));
		EXPECT_EQ(D0, power_state(self->fd));
		EXPECT_TRUE(is_usable(&self->handle));
	}
}

TEST_F(device, restored_at_release)
{
	check_restored(_metadata, &self->user, self->bdf, &self->handle, VFIO_PCI_MSIX_IRQ_INDEX);
}

TEST_F(device, reset)
{
	unsigned char before[PCI_CFG_SPACE_EXP_SIZE] = {}, after[PCI_CFG_SPACE_EXP_SIZE] = {};

	EXPECT_EQ(variant->resets, can_be_reset(self->fd));
	ASSERT_EQ(0, write_status(&self->handle, VIRTIO_CONFIG_S_ACKNOWLEDGE));
	if (!variant->resets) {
		EXPECT_EQ(-EINVAL, reset_function(self->fd));
		EXPECT_EQ(VIRTIO_CONFIG_S_ACKNOWLEDGE, read_status(&self->handle));
		return;
	}
	ASSERT_TRUE(read_config(self->fd, before));
	ASSERT_EQ(0, reset_function(self->fd));
	EXPECT_EQ(0, read_status(&self->handle));
	ASSERT_TRUE(read_config(self->fd, after));
	EXPECT_TRUE(same_config("the user's", before, after));
	EXPECT_TRUE(is_usable(&self->handle));

	ASSERT_EQ(0, write_status(&self->handle, VIRTIO_CONFIG_S_ACKNOWLEDGE));
	ASSERT_EQ(0, set_power_state(self->fd, D3HOT));
	ASSERT_EQ(0, reset_function(self->fd));
	EXPECT_TRUE(comes_to(self->bdf, "D0"));
	EXPECT_EQ(0, read_status(&self->handle));
	EXPECT_TRUE(is_usable(&self->handle));
}

TEST_F(device, loopback)
{
	check_loopback(_metadata, self->fd, VFIO_PCI_INTX_IRQ_INDEX);
	check_loopback(_metadata, self->fd, VFIO_PCI_MSIX_IRQ_INDEX);
	check_loopback(_metadata, self->fd, VFIO_PCI_ERR_IRQ_INDEX);
	check_loopback(_metadata, self->fd, VFIO_PCI_REQ_IRQ_INDEX);
}

/* Two functions of a bus, all of which is bound: they are reset together. */
FIXTURE(siblings) {
	struct functions functions;
	struct user user;
	struct handle handle[2];
};

FIXTURE_VARIANT(siblings) {
	const char *functions;
	bool cdev;
};

FIXTURE_VARIANT_ADD(siblings, bus_group) {
	.functions = "VFIO_PCI_RS_BUS",
	.cdev = false,
};

FIXTURE_VARIANT_ADD(siblings, flr_cdev) {
	.functions = "VFIO_PCI_RS_FLR",
	.cdev = true,
};

FIXTURE_SETUP(siblings)
{
	int i, ret = functions_setup(variant->functions, 2, &self->functions);

	if (ret == -ENODEV)
		SKIP(return, "%s names no two functions", variant->functions);
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, take(&self->user, self->functions.bdf[i], &self->handle[i]));
		ASSERT_EQ(0, write_status(&self->handle[i], VIRTIO_CONFIG_S_ACKNOWLEDGE));
	}
}

FIXTURE_TEARDOWN(siblings)
{
	EXPECT_EQ(0, let_go(&self->handle[0]));
	EXPECT_EQ(0, let_go(&self->handle[1]));
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

/* Functions that sleep are reset as well, and sleep on. */
TEST_F(siblings, hot_reset_asleep)
{
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, fall_asleep(self->handle[i].fd));
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
	}
	ASSERT_EQ(0, hot_reset(&self->user, self->handle[0].fd));
	for (i = 0; i < 2; i++) {
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
		EXPECT_TRUE(raises_sigbus(self->handle[i].page));
		EXPECT_EQ(0, read_status(&self->handle[i]));
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
		ASSERT_EQ(0, wake_up(self->handle[i].fd));
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D0"));
		EXPECT_TRUE(is_usable(&self->handle[i]));
	}
}

/* Functions whose users have put them into D3hot come out of it in D0. */
TEST_F(siblings, hot_reset_in_d3hot)
{
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, set_power_state(self->handle[i].fd, D3HOT));
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
	}
	ASSERT_EQ(0, hot_reset(&self->user, self->handle[0].fd));
	for (i = 0; i < 2; i++) {
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D0"));
		EXPECT_EQ(D0, power_state(self->handle[i].fd));
		EXPECT_EQ(0, read_status(&self->handle[i]));
		EXPECT_TRUE(is_usable(&self->handle[i]));
	}
}

/* A device that raises interrupts when it is told to. */
FIXTURE(edu) {
	struct functions functions;
	const char *bdf;
	struct user user;
	struct handle handle;
	int fd;
};

FIXTURE_VARIANT(edu) {
	bool cdev;
	/* Masks INTx at the interrupt controller, and not in the function. */
	bool nointxmask;
};

FIXTURE_VARIANT_ADD(edu, group) {
	.cdev = false,
	.nointxmask = false,
};

FIXTURE_VARIANT_ADD(edu, cdev) {
	.cdev = true,
	.nointxmask = false,
};

FIXTURE_VARIANT_ADD(edu, nointxmask) {
	.cdev = true,
	.nointxmask = true,
};

static __u32 edu_read(struct handle *handle, int where)
{
	__u32 value;

	return pread(handle->fd, &value, sizeof(value), handle->bar + where) == sizeof(value) ?
		value : ~0U;
}

static int edu_write(struct handle *handle, int where, __u32 value)
{
	return pwrite(handle->fd, &value, sizeof(value), handle->bar + where) == sizeof(value) ?
		0 : -errno;
}

static int raise_irq(struct handle *handle)
{
	return edu_write(handle, EDU_RAISE, 1);
}

static int ack_irq(struct handle *handle)
{
	return edu_write(handle, EDU_ACK, ~0U);
}

/* Whether the function itself holds its INTx back, whatever its user is told. */
static bool is_masked_in(const char *bdf)
{
	return host_has(bdf, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE);
}

FIXTURE_SETUP(edu)
{
	int ret = functions_find("VFIO_PCI_RS_EDU", 1, &self->functions);

	self->handle.fd = -1;
	if (ret == -ENODEV)
		SKIP(return, "VFIO_PCI_RS_EDU names no function");
	ASSERT_EQ(0, ret);
	self->bdf = self->functions.bdf[0];
	self->functions.count = 1;
	/* What holds for a function is what the parameter was when it was bound. */
	ASSERT_EQ(0, set_parameter("nointxmask", variant->nointxmask));
	ASSERT_EQ(0, bind_functions(&self->functions));
	ASSERT_EQ(0, set_parameter("nointxmask", false));
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
	ASSERT_EQ(0, take(&self->user, self->bdf, &self->handle));
	self->fd = self->handle.fd;
	ASSERT_EQ(EDU_ID_LOW, edu_read(&self->handle, EDU_ID) & 0xff);
}

FIXTURE_TEARDOWN(edu)
{
	/* No reset takes back what it has raised. */
	EXPECT_EQ(0, ack_irq(&self->handle));
	EXPECT_EQ(0, let_go(&self->handle));
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

TEST_F(edu, reset)
{
	EXPECT_FALSE(can_be_reset(self->fd));
	EXPECT_EQ(-EINVAL, reset_function(self->fd));
}

TEST_F(edu, restored_at_release)
{
	check_restored(_metadata, &self->user, self->bdf, &self->handle, VFIO_PCI_MSI_IRQ_INDEX);
}

TEST_F(edu, loopback)
{
	check_loopback(_metadata, self->fd, VFIO_PCI_INTX_IRQ_INDEX);
	check_loopback(_metadata, self->fd, VFIO_PCI_MSI_IRQ_INDEX);
	check_loopback(_metadata, self->fd, VFIO_PCI_REQ_IRQ_INDEX);
}

TEST_F(edu, intx_is_masked_when_it_arrives)
{
	int event = enable_irq(self->fd, VFIO_PCI_INTX_IRQ_INDEX);

	ASSERT_LE(0, event);
	EXPECT_FALSE(is_masked_in(self->bdf));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(arrives(event));
	EXPECT_EQ(!variant->nointxmask, is_masked_in(self->bdf));
	EXPECT_EQ(0, config_read(self->fd, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);
	EXPECT_TRUE(stays_quiet(event));

	/* It is still pending: another event, and masked again. */
	ASSERT_EQ(0, set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, NONE | UNMASK, 1, NULL));
	EXPECT_TRUE(arrives(event));
	EXPECT_EQ(!variant->nointxmask, is_masked_in(self->bdf));

	ASSERT_EQ(0, ack_irq(&self->handle));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(stays_quiet(event));
	ASSERT_EQ(0, ack_irq(&self->handle));
	ASSERT_EQ(0, set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, NONE | UNMASK, 1, NULL));
	EXPECT_TRUE(stays_quiet(event));
	EXPECT_FALSE(is_masked_in(self->bdf));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(arrives(event));
	ASSERT_EQ(0, close(event));
}

TEST_F(edu, intx_is_masked_by_its_user)
{
	int event = enable_irq(self->fd, VFIO_PCI_INTX_IRQ_INDEX);
	__u8 no = 0, yes = 1;

	ASSERT_LE(0, event);
	ASSERT_EQ(0, set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, NONE | MASK, 1, NULL));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(stays_quiet(event));
	ASSERT_EQ(0, set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, BOOL | UNMASK, 1, &no));
	EXPECT_TRUE(stays_quiet(event));
	ASSERT_EQ(0, set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, BOOL | UNMASK, 1, &yes));
	EXPECT_TRUE(arrives(event));
	ASSERT_EQ(0, ack_irq(&self->handle));
	ASSERT_EQ(0, set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, NONE | UNMASK, 1, NULL));

	/* By the command register. */
	ASSERT_EQ(0, set_command(self->fd, PCI_COMMAND_INTX_DISABLE, 0));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(stays_quiet(event));
	ASSERT_EQ(0, set_command(self->fd, 0, PCI_COMMAND_INTX_DISABLE));
	EXPECT_TRUE(arrives(event));
	ASSERT_EQ(0, close(event));
}

TEST_F(edu, intx_is_unmasked_by_an_eventfd)
{
	int event = enable_irq(self->fd, VFIO_PCI_INTX_IRQ_INDEX);
	int unmask = eventfd(0, EFD_CLOEXEC), none = -1;

	ASSERT_LE(0, event);
	ASSERT_EQ(0, set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, EVENTFD | UNMASK, 1, &unmask));
	EXPECT_EQ(-EBUSY,
		  set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, EVENTFD | UNMASK, 1, &unmask));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(arrives(event));
	ASSERT_EQ(0, ack_irq(&self->handle));
	ASSERT_EQ(0, eventfd_write(unmask, 1));
	EXPECT_TRUE(stays_quiet(event));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(arrives(event));
	/* Still pending. */
	ASSERT_EQ(0, eventfd_write(unmask, 1));
	EXPECT_TRUE(arrives(event));

	ASSERT_EQ(0, set_irqs(self->fd, VFIO_PCI_INTX_IRQ_INDEX, EVENTFD | UNMASK, 1, &none));
	ASSERT_EQ(0, eventfd_write(unmask, 1));
	EXPECT_TRUE(stays_quiet(event));
	EXPECT_EQ(!variant->nointxmask, is_masked_in(self->bdf));
	ASSERT_EQ(0, close(unmask));
	ASSERT_EQ(0, close(event));
}

/* It does so without power management too, but for the power state. */
TEST_F(edu, intx_is_masked_while_it_sleeps)
{
	int event = enable_irq(self->fd, VFIO_PCI_INTX_IRQ_INDEX);

	ASSERT_LE(0, event);
	ASSERT_EQ(0, fall_asleep(self->fd));
	ASSERT_TRUE(attribute_comes_to(self->bdf, "power/runtime_status", "suspended"));
	EXPECT_EQ(!variant->nointxmask, is_masked_in(self->bdf));
	ASSERT_EQ(0, wake_up(self->fd));
	EXPECT_FALSE(is_masked_in(self->bdf));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(arrives(event));
	ASSERT_EQ(0, ack_irq(&self->handle));

	/* Masked by its user, it stays so. */
	ASSERT_EQ(0, fall_asleep(self->fd));
	ASSERT_TRUE(attribute_comes_to(self->bdf, "power/runtime_status", "suspended"));
	ASSERT_EQ(0, wake_up(self->fd));
	EXPECT_EQ(!variant->nointxmask, is_masked_in(self->bdf));
	ASSERT_EQ(0, close(event));
}

TEST_F(edu, msi)
{
	int i, event = enable_irq(self->fd, VFIO_PCI_MSI_IRQ_INDEX);

	ASSERT_LE(0, event);
	ASSERT_EQ(0, set_command(self->fd, PCI_COMMAND_MASTER, 0));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, raise_irq(&self->handle));
		EXPECT_TRUE(arrives(event));
		EXPECT_TRUE(stays_quiet(event));
		ASSERT_EQ(0, ack_irq(&self->handle));
	}
	/* INTx is not to be had at the same time, but afterwards. */
	EXPECT_EQ(-EINVAL, enable_irq(self->fd, VFIO_PCI_INTX_IRQ_INDEX));
	ASSERT_EQ(0, disable_irqs(self->fd, VFIO_PCI_MSI_IRQ_INDEX));
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(stays_quiet(event));
	ASSERT_EQ(0, ack_irq(&self->handle));
	ASSERT_EQ(0, close(event));
	event = enable_irq(self->fd, VFIO_PCI_INTX_IRQ_INDEX);
	ASSERT_LE(0, event);
	ASSERT_EQ(0, raise_irq(&self->handle));
	EXPECT_TRUE(arrives(event));
	ASSERT_EQ(0, close(event));
}

static int set_ioeventfd(struct handle *handle, int where, __u32 value, int eventfd)
{
	struct vfio_device_ioeventfd ioeventfd = {
		.argsz = sizeof(ioeventfd),
		.flags = VFIO_DEVICE_IOEVENTFD_32,
		.offset = handle->bar + where,
		.data = value,
		.fd = eventfd,
	};

	return ioctl(handle->fd, VFIO_DEVICE_IOEVENTFD, &ioeventfd) ? -errno : 0;
}

/* Whether a register comes to a value that is written to it behind the caller's back. */
static bool register_comes_to(struct handle *handle, int where, __u32 expected)
{
	int waited;

	for (waited = 0; waited <= LIMIT_MS; waited += 20) {
		if (edu_read(handle, where) == expected)
			return true;
		usleep(20000);
	}
	return false;
}

static bool register_stays(struct handle *handle, int where, __u32 expected)
{
	usleep(WATCH_MS * 1000);
	return edu_read(handle, where) == expected;
}

TEST_F(edu, ioeventfd)
{
	const __u32 first = 0x12345678, second = 0x9abcdef0;
	int one = eventfd(0, EFD_CLOEXEC), other = eventfd(0, EFD_CLOEXEC);

	EXPECT_EQ(-ENODEV, set_ioeventfd(&self->handle, EDU_LIVENESS, first, -1));
	ASSERT_EQ(0, set_ioeventfd(&self->handle, EDU_LIVENESS, first, one));
	EXPECT_EQ(-EEXIST, set_ioeventfd(&self->handle, EDU_LIVENESS, first, one));
	EXPECT_EQ(-EEXIST, set_ioeventfd(&self->handle, EDU_LIVENESS, first, other));
	ASSERT_EQ(0, set_ioeventfd(&self->handle, EDU_LIVENESS, second, other));

	ASSERT_EQ(0, edu_write(&self->handle, EDU_LIVENESS, 0));
	ASSERT_EQ(0, eventfd_write(one, 1));
	EXPECT_TRUE(register_comes_to(&self->handle, EDU_LIVENESS, ~first));
	ASSERT_EQ(0, eventfd_write(other, 1));
	EXPECT_TRUE(register_comes_to(&self->handle, EDU_LIVENESS, ~second));

	/* Events are lost while memory is disabled. */
	ASSERT_EQ(0, set_command(self->fd, 0, PCI_COMMAND_MEMORY));
	ASSERT_EQ(0, eventfd_write(one, 1));
	ASSERT_EQ(0, set_command(self->fd, PCI_COMMAND_MEMORY, 0));
	EXPECT_TRUE(register_stays(&self->handle, EDU_LIVENESS, ~second));

	ASSERT_EQ(0, set_ioeventfd(&self->handle, EDU_LIVENESS, first, -1));
	EXPECT_EQ(-ENODEV, set_ioeventfd(&self->handle, EDU_LIVENESS, first, -1));
	ASSERT_EQ(0, eventfd_write(one, 1));
	EXPECT_TRUE(register_stays(&self->handle, EDU_LIVENESS, ~second));

	/* A release removes what is left. */
	ASSERT_EQ(0, let_go(&self->handle));
	ASSERT_EQ(0, take(&self->user, self->bdf, &self->handle));
	EXPECT_EQ(-ENODEV, set_ioeventfd(&self->handle, EDU_LIVENESS, second, -1));
	ASSERT_EQ(0, close(one));
	ASSERT_EQ(0, close(other));
}

TEST_HARNESS_MAIN
