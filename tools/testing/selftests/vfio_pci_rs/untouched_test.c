// SPDX-License-Identifier: GPL-2.0
/*
 * VFIO_DEVICE_RESET of a function that its user has or has not touched since it was
 * opened. With the parameter skip_clean_reset, vfio_pci_rs resets it only if a reset
 * has something to undo.
 *
 * The environment is described in vfio_pci_rs_test.c:
 *
 *   VFIO_PCI_RS_PAIR  a function with function level reset, MSI, MSI-X, and memory in
 *                     BAR 0, such as QEMU's igb
 *   VFIO_PCI_RS_PF    a PF whose VFs have memory in BAR 0
 *
 * vfio-pci, and vfio_pci_rs without the parameter, reset the function each time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/iommufd.h>

#include "functions.h"
#include "kselftest_harness.h"

#define SKIP_RESET	"skip_clean_reset"
#define TOKEN		"52ac9bff-3a88-4fbd-901a-0d767c3b6c97"

struct open {
	const char *bdf;
	int fd;
};

/* A way to use a function. Returns 0, or -ENOTTY if the kernel does not have it. */
typedef int way(struct open *open, u32 value);

static int access_region(struct open *open, int index, int where, void *value, int size,
			 bool write)
{
	struct vfio_region_info region;
	ssize_t len;

	get_region(open->fd, index, &region);
	len = write ? pwrite(open->fd, value, size, region.offset + where) :
		      pread(open->fd, value, size, region.offset + where);
	return len == size ? 0 : -EIO;
}

static int write_config(struct open *open, int where, int size, u32 value)
{
	return access_region(open, VFIO_PCI_CONFIG_REGION_INDEX, where, &value, size, true);
}

static int set_command(struct open *open, u32 value)
{
	return write_config(open, PCI_COMMAND, sizeof(u16), value);
}

static int set_line_size(struct open *open, u32 value)
{
	return write_config(open, PCI_CACHE_LINE_SIZE, 1, value);
}

static int no_access(struct open *open, u32 value)
{
	return 0;
}

static int read_config(struct open *open, u32 value)
{
	return access_region(open, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &value,
			     sizeof(value), false);
}

static int access_bar(struct open *open, u32 write)
{
	u32 value = 0;

	return access_region(open, VFIO_PCI_BAR0_REGION_INDEX, 0, &value, sizeof(value), write);
}

/* As every VMM does when its machine starts. */
static int size_bars(struct open *open, u32 value)
{
	int i, ret = set_command(open, PCI_COMMAND_INTX_DISABLE);

	for (i = 0; i < PCI_STD_NUM_BARS && !ret; i++)
		ret = write_config(open, PCI_BASE_ADDRESS_0 + 4 * i, 4, ~0);
	return ret ?: write_config(open, PCI_ROM_ADDRESS, 4, PCI_ROM_ADDRESS_MASK);
}

static int query(struct open *open, u32 value)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_irq_info irq = { .argsz = sizeof(irq), .index = VFIO_PCI_MSI_IRQ_INDEX };

	ioctl_assert(open->fd, VFIO_DEVICE_GET_INFO, &info);
	ioctl_assert(open->fd, VFIO_DEVICE_GET_IRQ_INFO, &irq);
	return 0;
}

static int enable(struct open *open, u32 index)
{
	return close(enable_irq(open->fd, index));
}

enum { NO_ACCESS, LOAD, STORE };

static int map(struct open *open, u32 access)
{
	struct vfio_region_info region;
	u32 *bar;

	get_region(open->fd, VFIO_PCI_BAR0_REGION_INDEX, &region);
	bar = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, open->fd,
		   region.offset);
	VFIO_ASSERT_NE(bar, MAP_FAILED);
	if (access == LOAD)
		__atomic_load_n(bar, __ATOMIC_RELAXED);
	if (access == STORE)
		__atomic_store_n(bar, 0, __ATOMIC_RELAXED);
	return munmap(bar, region.size);
}

