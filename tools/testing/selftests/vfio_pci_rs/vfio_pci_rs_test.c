// SPDX-License-Identifier: GPL-2.0
/*
 * The life cycle of functions that are bound to a vfio-pci driver: their states,
 * their power states, and each reset from the first bind to the last release.
 *
 * Environment variables name the functions, as addresses separated by spaces. The
 * functions must have no driver, and are left without one. A test whose functions
 * are not named is skipped.
 *
 *   VFIO_PCI_RS_BUS     all functions of one bus, three at least, without a reset
 *                       of their own
 *   VFIO_PCI_RS_FLR     functions of one bus with function level reset, of which the
 *                       last two have ATS and share an IOMMU group
 *   VFIO_PCI_RS_DRIVER  the driver under test: vfio_pci_rs (default), vfio-pci, or
 *                       vfio-pci-nvme, whose functions are NVMe controllers
 *   VFIO_PCI_RS_ROUNDS  rounds of the tests that repeat something, by default 20
 *
 * vfio-pci must pass as well, except that it may lose function resets: those are
 * counted and logged. debugfs and tracefs must be mounted.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "functions.h"
#include "kselftest_harness.h"

#define STUB		"pci-stub"

static bool all_come_to(struct functions *functions, const char *state)
{
	int i;

	for (i = 0; i < functions->count; i++) {
		if (!comes_to(functions->bdf[i], state))
			return false;
	}
	return true;
}

/* Functions of one bus that only a reset of the bus can clean. */
FIXTURE(bus) {
	struct functions functions;
	struct user user;
};

FIXTURE_VARIANT(bus) {
	const char *iommu_mode;
};

FIXTURE_VARIANT_ADD(bus, group) { .iommu_mode = GROUP_MODE };
FIXTURE_VARIANT_ADD(bus, cdev) { .iommu_mode = CDEV_MODE };

FIXTURE_SETUP(bus)
{
	const char *missing = functions_find(&self->functions, "VFIO_PCI_RS_BUS", 3,
					     variant->iommu_mode);

	if (missing)
		SKIP(return, "%s", missing);
	bind_functions(&self->functions);
	EXPECT_TRUE(all_come_to(&self->functions, "D3hot"));
	user_init(&self->user, variant->iommu_mode);
	tracer_start();
}

FIXTURE_TEARDOWN_PARENT(bus)
{
	END(&self->functions);
}

/* Opens the first @count functions, and closes them up to the last one. */
static int leave_one_open(struct __test_metadata *_metadata, struct user *user,
			  struct functions *functions, int count)
{
	int i, fd[MAX_FUNCTIONS], last = count - 1;

	for (i = 0; i < count; i++) {
		fd[i] = open_function(user, functions->bdf[i]);
		EXPECT_TRUE(comes_to(functions->bdf[i], "D0"));
	}
	EXPECT_RESETS(0, 0);
	for (i = 0; i < last; i++) {
		ASSERT_EQ(0, close(fd[i]));
		EXPECT_TRUE(comes_to(functions->bdf[i], "D3hot"));
	}
	EXPECT_RESETS(0, 0);
	EXPECT_TRUE(comes_to(functions->bdf[last], "D0"));
	return fd[last];
}

/* The second time shows that the first reset leaves nothing dirty. */
TEST_F_TIMEOUT(bus, last_release, LIMIT)
{
	int fd, round, last = self->functions.count - 1;

	for (round = 1; round <= 2; round++) {
		fd = leave_one_open(_metadata, &self->user, &self->functions, last + 1);
		EXPECT_EQ(is_ours(), shows_domains());
		ASSERT_EQ(0, close(fd));
		EXPECT_RESETS(0, 1);
		EXPECT_TRUE(all_come_to(&self->functions, "D3hot"));
	}
}

/* The driver must not reset a function that another driver has, or none. */
TEST_F_TIMEOUT(bus, foreign_function, LIMIT)
{
	const char *bdf = self->functions.bdf[0], *foreign = self->functions.bdf[2];
	int fd, stage;

	ASSERT_EQ(0, unbind_function(foreign));
	ASSERT_EQ(0, load_module(STUB));
	ASSERT_EQ(0, bind_function(foreign, STUB));
	for (stage = 0; stage < 2; stage++) {
		if (stage)
			ASSERT_EQ(0, unbind_function(foreign));
		fd = leave_one_open(_metadata, &self->user, &self->functions, 2);
		ASSERT_EQ(0, close(fd));
		EXPECT_RESETS(0, 0);
		EXPECT_TRUE(comes_to(bdf, "D3hot"));
		EXPECT_TRUE(comes_to(self->functions.bdf[1], "D3hot"));
	}

	ASSERT_EQ(0, bind_function(foreign, driver()));
	/* vfio-pci still hands out what the last user has left. */
	fd = open_function(&self->user, bdf);
	EXPECT_RESETS(0, is_ours());
	ASSERT_EQ(0, close(fd));
	EXPECT_RESETS(0, 1);
	EXPECT_TRUE(all_come_to(&self->functions, "D3hot"));
}

