// SPDX-License-Identifier: GPL-2.0
/*
 * A PF that is bound to vfio_pci_rs and its VFs: whose the VFs are, the token that
 * their users have to know, and what becomes of users when VFs or PF are taken away.
 *
 * The PF is named by an environment variable, see vfio_pci_rs_test.c:
 *
 *   VFIO_PCI_RS_PF    a PF of which two VFs at least can be made
 *
 * With VFIO_PCI_RS_DRIVER=vfio-pci it is tested with that driver, which has to
 * give the same answers. The driver's parameter enable_sriov is set meanwhile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "functions.h"
#include "kselftest_harness.h"

/* How long something may take that has to happen. */
#define LIMIT_MS	30000

/* Exists if the kernel has lockdep. */
#define LOCKDEP		"/proc/lockdep"

/* Why a PF is not unbound with its VFs enabled there, whatever its driver. */
#define UNLOCKED	"lockdep reports any PF driver: an unbind does not hold pci_rescan_remove_lock"

static const unsigned char first_token[TOKEN_SIZE] = "first VF token.";
static const unsigned char other_token[TOKEN_SIZE] = "other VF token.";

FIXTURE(sriov) {
	struct functions pfs, vfs;
	const char *pf;
	struct user user;
};

FIXTURE_VARIANT(sriov) {
	bool cdev;
};

FIXTURE_VARIANT_ADD(sriov, group) {
	.cdev = false,
};

FIXTURE_VARIANT_ADD(sriov, cdev) {
	.cdev = true,
};

/* Makes as many VFs of a PF as there is room for. */
static int enable_vfs(const char *pf, struct functions *vfs)
{
	int ret, total, room = MAX_FUNCTIONS - 1;
	char value[32];

	ret = read_attribute(pf, "sriov_totalvfs", value);
	total = ret ? 0 : atoi(value);
	ret = ret ?: set_vfs(pf, total < room ? total : room);
	return ret ?: find_vfs(pf, vfs);
}

static int disable_vfs(const char *pf)
{
	return set_vfs(pf, 0);
}

static bool any_exists(struct functions *functions)
{
	int i;

	for (i = 0; i < functions->count; i++) {
		if (exists(functions->bdf[i]))
			return true;
	}
	return false;
}

/* Opens a function and closes it again, if that can be. */
static int try_open(struct user *user, const char *bdf, const unsigned char *token)
{
	int fd = open_with_token(user, bdf, token);

	return fd < 0 ? fd : close(fd);
}

static int token_feature(int fd, unsigned int operation, const unsigned char *token)
{
	struct {
		struct vfio_device_feature header;
		unsigned char token[TOKEN_SIZE];
	} feature = {
		.header = {
			.argsz = sizeof(feature),
			.flags = operation | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
		},
	};

	memcpy(feature.token, token, TOKEN_SIZE);
	return ioctl(fd, VFIO_DEVICE_FEATURE, &feature) ? -errno : 0;
}

FIXTURE_SETUP(sriov)
{
	int ret = functions_setup("VFIO_PCI_RS_PF", 1, &self->pfs);

	if (ret == -ENODEV)
		SKIP(return, "VFIO_PCI_RS_PF names no function");
	ASSERT_EQ(0, ret);
	self->pf = self->pfs.bdf[0];
	ASSERT_EQ(0, set_parameter("enable_sriov", true));
	ASSERT_EQ(0, enable_vfs(self->pf, &self->vfs));
	ASSERT_LE(2, self->vfs.count);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
}

FIXTURE_TEARDOWN(sriov)
{
	user_exit(&self->user);
	EXPECT_EQ(0, disable_vfs(self->pf));
	EXPECT_EQ(0, unbind_functions(&self->pfs));
	EXPECT_EQ(0, set_parameter("enable_sriov", false));
}

