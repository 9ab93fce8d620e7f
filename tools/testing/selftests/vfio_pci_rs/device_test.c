// SPDX-License-Identifier: GPL-2.0
/*
 * One open function: everything that its user changes is undone at its release.
 * Also the parameter that says how INTx is masked.
 *
 * The environment is described in vfio_pci_rs_test.c. Here, the functions must be
 * QEMU's:
 *
 *   VFIO_PCI_RS_BUS   virtio 1 functions without a reset of their own
 *   VFIO_PCI_RS_FLR   virtio 1 functions with function level reset
 *   VFIO_PCI_RS_EDU   edu devices, which have no reset and no power management
 *
 * vfio-pci must give the same answers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "functions.h"
#include "kselftest_harness.h"

/* How long to wait for events, and how long to watch that there is none. */
#define LIMIT_MS	10000
#define WATCH_MS	200

/* Registers of an edu device, in BAR 0, which are accessed by 32 bits. */
#define EDU_ID		0x00
#define EDU_ID_LOW	0xed
/* Reads as the inverse of the value that was written. */
#define EDU_LIVENESS	0x04
#define EDU_RAISE	0x60
#define EDU_ACK		0x64

#define UNMASK		(VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_DATA_NONE)

#define BARS_SIZE	(PCI_STD_NUM_BARS * sizeof(__u32))

/* A configuration space, as the host or the user sees it. */
struct config {
	unsigned char bytes[PCI_CFG_SPACE_EXP_SIZE];
};

static bool host_has(const char *bdf, int where, u16 bits)
{
	u16 value;

	return read_host_config(bdf, where, &value, sizeof(value)) == sizeof(value) &&
		(value & bits) == bits;
}

/* Waits for an event and takes it. */
static bool arrives(int eventfd)
{
	eventfd_t count;

	return is_signalled(eventfd, LIMIT_MS) && !eventfd_read(eventfd, &count);
}

static void read_own(struct vfio_pci_device *device, struct config *config)
{
	VFIO_ASSERT_LE(device->config_space.size, sizeof(*config));
	vfio_pci_config_access(device, false, 0, device->config_space.size, config);
}

static void read_host(const char *bdf, struct config *config)
{
	VFIO_ASSERT_GE(read_host_config(bdf, 0, config, sizeof(*config)), PCI_CFG_SPACE_SIZE);
}

static bool same_config(const char *whose, const struct config *before, const struct config *after)
{
	bool same = true;
	int i;

	for (i = 0; i < PCI_CFG_SPACE_EXP_SIZE; i++) {
		if (before->bytes[i] == after->bytes[i])
			continue;
		ksft_print_msg("%s config space: 0x%x is 0x%02x, not 0x%02x\n", whose, i,
			       after->bytes[i], before->bytes[i]);
		same = false;
	}
	return same;
}

/* A release takes back writes to configuration space, and interrupts. */
static void check_restored(struct __test_metadata *_metadata, struct user *user, const char *bdf,
			   unsigned int index)
{
	struct config host[2] = {}, own[2] = {};
	bool msix = index == VFIO_PCI_MSIX_IRQ_INDEX;
	struct vfio_pci_device *device;
	int i, msi;

	ASSERT_TRUE(attribute_comes_to(bdf, "power/runtime_status", "suspended"));
	read_host(bdf, &host[0]);
	device = open_device(user, bdf);
	read_own(device, &own[0]);

	/* The BARs and the interrupt line are virtual, the cache line size is not. */
	for (i = 0; i < BARS_SIZE; i += sizeof(u32))
		vfio_pci_config_writel(device, PCI_BASE_ADDRESS_0 + i, ~0);
	vfio_pci_config_writew(device, PCI_INTERRUPT_LINE, 0x5a);
	vfio_pci_config_writew(device, PCI_CACHE_LINE_SIZE, 0x3c);
	read_own(device, &own[1]);
	EXPECT_NE(0, memcmp(own[0].bytes + PCI_BASE_ADDRESS_0, own[1].bytes + PCI_BASE_ADDRESS_0,
			    BARS_SIZE));
	EXPECT_EQ(0x5a, own[1].bytes[PCI_INTERRUPT_LINE]);
	EXPECT_EQ(0x3c, own[1].bytes[PCI_CACHE_LINE_SIZE]);
	read_host(bdf, &host[1]);
	EXPECT_EQ(0, memcmp(host[0].bytes + PCI_BASE_ADDRESS_0, host[1].bytes + PCI_BASE_ADDRESS_0,
			    BARS_SIZE));
	EXPECT_EQ(host[0].bytes[PCI_INTERRUPT_LINE], host[1].bytes[PCI_INTERRUPT_LINE]);
	EXPECT_EQ(0x3c, host[1].bytes[PCI_CACHE_LINE_SIZE]);

	vfio_pci_cmd_set(device, PCI_COMMAND_MASTER);
	enable_irq(device->fd, index);
	msi = find_capability(device, msix ? PCI_CAP_ID_MSIX : PCI_CAP_ID_MSI) + PCI_MSI_FLAGS;
	EXPECT_TRUE(host_has(bdf, msi, msix ? PCI_MSIX_FLAGS_ENABLE : PCI_MSI_FLAGS_ENABLE));
	EXPECT_TRUE(host_has(bdf, PCI_COMMAND, PCI_COMMAND_MASTER));

	vfio_pci_device_cleanup(device);
	ASSERT_TRUE(attribute_comes_to(bdf, "power/runtime_status", "suspended"));
	read_host(bdf, &host[1]);
	EXPECT_TRUE(same_config("the host's", &host[0], &host[1]));
	device = open_device(user, bdf);
	read_own(device, &own[1]);
	EXPECT_TRUE(same_config("the user's", &own[0], &own[1]));
}