/* The module stays while a function is open, and leaves nothing behind. */
TEST_F_TIMEOUT(bus, unload, LIMIT)
{
	int fd;

	if (references() < 0)
		SKIP(return, "the driver is built in");
	fd = open_function(&self->user, self->functions.bdf[0]);
	EXPECT_LT(0, references());
	EXPECT_EQ(-1, syscall(SYS_delete_module, module(), O_NONBLOCK));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, close(fd));
	EXPECT_EQ(0, references());
	ASSERT_EQ(0, unbind_functions(&self->functions));
	ASSERT_EQ(0, syscall(SYS_delete_module, module(), O_NONBLOCK));
	EXPECT_FALSE(exists(path(PCI_DRIVERS "%s", driver())));
	EXPECT_FALSE(exists(path("/sys/kernel/debug/%s", module())));
	ASSERT_EQ(0, load_module(module()));
	EXPECT_TRUE(exists(path(PCI_DRIVERS "%s", driver())));
	/* As the other tests expect. */
	if (is_ours()) {
		ASSERT_EQ(0, set_parameter("skip_clean_reset", false));
		ASSERT_EQ(0, set_parameter("background_reset", false));
	}
}

/* Functions with a reset of their own. Two have ATS and share an IOMMU group. */
FIXTURE(flr) {
	struct functions functions;
	const char *bdf;
	struct user user;
};

FIXTURE_VARIANT(flr) {
	const char *iommu_mode;
};

FIXTURE_VARIANT_ADD(flr, group) { .iommu_mode = GROUP_MODE };
FIXTURE_VARIANT_ADD(flr, cdev) { .iommu_mode = CDEV_MODE };

FIXTURE_SETUP(flr)
{
	const char *missing = functions_find(&self->functions, "VFIO_PCI_RS_FLR", 3,
					     variant->iommu_mode);

	if (missing)
		SKIP(return, "%s", missing);
	memmove(self->functions.bdf[1], self->functions.bdf[self->functions.count - 2],
		2 * sizeof(self->functions.bdf[0]));
	self->functions.count = 3;
	self->bdf = self->functions.bdf[0];
	bind_functions(&self->functions);
	EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
	user_init(&self->user, variant->iommu_mode);
	tracer_start();
}

FIXTURE_TEARDOWN_PARENT(flr)
{
	END(&self->functions);
}

/* The first open enables a function, the last release disables it. A cdev opens once. */
TEST_F_TIMEOUT(flr, opened_twice, LIMIT)
{
	int first = open_function(&self->user, self->bdf), second;

	EXPECT_RESETS(1, 0);
	second = try_open(&self->user, self->bdf, NULL);
	if (uses_cdev(&self->user)) {
		EXPECT_EQ(-EINVAL, second);
	} else {
		ASSERT_LE(0, second);
		EXPECT_RESETS(0, 0);
		EXPECT_TRUE(stays_in(self->bdf, "D0"));
		ASSERT_EQ(0, close(second));
	}
	EXPECT_RESETS(0, 0);
	EXPECT_TRUE(stays_in(self->bdf, "D0"));
	ASSERT_EQ(0, close(first));
	EXPECT_RESETS(1, 0);
	EXPECT_TRUE(comes_to(self->bdf, "D3hot"));
}

/* sriov_test shows how the user is asked for the release. Here, it cannot be. */
TEST_F_TIMEOUT(flr, unbind_while_open, LIMIT)
{
	int fd = open_function(&self->user, self->bdf);
	struct resets resets;
	pid_t pid;

	take_resets();
	pid = begin(unbind_function, self->bdf);
	EXPECT_TRUE(blocks(pid));
	EXPECT_TRUE(stays_in(self->bdf, "D0"));
	EXPECT_NE(0, references());
	ASSERT_EQ(0, close(fd));
	EXPECT_TRUE(succeeds(pid));
	EXPECT_FALSE(is_bound(self->bdf));
	/* The unbind holds the device lock, so only it can reset the function. */
	resets = take_resets();
	EXPECT_EQ(0, resets.bus + resets.slot);
	if (is_ours())
		EXPECT_EQ(1, resets.flr);
	TH_LOG("%s loses %d of 1 function resets", driver(), 1 - resets.flr);
}

/*
 * While the IOMMU core blocks the ATS of a function that is reset, it attaches its
 * group to nothing else: -EBUSY. The user does not see the resets by the driver.
 */
TEST_F_TIMEOUT(flr, attached_while_sibling_comes_and_goes, LIMIT)
{
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct vfio_device_detach_iommufd_pt detach = { .argsz = sizeof(detach) };
	struct sibling sibling;
	int fd, attached = 0;

	if (!uses_cdev(&self->user))
		SKIP(return, "groups are attached once");
	fd = open_function(&self->user, self->functions.bdf[1]);
	sibling_start(&sibling, &self->user, self->functions.bdf[2]);
	while (sibling_opened(&sibling) < 10) {
		attach.pt_id = self->user.iommu->ioas_id;
		EXPECT_EQ(0, ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach));
		EXPECT_EQ(0, ioctl(fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach));
		attached++;
		/* The sibling gets its turn. */
		usleep(1000);
	}
	EXPECT_EQ(0, sibling_stop(&sibling));
	EXPECT_LT(0, attached);
	TH_LOG("attached %d times", attached);
}

TEST_HARNESS_MAIN
