// SPDX-License-Identifier: GPL-2.0
/*
 * A PF and its VFs: the driver of the VFs, and the users of VFs or PF when these are
 * taken away.
 *
 * The environment is described in vfio_pci_rs_test.c:
 *
 *   VFIO_PCI_RS_PF    a PF with two VFs at least
 *
 * vfio-pci must give the same answers. The driver's parameter enable_sriov is set
 * meanwhile.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "functions.h"
#include "kselftest_harness.h"

/* How long to wait for a request. */
#define LIMIT_MS	30000

/* Exists if the kernel has lockdep. */
#define LOCKDEP		"/proc/lockdep"

/* The reason not to unbind a PF with VFs there, whatever its driver. */
#define UNLOCKED	"lockdep reports any PF driver: an unbind does not hold pci_rescan_remove_lock"

#define TOKEN		"52ac9bff-3a88-4fbd-901a-0d767c3b6c97"

FIXTURE(sriov) {
	struct functions pfs, vfs;
	const char *pf, *vf;
	struct user user;
};

FIXTURE_VARIANT(sriov) {
	const char *iommu_mode;
};

FIXTURE_VARIANT_ADD(sriov, group) { .iommu_mode = GROUP_MODE };
FIXTURE_VARIANT_ADD(sriov, cdev) { .iommu_mode = CDEV_MODE };

static bool is_signalled(int eventfd, int timeout_ms)
{
	struct pollfd event = { .fd = eventfd, .events = POLLIN };

	return poll(&event, 1, timeout_ms) == 1;
}

static int set_vfs(const char *pf, const char *count)
{
	return write_file(path(PCI_DEVICES "%s/sriov_numvfs", pf), count);
}

static int disable_vfs(const char *pf)
{
	return set_vfs(pf, "0");
}

/* Makes as many VFs as there is room for. */
static void enable_vfs(const char *pf, struct functions *vfs)
{
	int total = sysfs_sriov_totalvfs_get(pf);

	sysfs_sriov_numvfs_set(pf, total < MAX_FUNCTIONS ? total : MAX_FUNCTIONS - 1);
	find_vfs(pf, vfs);
}

static bool any_exists(struct functions *functions)
{
	int i;

	for (i = 0; i < functions->count; i++) {
		if (exists(path(PCI_DEVICES "%s", functions->bdf[i])))
			return true;
	}
	return false;
}

/* A group is of no use any more after its functions were unbound. */
static void renew_user(struct user *user)
{
	const char *mode = user->iommu->mode->name;

	user_exit(user);
	user_init(user, mode);
}

FIXTURE_SETUP(sriov)
{
	const char *missing = functions_find(&self->pfs, "VFIO_PCI_RS_PF", 1,
					     variant->iommu_mode);

	if (missing)
		SKIP(return, "%s", missing);
	bind_functions(&self->pfs);
	self->pf = self->pfs.bdf[0];
	self->vf = self->vfs.bdf[0];
	ASSERT_EQ(0, set_parameter("enable_sriov", true));
	enable_vfs(self->pf, &self->vfs);
	ASSERT_LE(2, self->vfs.count);
	user_init(&self->user, variant->iommu_mode);
}

FIXTURE_TEARDOWN_PARENT(sriov)
{
	if (is_bound(self->pf))
		EXPECT_EQ(0, disable_vfs(self->pf));
	EXPECT_GE(0, references());
	EXPECT_EQ(0, unbind_functions(&self->pfs));
	EXPECT_FALSE(shows_domains());
	EXPECT_EQ(0, set_parameter("enable_sriov", false));
}

/* Disabling VFs asks the user of one for its release, and waits for it. */
TEST_F_TIMEOUT(sriov, vfs_are_disabled_while_one_is_in_use, LIMIT)
{
	const char *vf = self->vfs.bdf[self->vfs.count / 2];
	struct vfio_pci_device device = {};
	int fd, request;
	pid_t pid;

	open_with_token(&self->user, self->pf, TOKEN);
	fd = open_with_token(&self->user, vf, TOKEN);
	request = enable_irq(fd, VFIO_PCI_REQ_IRQ_INDEX);
	EXPECT_FALSE(is_signalled(request, 0));

	pid = begin(disable_vfs, self->pf);
	EXPECT_TRUE(is_signalled(request, LIMIT_MS));
	EXPECT_TRUE(blocks(pid));
	/* The user keeps the VF, and no other user gets it. */
	device.fd = fd;
	get_region(fd, VFIO_PCI_CONFIG_REGION_INDEX, &device.config_space);
	EXPECT_NE(0xffff, vfio_pci_config_readw(&device, PCI_VENDOR_ID));
	EXPECT_EQ(-ENODEV, try_open(&self->user, vf, TOKEN));

	ASSERT_EQ(0, close(fd));
	EXPECT_TRUE(succeeds(pid));
	EXPECT_FALSE(any_exists(&self->vfs));
}

/* Unbinding a PF waits for the users of its VFs, then for its own. */
TEST_F_TIMEOUT(sriov, pf_is_unbound_while_in_use, LIMIT)
{
	int i, pf, vf, pf_request, vf_request;
	pid_t pid;

	if (exists(LOCKDEP))
		SKIP(return, UNLOCKED);
	for (i = 0; i < 2; i++) {
		bool vf_first = i == 0;

		if (!is_bound(self->pf)) {
			ASSERT_EQ(0, bind_function(self->pf, driver()));
			enable_vfs(self->pf, &self->vfs);
		}
		pf = open_with_token(&self->user, self->pf, TOKEN);
		vf = open_with_token(&self->user, self->vf, TOKEN);
		pf_request = enable_irq(pf, VFIO_PCI_REQ_IRQ_INDEX);
		vf_request = enable_irq(vf, VFIO_PCI_REQ_IRQ_INDEX);

		pid = begin(unbind_function, self->pf);
		EXPECT_TRUE(is_signalled(vf_request, LIMIT_MS));
		EXPECT_FALSE(is_signalled(pf_request, 0));
		EXPECT_TRUE(blocks(pid));
		ASSERT_EQ(0, close(vf_first ? vf : pf));
		if (vf_first)
			EXPECT_TRUE(is_signalled(pf_request, LIMIT_MS));
		EXPECT_TRUE(blocks(pid));
		ASSERT_EQ(0, close(vf_first ? pf : vf));
		EXPECT_TRUE(succeeds(pid));
		EXPECT_FALSE(is_bound(self->pf));
		EXPECT_FALSE(any_exists(&self->vfs));
		renew_user(&self->user);
	}
}

TEST_HARNESS_MAIN
