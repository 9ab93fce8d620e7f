// SPDX-License-Identifier: GPL-2.0
/*
 * Functions without an IOMMU, in the no-IOMMU mode of vfio.
 *
 * The environment is described in vfio_pci_rs_test.c:
 *
 *   VFIO_PCI_RS_BUS   all functions of a bus, two at least, without a reset of
 *                     their own
 *
 * vfio-pci must give the same answers.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "functions.h"
#include "kselftest_harness.h"

#define MODE	"/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"

FIXTURE(noiommu) {
	struct functions functions;
	const char *bdf;
	struct user user;
};

FIXTURE_SETUP(noiommu)
{
	const char *missing = functions_find(&self->functions, "VFIO_PCI_RS_BUS", 2, GROUP_MODE);

	if (missing)
		SKIP(return, "%s", missing);
	if (!exists(MODE))
		SKIP(return, "the kernel is built without CONFIG_VFIO_NOIOMMU");
	self->bdf = self->functions.bdf[0];
	if (exists(path(PCI_DEVICES "%s/iommu_group", self->bdf)))
		SKIP(return, "%s is behind an IOMMU", self->bdf);
	ASSERT_EQ(0, write_file(MODE, "1"));
	bind_functions(&self->functions);
	user_init(&self->user, GROUP_MODE);
	tracer_start();
}

FIXTURE_TEARDOWN_PARENT(noiommu)
{
	tracer_stop();
	EXPECT_EQ(0, unbind_functions(&self->functions));
	EXPECT_EQ(0, write_file(MODE, "0"));
}

/* Opens a function through its group, which libvfio does not find. */
static int open_unprotected(struct user *user, const char *bdf)
{
	struct vfio_pci_device device = {};

	device.group_fd = open(path("/dev/vfio/noiommu-%d", sysfs_iommu_group_get(bdf)), O_RDWR);
	VFIO_ASSERT_GE(device.group_fd, 0);
	ioctl_assert(device.group_fd, VFIO_GROUP_SET_CONTAINER, &user->iommu->container_fd);
	ioctl_assert(user->iommu->container_fd, VFIO_SET_IOMMU, (void *)VFIO_NOIOMMU_IOMMU);
	__vfio_pci_group_get_device_fd(&device, bdf, NULL);
	VFIO_ASSERT_GE(device.fd, 0);
	return device.fd;
}

/* The function is opened and released like any other, and the bus is reset. */
TEST_F_TIMEOUT(noiommu, opened, LIMIT)
{
	int fd, container = self->user.iommu->container_fd;

	EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
	fd = open_unprotected(&self->user, self->bdf);
	EXPECT_TRUE(comes_to(self->bdf, "D0"));
	EXPECT_EQ(1, ioctl(container, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU));
	EXPECT_EQ(0, ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU));
	EXPECT_RESETS(0, 0);
	ASSERT_EQ(0, close(fd));
	EXPECT_RESETS(0, 1);
	EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
}

/* There is no hot reset of a bus on which a function has no group. */
TEST_F_TIMEOUT(noiommu, hot_reset_without_group, LIMIT)
{
	int fd = open_unprotected(&self->user, self->bdf);
	struct info info;

	ASSERT_EQ(0, get_info(fd, &info));
	EXPECT_EQ(self->functions.count, info.header.count);
	ASSERT_EQ(0, unbind_function(self->functions.bdf[1]));
	EXPECT_EQ(-EPERM, get_info(fd, &info));
}

/* Such a function is not bound without the mode. */
TEST_F_TIMEOUT(noiommu, mode_off, LIMIT)
{
	ASSERT_EQ(0, unbind_function(self->bdf));
	ASSERT_EQ(0, write_file(MODE, "0"));
	EXPECT_EQ(-EINVAL, bind_function(self->bdf, driver()));
	EXPECT_FALSE(is_bound(self->bdf));
}

TEST_HARNESS_MAIN