TEST_F_TIMEOUT(sriov, vfs_are_the_drivers, 120)
{
	int i, pf, fd[MAX_FUNCTIONS];
	struct domain domain;
	char override[32];

	pf = open_with_token(&self->user, self->pf, first_token);
	ASSERT_LE(0, pf);
	for (i = 0; i < self->vfs.count; i++) {
		const char *vf = self->vfs.bdf[i];

		EXPECT_TRUE(is_bound(vf));
		ASSERT_EQ(0, read_attribute(vf, "driver_override", override));
		EXPECT_STREQ(driver(), override);
		fd[i] = open_with_token(&self->user, vf, first_token);
		ASSERT_LE(0, fd[i]);
		if (shows_domains()) {
			ASSERT_EQ(0, read_domain(vf, &domain));
			EXPECT_EQ(1, domain.members);
			EXPECT_STREQ("open", domain.state);
		}
	}
	for (i = 0; i < self->vfs.count; i++)
		ASSERT_EQ(0, close(fd[i]));
	ASSERT_EQ(0, close(pf));

	EXPECT_TRUE(comes_to(self->pf, "D0"));
	EXPECT_EQ(-EBUSY, set_vfs(self->pf, 1));
	ASSERT_EQ(0, disable_vfs(self->pf));
	EXPECT_FALSE(any_exists(&self->vfs));
	EXPECT_TRUE(comes_to(self->pf, "D3hot"));
	ASSERT_EQ(0, set_parameter("enable_sriov", false));
	EXPECT_EQ(-ENOENT, set_vfs(self->pf, 1));
}

TEST_F_TIMEOUT(sriov, users_of_vfs_need_the_token, 120)
{
	const char *vf = self->vfs.bdf[0];
	int pf, fd;

	/* Nobody knows the one that a PF begins with. */
	EXPECT_EQ(-EACCES, try_open(&self->user, vf, NULL));
	EXPECT_EQ(-EACCES, try_open(&self->user, vf, first_token));

	pf = open_with_token(&self->user, self->pf, first_token);
	ASSERT_LE(0, pf);
	EXPECT_EQ(-EACCES, try_open(&self->user, vf, NULL));
	EXPECT_EQ(-EACCES, try_open(&self->user, vf, other_token));
	EXPECT_EQ(0, try_open(&self->user, vf, first_token));

	EXPECT_EQ(-EINVAL, token_feature(pf, VFIO_DEVICE_FEATURE_GET, other_token));
	EXPECT_EQ(0, token_feature(pf, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET,
				   other_token));
	EXPECT_EQ(0, try_open(&self->user, vf, first_token));
	ASSERT_EQ(0, token_feature(pf, VFIO_DEVICE_FEATURE_SET, other_token));
	EXPECT_EQ(-EACCES, try_open(&self->user, vf, first_token));
	fd = open_with_token(&self->user, vf, other_token);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-ENOTTY, token_feature(fd, VFIO_DEVICE_FEATURE_SET, first_token));
	ASSERT_EQ(0, close(fd));

	/* Nor are they free of it when the PF has no user, or the VF was away. */
	ASSERT_EQ(0, close(pf));
	EXPECT_EQ(-EACCES, try_open(&self->user, vf, NULL));
	EXPECT_EQ(0, try_open(&self->user, vf, other_token));
	user_exit(&self->user);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
	ASSERT_EQ(0, unbind_function(vf));
	ASSERT_EQ(0, bind_function(vf));
	EXPECT_EQ(-EACCES, try_open(&self->user, vf, NULL));
	EXPECT_EQ(0, try_open(&self->user, vf, other_token));
}

TEST_F_TIMEOUT(sriov, so_does_the_pf_while_vfs_are_in_use, 120)
{
	const char *vf = self->vfs.bdf[0];
	int fd;

	ASSERT_EQ(0, try_open(&self->user, self->pf, first_token));
	fd = open_with_token(&self->user, vf, first_token);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EACCES, try_open(&self->user, self->pf, NULL));
	EXPECT_EQ(-EACCES, try_open(&self->user, self->pf, other_token));
	EXPECT_EQ(0, try_open(&self->user, self->pf, first_token));
	ASSERT_EQ(0, close(fd));

	EXPECT_EQ(0, try_open(&self->user, self->pf, NULL));
	EXPECT_EQ(0, try_open(&self->user, vf, first_token));
	EXPECT_EQ(0, try_open(&self->user, self->pf, other_token));
	EXPECT_EQ(-EACCES, try_open(&self->user, vf, first_token));
	EXPECT_EQ(0, try_open(&self->user, vf, other_token));
}