static int set_ioeventfd(struct open *open, u32 value)
{
	struct vfio_device_ioeventfd ioeventfd = {
		.argsz = sizeof(ioeventfd),
		.flags = VFIO_DEVICE_IOEVENTFD_32,
		.fd = eventfd(0, EFD_CLOEXEC),
	};
	struct vfio_region_info region;

	get_region(open->fd, VFIO_PCI_BAR0_REGION_INDEX, &region);
	ioeventfd.offset = region.offset;
	return ioctl(open->fd, VFIO_DEVICE_IOEVENTFD, &ioeventfd) ? -errno : 0;
}

static int low_power(int fd, unsigned int feature)
{
	struct vfio_device_feature request = {
		.argsz = sizeof(request),
		.flags = VFIO_DEVICE_FEATURE_SET | feature,
	};

	return ioctl(fd, VFIO_DEVICE_FEATURE, &request) ? -errno : 0;
}

static int sleep_and_wake(struct open *open, u32 value)
{
	return low_power(open->fd, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY) ?:
	       low_power(open->fd, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT);
}

/* Returns a dma-buf of a page of BAR 0, or a negative errno. */
static int get_dma_buf(struct open *open)
{
	struct {
		struct vfio_device_feature header;
		struct vfio_device_feature_dma_buf buffer;
		struct vfio_region_dma_range range;
	} request = {
		.header.argsz = sizeof(request),
		.header.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
		.buffer.region_index = VFIO_PCI_BAR0_REGION_INDEX,
		.buffer.open_flags = O_RDWR | O_CLOEXEC,
		.buffer.nr_ranges = 1,
		.range.length = getpagesize(),
	};
	int fd = ioctl(open->fd, VFIO_DEVICE_FEATURE, &request);

	return fd < 0 ? -errno : fd;
}

/* As QEMU does with each BAR when it opens a function. */
static int export_bar(struct open *open, u32 value)
{
	int fd = get_dma_buf(open);

	return fd < 0 ? fd : close(fd);
}

/* Maps the dma-buf in an address space, which needs no device yet. */
static int map_for_dma(struct open *open, u32 value)
{
	struct iommu_ioas_map_file map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
		.length = getpagesize(),
	};
	struct iommu *iommu;
	int fd = get_dma_buf(open);

	if (fd < 0)
		return fd;
	iommu = iommu_init(CDEV_MODE);
	map.fd = fd;
	map.ioas_id = iommu->ioas_id;
	ioctl_assert(iommu->iommufd, IOMMU_IOAS_MAP_FILE, &map);
	iommu_cleanup(iommu);
	return close(fd);
}

/* Root resets the function. */
static int reset_by_root(struct open *open, u32 value)
{
	return write_file(path(PCI_DEVICES "%s/reset", open->bdf), "1");
}

FIXTURE(untouched) {
	struct functions functions;
	const char *pf;
	struct open open;
	struct user user;
};

/* The memory of a VF is always enabled, so it can be used without any other access. */
FIXTURE_VARIANT(untouched) {
	way *way;
	u32 value;
	/* A reset has nothing to undo. */
	bool harmless;
	bool is_vf;
};

FIXTURE_VARIANT_ADD(untouched, no_access) { .way = no_access, .harmless = true };
FIXTURE_VARIANT_ADD(untouched, read_config) { .way = read_config, .harmless = true };
FIXTURE_VARIANT_ADD(untouched, size_bars) { .way = size_bars, .harmless = true };
FIXTURE_VARIANT_ADD(untouched, query) { .way = query, .harmless = true };
FIXTURE_VARIANT_ADD(untouched, export_bar) { .way = export_bar, .harmless = true };

FIXTURE_VARIANT_ADD(untouched, enable_request) {
	.way = enable, .value = VFIO_PCI_REQ_IRQ_INDEX, .harmless = true
};

/* A reset leaves the pin as it is. */
FIXTURE_VARIANT_ADD(untouched, enable_intx) {
	.way = enable, .value = VFIO_PCI_INTX_IRQ_INDEX, .harmless = true
};

FIXTURE_VARIANT_ADD(untouched, map) { .way = map, .harmless = true, .is_vf = true };