/* Reads the status of a virtio device, which a reset sets to 0. */
static int read_status(struct vfio_pci_device *device)
{
	off_t where = largest_bar(device)->info.offset + VIRTIO_PCI_COMMON_STATUS;
	u8 status;

	return pread(device->fd, &status, 1, where) == 1 ? status : -errno;
}

static int write_status(struct vfio_pci_device *device, u8 status)
{
	off_t where = largest_bar(device)->info.offset + VIRTIO_PCI_COMMON_STATUS;

	return pwrite(device->fd, &status, 1, where) == 1 ? 0 : -errno;
}

/* Accesses the BAR in both ways. Leaves the status 0. */
static bool is_usable(struct vfio_pci_device *device)
{
	u8 *status = largest_bar(device)->vaddr + VIRTIO_PCI_COMMON_STATUS;

	if (write_status(device, VIRTIO_CONFIG_S_ACKNOWLEDGE) ||
	    __atomic_load_n(status, __ATOMIC_RELAXED) != VIRTIO_CONFIG_S_ACKNOWLEDGE)
		return false;
	__atomic_store_n(status, 0, __ATOMIC_RELAXED);
	return read_status(device) == 0;
}

/* A virtio function of each kind, without its siblings, and both ways to open it. */
FIXTURE(device) {
	struct functions functions;
	const char *bdf;
	struct user user;
	struct vfio_pci_device *device;
};

FIXTURE_VARIANT(device) {
	const char *functions;
	const char *iommu_mode;
};

FIXTURE_VARIANT_ADD(device, bus_group) {
	.functions = "VFIO_PCI_RS_BUS", .iommu_mode = GROUP_MODE
};

FIXTURE_VARIANT_ADD(device, flr_cdev) {
	.functions = "VFIO_PCI_RS_FLR", .iommu_mode = CDEV_MODE
};

FIXTURE_SETUP(device)
{
	const char *missing = functions_find(&self->functions, variant->functions, 1,
					     variant->iommu_mode);

	if (missing)
		SKIP(return, "%s", missing);
	self->functions.count = 1;
	self->bdf = self->functions.bdf[0];
	bind_functions(&self->functions);
	user_init(&self->user, variant->iommu_mode);
	self->device = open_device(&self->user, self->bdf);
	/* Firmware may have used the function, and nothing has reset it since. */
	ASSERT_EQ(0, write_status(self->device, 0));
}