/* Disabling VFs waits for who uses one, and says so. */
TEST_F_TIMEOUT(sriov, vfs_are_disabled_while_one_is_in_use, 120)
{
	const char *vf = self->vfs.bdf[self->vfs.count / 2];
	struct domain domain;
	unsigned int vendor;
	int pf, fd, request;
	pid_t pid;

	pf = open_with_token(&self->user, self->pf, first_token);
	ASSERT_LE(0, pf);
	fd = open_with_token(&self->user, vf, first_token);
	ASSERT_LE(0, fd);
	vendor = config_read(fd, PCI_VENDOR_ID);
	request = request_eventfd(fd);
	ASSERT_LE(0, request);
	EXPECT_FALSE(is_signalled(request, 0));

	pid = begin(disable_vfs, self->pf);
	ASSERT_LE(0, pid);
	EXPECT_TRUE(is_signalled(request, LIMIT_MS));
	EXPECT_TRUE(waits(pid));
	/* The user has it as before, and nobody else gets it. */
	EXPECT_NE(~0U, vendor);
	EXPECT_EQ(vendor, config_read(fd, PCI_VENDOR_ID));
	EXPECT_EQ(-ENODEV, open_with_token(&self->user, vf, first_token));
	if (shows_domains()) {
		ASSERT_EQ(0, read_domain(vf, &domain));
		EXPECT_STREQ("open", domain.state);
	}

	ASSERT_EQ(0, close(fd));
	EXPECT_TRUE(succeeds(pid));
	EXPECT_FALSE(any_exists(&self->vfs));
	if (shows_domains())
		EXPECT_EQ(-ENOENT, read_domain(vf, &domain));
	ASSERT_EQ(0, close(request));
	ASSERT_EQ(0, close(pf));
}

/* VFs go with their PF, whether or not they are bound. */
TEST_F_TIMEOUT(sriov, pf_is_unbound, 120)
{
	if (!access(LOCKDEP, F_OK))
		SKIP(return, UNLOCKED);
	ASSERT_EQ(0, try_open(&self->user, self->pf, first_token));
	ASSERT_EQ(0, try_open(&self->user, self->vfs.bdf[0], first_token));
	user_exit(&self->user);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));

	ASSERT_EQ(0, unbind_function(self->pf));
	EXPECT_FALSE(any_exists(&self->vfs));
	ASSERT_EQ(0, bind_function(self->pf));
	ASSERT_EQ(0, enable_vfs(self->pf, &self->vfs));
	ASSERT_EQ(0, unbind_function(self->vfs.bdf[1]));
	EXPECT_TRUE(exists(self->vfs.bdf[1]));
	ASSERT_EQ(0, unbind_function(self->pf));
	EXPECT_FALSE(any_exists(&self->vfs));
}

/* Unbinding a PF waits for the users of its VFs, then for its own. */
TEST_F_TIMEOUT(sriov, pf_is_unbound_while_in_use, 120)
{
	int i, pf, vf, pf_request, vf_request;
	pid_t pid;

	if (!access(LOCKDEP, F_OK))
		SKIP(return, UNLOCKED);
	for (i = 0; i < 2; i++) {
		bool vf_first = i == 0;

		if (!is_bound(self->pf)) {
			ASSERT_EQ(0, bind_function(self->pf));
			ASSERT_EQ(0, enable_vfs(self->pf, &self->vfs));
		}
		pf = open_with_token(&self->user, self->pf, first_token);
		ASSERT_LE(0, pf);
		vf = open_with_token(&self->user, self->vfs.bdf[0], first_token);
		ASSERT_LE(0, vf);
		pf_request = request_eventfd(pf);
		vf_request = request_eventfd(vf);
		ASSERT_LE(0, pf_request);
		ASSERT_LE(0, vf_request);

		pid = begin(unbind_function, self->pf);
		ASSERT_LE(0, pid);
		EXPECT_TRUE(is_signalled(vf_request, LIMIT_MS));
		EXPECT_FALSE(is_signalled(pf_request, 0));
		EXPECT_TRUE(waits(pid));
		ASSERT_EQ(0, close(vf_first ? vf : pf));
		if (vf_first)
			EXPECT_TRUE(is_signalled(pf_request, LIMIT_MS));
		EXPECT_TRUE(waits(pid));
		ASSERT_EQ(0, close(vf_first ? pf : vf));
		EXPECT_TRUE(succeeds(pid));
		EXPECT_FALSE(is_bound(self->pf));
		EXPECT_FALSE(any_exists(&self->vfs));

		ASSERT_EQ(0, close(pf_request));
		ASSERT_EQ(0, close(vf_request));
		/* Groups of functions that were unbound are of no use any more. */
		user_exit(&self->user);
		ASSERT_EQ(0, user_init(&self->user, variant->cdev));
	}
}

TEST_HARNESS_MAIN
