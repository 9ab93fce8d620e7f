// SPDX-License-Identifier: GPL-2.0
/*
 * Functions that no IOMMU stands behind, bound to vfio_pci_rs in the no-IOMMU mode
 * of vfio: user space may have them, for what that is worth.
 *
 * The functions are named by an environment variable:
 *
 *   VFIO_PCI_RS_BUS   all functions of a bus, two at least, that have no reset of
 *                     their own
 *
 * With VFIO_PCI_RS_DRIVER=vfio-pci they are tested with that driver, which has to
 * give the same answers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "functions.h"
#include "kselftest_harness.h"

#define MODE	"/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"

static int set_mode(const char *value)
{
	return write_file(value, "%s", MODE);
}

/* Whether vfio has made a group for the function, because it has none of an IOMMU. */
static bool has_noiommu_group(const char *bdf)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/vfio/noiommu-%d", iommu_group_of(bdf));
	return access(path, F_OK) == 0;
}

/* Returns how many functions a hot reset of this one would affect. */
static int hot_reset_count(int fd)
{
	struct {
		struct vfio_pci_hot_reset_info header;
		struct vfio_pci_dependent_device devices[MAX_FUNCTIONS];
	} info = { .header.argsz = sizeof(info) };

	if (ioctl(fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &info))
		return -errno;
	return info.header.count;
}

FIXTURE(noiommu) {
	struct functions functions;
	struct user user;
};

FIXTURE_SETUP(noiommu)
{
	int ret;

	if (access(MODE, F_OK))
		SKIP(return, "the kernel is built without CONFIG_VFIO_NOIOMMU");
	ASSERT_EQ(0, set_mode("1"));
	ret = functions_setup("VFIO_PCI_RS_BUS", 2, &self->functions);
	if (ret == -ENODEV) {
		ASSERT_EQ(0, set_mode("0"));
		SKIP(return, "VFIO_PCI_RS_BUS names no two functions");
	}
	ASSERT_EQ(0, ret);
	if (!has_noiommu_group(self->functions.bdf[0])) {
		ASSERT_EQ(0, unbind_functions(&self->functions));
		ASSERT_EQ(0, set_mode("0"));
		SKIP(return, "%s is behind an IOMMU", self->functions.bdf[0]);
	}
	ASSERT_EQ(0, user_init(&self->user, false));
	self->user.iommu = VFIO_NOIOMMU_IOMMU;
}

FIXTURE_TEARDOWN(noiommu)
{
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
	EXPECT_EQ(0, set_mode("0"));
}

/* It is opened and released like any other, and the bus is reset. */
TEST_F(noiommu, opened)
{
	const char *bdf = self->functions.bdf[0];
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct domain before, domain;
	int fd;

	EXPECT_TRUE(comes_to(bdf, "D3hot"));
	if (shows_domains())
		ASSERT_EQ(0, read_domain(bdf, &before));
	fd = open_function(&self->user, bdf);
	ASSERT_LE(0, fd);
	EXPECT_TRUE(comes_to(bdf, "D0"));
	ASSERT_EQ(0, ioctl(fd, VFIO_DEVICE_GET_INFO, &info));
	EXPECT_EQ(VFIO_DEVICE_FLAGS_PCI, info.flags & VFIO_DEVICE_FLAGS_PCI);
	/* DMA is nothing that this container has to do with. */
	EXPECT_EQ(1, ioctl(self->user.container, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU));
	EXPECT_EQ(0, ioctl(self->user.container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU));
	ASSERT_EQ(0, close(fd));
	EXPECT_TRUE(comes_to(bdf, "D3hot"));
	if (shows_domains()) {
		ASSERT_EQ(0, read_domain(bdf, &domain));
		EXPECT_STREQ("idle", domain.state);
		EXPECT_EQ(0, domain.dirty);
		EXPECT_EQ(before.resets + 1, domain.resets);
	}
}

/* A hot reset is not for a bus on which a function has no group at all. */
TEST_F(noiommu, hot_reset_without_group)
{
	int fd = open_function(&self->user, self->functions.bdf[0]);

	ASSERT_LE(0, fd);
	EXPECT_EQ(self->functions.count, hot_reset_count(fd));
	ASSERT_EQ(0, unbind_function(self->functions.bdf[1]));
	EXPECT_EQ(-EPERM, hot_reset_count(fd));
	ASSERT_EQ(0, close(fd));
}

/* Without the mode, such a function is not bound. */
TEST_F(noiommu, mode_off)
{
	const char *bdf = self->functions.bdf[0];

	ASSERT_EQ(0, unbind_function(bdf));
	ASSERT_EQ(0, set_mode("0"));
	EXPECT_EQ(-EINVAL, bind_function(bdf));
	EXPECT_FALSE(is_bound(bdf));
}

TEST_HARNESS_MAIN