FIXTURE_TEARDOWN_PARENT(device)
{
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

/* A release ends the low power states, and finds the function in either. */
TEST_F_TIMEOUT(device, released_asleep, LIMIT)
{
	int i, event = eventfd(0, EFD_CLOEXEC);

	for (i = 0; i < 3; i++) {
		if (i == 2)
			set_power_state(self->device, D3HOT);
		else
			ASSERT_EQ(0, low_power(self->device, i ? WAKEUP : ENTRY, event));
		EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
		vfio_pci_device_cleanup(self->device);
		EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
		self->device = open_device(&self->user, self->bdf);
		EXPECT_TRUE(comes_to(self->bdf, "D0"));
		EXPECT_TRUE(is_usable(self->device));
	}
	/* The release does not count as a wakeup. */
	EXPECT_FALSE(is_signalled(event, 0));
}

TEST_F_TIMEOUT(device, restored_at_release, LIMIT)
{
	vfio_pci_device_cleanup(self->device);
	check_restored(_metadata, &self->user, self->bdf, VFIO_PCI_MSIX_IRQ_INDEX);
}

/* A device that raises interrupts on demand. */
FIXTURE(edu) {
	struct functions functions;
	const char *bdf;
	struct user user;
	struct vfio_pci_device *device;
};

/* The parameter makes the driver mask INTx at the interrupt controller. */
FIXTURE_VARIANT(edu) {
	bool nointxmask;
};

FIXTURE_VARIANT_ADD(edu, by_default) {
	.nointxmask = false,
};

FIXTURE_VARIANT_ADD(edu, nointxmask) {
	.nointxmask = true,
};

static u32 *edu_register(struct vfio_pci_device *device, int where)
{
	return device->bars[0].vaddr + where;
}

static u32 edu_read(struct vfio_pci_device *device, int where)
{
	return __atomic_load_n(edu_register(device, where), __ATOMIC_RELAXED);
}

static void edu_write(struct vfio_pci_device *device, int where, u32 value)
{
	__atomic_store_n(edu_register(device, where), value, __ATOMIC_RELAXED);
}

FIXTURE_SETUP(edu)
{
	const char *missing = functions_find(&self->functions, "VFIO_PCI_RS_EDU", 1, GROUP_MODE);

	if (missing)
		SKIP(return, "%s", missing);
	self->functions.count = 1;
	self->bdf = self->functions.bdf[0];
	/* A function keeps the value that the parameter has when it is bound. */
	ASSERT_EQ(0, set_parameter("nointxmask", variant->nointxmask));
	bind_functions(&self->functions);
	ASSERT_EQ(0, set_parameter("nointxmask", false));
	user_init(&self->user, GROUP_MODE);
	self->device = open_device(&self->user, self->bdf);
	ASSERT_EQ(EDU_ID_LOW, edu_read(self->device, EDU_ID) & 0xff);
}

FIXTURE_TEARDOWN_PARENT(edu)
{
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

TEST_F_TIMEOUT(edu, restored_at_release, LIMIT)
{
	vfio_pci_device_cleanup(self->device);
	check_restored(_metadata, &self->user, self->bdf, VFIO_PCI_MSI_IRQ_INDEX);
}

/* The driver masks INTx when it arrives, in the function if that is possible. */
TEST_F_TIMEOUT(edu, intx, LIMIT)
{
	int fd = self->device->fd, event = enable_irq(fd, VFIO_PCI_INTX_IRQ_INDEX);

	EXPECT_FALSE(host_has(self->bdf, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE));
	edu_write(self->device, EDU_RAISE, 1);
	EXPECT_TRUE(arrives(event));
	EXPECT_EQ(!variant->nointxmask,
		  host_has(self->bdf, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE));
	EXPECT_FALSE(is_signalled(event, WATCH_MS));
	/* It is still pending. */
	ASSERT_EQ(0, set_irq(fd, VFIO_PCI_INTX_IRQ_INDEX, UNMASK, 0));
	EXPECT_TRUE(arrives(event));
	/* No reset would take it back. */
	edu_write(self->device, EDU_ACK, ~0U);
	ASSERT_EQ(0, set_irq(fd, VFIO_PCI_INTX_IRQ_INDEX, UNMASK, 0));
	EXPECT_FALSE(is_signalled(event, WATCH_MS));
	EXPECT_FALSE(host_has(self->bdf, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE));
}

TEST_F_TIMEOUT(edu, ioeventfd_gone_after_release, LIMIT)
{
	struct vfio_device_ioeventfd ioeventfd = {
		.argsz = sizeof(ioeventfd),
		.flags = VFIO_DEVICE_IOEVENTFD_32,
		.offset = self->device->bars[0].info.offset + EDU_LIVENESS,
		.data = 0x12345678,
		.fd = eventfd(0, EFD_CLOEXEC),
	};

	ASSERT_EQ(0, ioctl(self->device->fd, VFIO_DEVICE_IOEVENTFD, &ioeventfd));
	vfio_pci_device_cleanup(self->device);
	self->device = open_device(&self->user, self->bdf);
	ASSERT_EQ(0, eventfd_write(ioeventfd.fd, 1));
	usleep(WATCH_MS * 1000);
	EXPECT_NE(~ioeventfd.data, edu_read(self->device, EDU_LIVENESS));
	/* There is none to remove. */
	ioeventfd.fd = -1;
	EXPECT_EQ(-1, ioctl(self->device->fd, VFIO_DEVICE_IOEVENTFD, &ioeventfd));
	EXPECT_EQ(ENODEV, errno);
}

TEST_HARNESS_MAIN
