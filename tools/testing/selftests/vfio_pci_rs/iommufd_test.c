// SPDX-License-Identifier: GPL-2.0
/*
 * What iommufd does to a function that is bound to vfio_pci_rs, while another
 * function of its bus and IOMMU group is opened and released.
 *
 * The functions are named by an environment variable, see vfio_pci_rs_test.c:
 *
 *   VFIO_PCI_RS_FLR  functions that have function level reset; the last two of
 *                    them are used, which have ATS and are in one IOMMU group
 *
 * With VFIO_PCI_RS_DRIVER=vfio-pci they are tested with that driver, which has to
 * give the same answers.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "functions.h"
#include "kselftest_harness.h"

/* How often the other function is opened and released. */
#define ROUNDS	10

/* Between one attachment and the next, so that the other function gets its turn. */
#define PAUSE_US	1000

struct sibling {
	struct user *user;
	const char *bdf;
	int error;
	bool done;
};

static void *come_and_go(void *data)
{
	struct sibling *sibling = data;
	int i, fd;

	for (i = 0; i < ROUNDS && !sibling->error; i++) {
		fd = open_function(sibling->user, sibling->bdf);
		if (fd < 0)
			sibling->error = fd;
		else
			close(fd);
	}
	__atomic_store_n(&sibling->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static int attach(int fd, __u32 ioas)
{
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = sizeof(attach),
		.pt_id = ioas,
	};

	return ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach) ? -errno : 0;
}

static int detach(int fd)
{
	struct vfio_device_detach_iommufd_pt detach = {
		.argsz = sizeof(detach),
	};

	return ioctl(fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach) ? -errno : 0;
}

FIXTURE(group) {
	struct functions functions;
	const char *bdf;
	const char *sibling;
	struct user user;
	__u32 ioas;
	int fd;
};

FIXTURE_SETUP(group)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
	int ret = functions_setup("VFIO_PCI_RS_FLR", 2, &self->functions);

	if (ret == -ENODEV)
		SKIP(return, "VFIO_PCI_RS_FLR does not name two functions");
	ASSERT_EQ(0, ret);
	self->bdf = self->functions.bdf[self->functions.count - 2];
	self->sibling = self->functions.bdf[self->functions.count - 1];
	if (iommu_group_of(self->bdf) != iommu_group_of(self->sibling))
		SKIP(return, "the functions are in two IOMMU groups");
	ASSERT_EQ(0, user_init(&self->user, true));
	ASSERT_EQ(0, ioctl(self->user.iommufd, IOMMU_IOAS_ALLOC, &alloc));
	self->ioas = alloc.out_ioas_id;
	self->fd = open_function(&self->user, self->bdf);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(group)
{
	close(self->fd);
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

/*
 * While a function that has ATS is reset, the IOMMU core attaches its group to
 * nothing else: -EBUSY. The user does not see that of a reset by the driver.
 */
TEST_F(group, attached_while_sibling_comes_and_goes)
{
	struct sibling sibling = {
		.user = &self->user,
		.bdf = self->sibling,
	};
	int attached = 0;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, come_and_go, &sibling));
	while (!__atomic_load_n(&sibling.done, __ATOMIC_ACQUIRE)) {
		EXPECT_EQ(0, attach(self->fd, self->ioas));
		EXPECT_EQ(0, detach(self->fd));
		attached++;
		usleep(PAUSE_US);
	}
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, sibling.error);
	EXPECT_LT(0, attached);
	TH_LOG("attached %d times", attached);
}

TEST_HARNESS_MAIN