FIXTURE_VARIANT_ADD(untouched, enable_io) { .way = set_command, .value = PCI_COMMAND_IO };
FIXTURE_VARIANT_ADD(untouched, enable_memory) { .way = set_command, .value = PCI_COMMAND_MEMORY };
FIXTURE_VARIANT_ADD(untouched, enable_master) { .way = set_command, .value = PCI_COMMAND_MASTER };
FIXTURE_VARIANT_ADD(untouched, set_line_size) { .way = set_line_size, .value = 0x3c };
FIXTURE_VARIANT_ADD(untouched, enable_msi) { .way = enable, .value = VFIO_PCI_MSI_IRQ_INDEX };
FIXTURE_VARIANT_ADD(untouched, enable_msix) { .way = enable, .value = VFIO_PCI_MSIX_IRQ_INDEX };
FIXTURE_VARIANT_ADD(untouched, set_ioeventfd) { .way = set_ioeventfd };
FIXTURE_VARIANT_ADD(untouched, sleep_and_wake) { .way = sleep_and_wake };
FIXTURE_VARIANT_ADD(untouched, map_for_dma) { .way = map_for_dma };
FIXTURE_VARIANT_ADD(untouched, reset_by_root) { .way = reset_by_root };
FIXTURE_VARIANT_ADD(untouched, read_bar) { .way = access_bar, .is_vf = true };
FIXTURE_VARIANT_ADD(untouched, write_bar) { .way = access_bar, .value = true, .is_vf = true };
FIXTURE_VARIANT_ADD(untouched, load_mapped) { .way = map, .value = LOAD, .is_vf = true };
FIXTURE_VARIANT_ADD(untouched, store_mapped) { .way = map, .value = STORE, .is_vf = true };

static void open_it(struct user *user, struct open *open, bool is_vf)
{
	open->fd = open_with_token(user, open->bdf, is_vf ? TOKEN : NULL);
}

FIXTURE_SETUP(untouched)
{
	const char *variable = variant->is_vf ? "VFIO_PCI_RS_PF" : "VFIO_PCI_RS_PAIR";
	const char *missing = functions_find(&self->functions, variable, 1, GROUP_MODE);
	struct functions vfs;

	if (missing)
		SKIP(return, "%s", missing);
	self->functions.count = 1;
	self->open.bdf = self->functions.bdf[0];
	bind_functions(&self->functions);
	user_init(&self->user, GROUP_MODE);
	if (variant->is_vf) {
		self->pf = self->functions.bdf[0];
		ASSERT_EQ(0, set_parameter("enable_sriov", true));
		sysfs_sriov_numvfs_set(self->pf, 1);
		find_vfs(self->pf, &vfs);
		self->open.bdf = strdup(vfs.bdf[0]);
		/* Its user sets the token. */
		close(open_with_token(&self->user, self->pf, TOKEN));
	}
	tracer_start();
}

FIXTURE_TEARDOWN_PARENT(untouched)
{
	tracer_stop();
	if (self->pf)
		EXPECT_EQ(0, write_file(path(PCI_DEVICES "%s/sriov_numvfs", self->pf), "0"));
	EXPECT_EQ(0, set_parameter("enable_sriov", false));
	if (is_ours())
		EXPECT_EQ(0, set_parameter(SKIP_RESET, false));
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

TEST_F_TIMEOUT(untouched, device_reset, LIMIT)
{
	int i, ret, skips, resets;

	for (skips = 0; skips <= is_ours(); skips++) {
		if (is_ours())
			ASSERT_EQ(0, set_parameter(SKIP_RESET, skips));
		open_it(&self->user, &self->open, variant->is_vf);
		ret = variant->way(&self->open, variant->value);
		if (ret == -ENOTTY)
			SKIP(return, "the kernel does not have it");
		ASSERT_EQ(0, ret);
		take_resets();

		/* Once touched, a function counts as touched until it is opened again. */
		resets = !skips || !variant->harmless;
		for (i = 0; i < 2; i++) {
			ASSERT_EQ(0, ioctl(self->open.fd, VFIO_DEVICE_RESET));
			EXPECT_RESETS(resets, 0);
		}
		ASSERT_EQ(0, close(self->open.fd));

		open_it(&self->user, &self->open, variant->is_vf);
		take_resets();
		ASSERT_EQ(0, ioctl(self->open.fd, VFIO_DEVICE_RESET));
		EXPECT_RESETS(!skips, 0);
		ASSERT_EQ(0, close(self->open.fd));
	}
}

TEST_HARNESS_MAIN
