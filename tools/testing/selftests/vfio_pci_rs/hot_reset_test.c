// SPDX-License-Identifier: GPL-2.0
/*
 * Hot reset of functions that are bound to vfio_pci_rs: what the user is told of
 * them, who may reset them, and what the reset leaves.
 *
 * The functions are named by environment variables, see vfio_pci_rs_test.c. Here
 * all functions of the bus or slot have to be named:
 *
 *   VFIO_PCI_RS_BUS   two functions at least, that have no reset of their own
 *   VFIO_PCI_RS_FLR   two functions at least, that have function level reset
 *   VFIO_PCI_RS_PAIR  two functions, each in an IOMMU group of its own
 *
 * With VFIO_PCI_RS_DRIVER=vfio-pci they are tested with that driver, which has to
 * give the same answers.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "functions.h"
#include "kselftest_harness.h"

#define HEADER		offsetof(struct vfio_pci_hot_reset_info, devices)

struct info {
	struct vfio_pci_hot_reset_info header;
	struct vfio_pci_dependent_device devices[MAX_FUNCTIONS + 1];
};

struct request {
	struct vfio_pci_hot_reset header;
	int groups[MAX_FUNCTIONS + 1];
};

static int get_info(int fd, struct info *info)
{
	memset(info, 0xa5, sizeof(*info));
	info->header.argsz = sizeof(*info);
	return ioctl(fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info) ? -errno : 0;
}

/* Finds the entry of a function. */
static struct vfio_pci_dependent_device *entry_of(struct info *info, const char *bdf)
{
	unsigned int segment, bus, device, function, i;

	if (sscanf(bdf, "%x:%x:%x.%x", &segment, &bus, &device, &function) != 4)
		return NULL;
	for (i = 0; i < info->header.count; i++) {
		struct vfio_pci_dependent_device *entry = &info->devices[i];

		if (entry->segment == segment && entry->bus == bus &&
		    entry->devfn == (device << 3 | function))
			return entry;
	}
	return NULL;
}

/* Maps a BAR of the function, with memory enabled: NULL if none can be. */
static __u32 *map_bar(int fd)
{
	__u16 command = config_read(fd, PCI_COMMAND) | PCI_COMMAND_MEMORY;
	int i;

	if (pwrite(fd, &command, sizeof(command), config_offset(fd) + PCI_COMMAND) !=
	    sizeof(command))
		return NULL;
	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		struct vfio_region_info info = {
			.argsz = sizeof(info),
			.index = VFIO_PCI_BAR0_REGION_INDEX + i,
		};
		void *bar;

		if (ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info) || !info.size ||
		    !(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
			continue;
		bar = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   info.offset);
		if (bar != MAP_FAILED)
			return bar;
	}
	return NULL;
}

/* How many resets the domain of a function has had, if the driver shows that. */
static long resets(const char *bdf)
{
	struct domain domain;

	return shows_domains() && !read_domain(bdf, &domain) ? domain.resets : -1;
}

FIXTURE(hot_reset) {
	struct functions functions;
	struct user user;
	int fd[MAX_FUNCTIONS];
};

FIXTURE_VARIANT(hot_reset) {
	const char *functions;
	bool cdev;
};

FIXTURE_VARIANT_ADD(hot_reset, bus_group) {
	.functions = "VFIO_PCI_RS_BUS",
	.cdev = false,
};

FIXTURE_VARIANT_ADD(hot_reset, bus_cdev) {
	.functions = "VFIO_PCI_RS_BUS",
	.cdev = true,
};

FIXTURE_VARIANT_ADD(hot_reset, flr_group) {
	.functions = "VFIO_PCI_RS_FLR",
	.cdev = false,
};

FIXTURE_VARIANT_ADD(hot_reset, flr_cdev) {
	.functions = "VFIO_PCI_RS_FLR",
	.cdev = true,
};

FIXTURE_SETUP(hot_reset)
{
	int ret = functions_setup(variant->functions, 2, &self->functions);

	if (ret == -ENODEV)
		SKIP(return, "%s names no two functions", variant->functions);
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
	self->fd[0] = open_function(&self->user, self->functions.bdf[0]);
	ASSERT_LE(0, self->fd[0]);
}

FIXTURE_TEARDOWN(hot_reset)
{
	close(self->fd[0]);
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

TEST_F(hot_reset, info)
{
	int i, group = iommu_group_of(self->functions.bdf[0]);
	bool owned = true;
	struct info info;

	ASSERT_EQ(0, get_info(self->fd[0], &info));
	EXPECT_EQ(sizeof(info), info.header.argsz);
	ASSERT_EQ(self->functions.count, info.header.count);
	for (i = 0; i < self->functions.count; i++) {
		const char *bdf = self->functions.bdf[i];
		struct vfio_pci_dependent_device *entry = entry_of(&info, bdf);
		bool same = iommu_group_of(bdf) == group;

		ASSERT_NE(NULL, entry);
		owned &= same;
		if (!variant->cdev) {
			EXPECT_EQ(iommu_group_of(bdf), entry->group_id);
		} else if (!i) {
			EXPECT_LT(0, (int)entry->devid);
		} else {
			EXPECT_EQ(same ? VFIO_PCI_DEVID_OWNED : VFIO_PCI_DEVID_NOT_OWNED,
				  (int)entry->devid);
		}
	}
	EXPECT_EQ(variant->cdev ? VFIO_PCI_HOT_RESET_FLAG_DEV_ID |
		  (owned ? VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED : 0) : 0, info.header.flags);
}

TEST_F(hot_reset, info_of_open_functions)
{
	struct info info;
	int i, j;

	if (!variant->cdev)
		SKIP(return, "groups have no device IDs");
	for (i = 1; i < self->functions.count; i++) {
		self->fd[i] = open_function(&self->user, self->functions.bdf[i]);
		ASSERT_LE(0, self->fd[i]);
	}
	ASSERT_EQ(0, get_info(self->fd[0], &info));
	ASSERT_EQ(self->functions.count, info.header.count);
	EXPECT_EQ(VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
		  info.header.flags);
	for (i = 0; i < self->functions.count; i++) {
		EXPECT_LT(0, (int)info.devices[i].devid);
		for (j = 0; j < i; j++)
			EXPECT_NE(info.devices[i].devid, info.devices[j].devid);
	}
	for (i = 1; i < self->functions.count; i++)
		ASSERT_EQ(0, close(self->fd[i]));
}

TEST_F(hot_reset, info_refused)
{
	struct info info;

	info.header.argsz = HEADER - 1;
	EXPECT_EQ(-1, ioctl(self->fd[0], VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &info));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(self->fd[0], VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, NULL));
	EXPECT_EQ(EFAULT, errno);
	info.header.argsz = HEADER;
	info.header.flags = ~0;
	EXPECT_EQ(-1, ioctl(self->fd[0], VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &info));
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_EQ(self->functions.count, info.header.count);
	EXPECT_EQ(0, info.header.flags);
}

TEST_F(hot_reset, refused)
{
	int groups[MAX_FUNCTIONS + 1], zero = open("/dev/zero", O_RDONLY), i;
	struct request request = {};
	long before = resets(self->functions.bdf[0]);

	EXPECT_EQ(-1, ioctl(self->fd[0], VFIO_DEVICE_PCI_HOT_RESET, NULL));
	EXPECT_EQ(EFAULT, errno);
	request.header.count = !variant->cdev;
	request.groups[0] = -1;
	request.header.argsz = HEADER - 1;
	EXPECT_EQ(-1, ioctl(self->fd[0], VFIO_DEVICE_PCI_HOT_RESET, &request));
	EXPECT_EQ(EINVAL, errno);
	request.header.argsz = sizeof(request);
	request.header.flags = 1;
	EXPECT_EQ(-1, ioctl(self->fd[0], VFIO_DEVICE_PCI_HOT_RESET, &request));
	EXPECT_EQ(EINVAL, errno);

	for (i = 0; i <= MAX_FUNCTIONS; i++)
		groups[i] = variant->cdev ? zero : self->user.group[0].fd;
	if (variant->cdev) {
		EXPECT_EQ(-EINVAL, reset_with(self->fd[0], groups, 1));
	} else {
		EXPECT_EQ(-EINVAL, reset_with(self->fd[0], NULL, 0));
		EXPECT_EQ(-EINVAL, reset_with(self->fd[0], groups, self->functions.count + 1));
		EXPECT_EQ(-EINVAL, reset_with(self->fd[0], &zero, 1));
		EXPECT_EQ(-EBADF, reset_with(self->fd[0], (int[]){ 1000 }, 1));
	}

	/* Somebody else's, or nobody's: a function that the driver does not have. */
	ASSERT_EQ(0, unbind_function(self->functions.bdf[1]));
	EXPECT_EQ(-EINVAL, hot_reset(&self->user, self->fd[0]));
	ASSERT_EQ(0, bind_function(self->functions.bdf[1]));

	EXPECT_EQ(before, resets(self->functions.bdf[0]));
	close(zero);
}

TEST_F_TIMEOUT(hot_reset, owner_of_all, 120)
{
	__u32 *bar[MAX_FUNCTIONS];
	unsigned int id[MAX_FUNCTIONS];
	struct domain domain;
	long before;
	int i;

	for (i = 1; i < self->functions.count; i++) {
		self->fd[i] = open_function(&self->user, self->functions.bdf[i]);
		ASSERT_LE(0, self->fd[i]);
	}
	for (i = 0; i < self->functions.count; i++) {
		id[i] = config_read(self->fd[i], PCI_DEVICE_ID);
		bar[i] = map_bar(self->fd[i]);
		ASSERT_NE(NULL, bar[i]);
		(void)__atomic_load_n(bar[i], __ATOMIC_RELAXED);
	}
	before = resets(self->functions.bdf[0]);
	ASSERT_EQ(0, hot_reset(&self->user, self->fd[0]));
	ASSERT_EQ(0, hot_reset(&self->user, self->fd[1]));

	for (i = 0; i < self->functions.count; i++) {
		if (shows_domains()) {
			ASSERT_EQ(0, read_domain(self->functions.bdf[i], &domain));
			EXPECT_EQ(before + 2, domain.resets);
			EXPECT_STREQ("open", domain.state);
		}
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D0"));
		EXPECT_EQ(id[i], config_read(self->fd[i], PCI_DEVICE_ID));
		/* Faults in again; without memory enabled it would be a SIGBUS. */
		(void)__atomic_load_n(bar[i], __ATOMIC_RELAXED);
		ASSERT_EQ(0, munmap(bar[i], getpagesize()));
	}
	for (i = 1; i < self->functions.count; i++)
		ASSERT_EQ(0, close(self->fd[i]));
}

struct reader {
	const __u32 *bar;
	bool stop;
	__u32 expected;
	long reads;
	long odd;
};

static void *read_on(void *argument)
{
	struct reader *reader = argument;

	while (!__atomic_load_n(&reader->stop, __ATOMIC_RELAXED)) {
		reader->odd += __atomic_load_n(reader->bar, __ATOMIC_RELAXED) != reader->expected;
		reader->reads++;
	}
	return NULL;
}

/* Who reads a mapped BAR then waits, and does not see what is there during the reset. */
TEST_F_TIMEOUT(hot_reset, bars_are_away_meanwhile, 120)
{
	struct reader reader = { .bar = map_bar(self->fd[0]) };
	int ret, done = 0;
	pthread_t thread;

	ASSERT_NE(NULL, reader.bar);
	reader.expected = __atomic_load_n(reader.bar, __ATOMIC_RELAXED);
	ASSERT_NE(~0U, reader.expected);
	ASSERT_EQ(0, pthread_create(&thread, NULL, read_on, &reader));
	do {
		ret = hot_reset(&self->user, self->fd[0]);
		done += !ret;
		/* A page fault of the reader is in the way. */
	} while ((!ret || ret == -EBUSY) && done < 5);
	EXPECT_EQ(0, ret);
	__atomic_store_n(&reader.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(0, reader.reads);
	EXPECT_EQ(0, reader.odd);
	ASSERT_EQ(0, munmap((void *)reader.bar, getpagesize()));
}

/* Functions that are not open are reset too, and are back in D3hot and clean after it. */
TEST_F(hot_reset, unused_siblings)
{
	struct domain domain;
	long before;
	int i, fd;

	/* Dirty, unless its own reset has cleaned it. */
	fd = open_function(&self->user, self->functions.bdf[1]);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, close(fd));
	before = resets(self->functions.bdf[0]);
	ASSERT_EQ(0, hot_reset(&self->user, self->fd[0]));
	if (shows_domains()) {
		ASSERT_EQ(0, read_domain(self->functions.bdf[0], &domain));
		EXPECT_EQ(before + 1, domain.resets);
		EXPECT_EQ(0, domain.dirty);
		EXPECT_EQ(domain.members - 1, domain.idle);
	}
	for (i = 1; i < self->functions.count; i++)
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
}

struct sibling {
	struct user *user;
	const char *bdf;
	bool *stop;
	int opened;
	int error;
};

static void *open_and_close(void *argument)
{
	struct sibling *sibling = argument;
	int fd;

	while (!__atomic_load_n(sibling->stop, __ATOMIC_RELAXED) && !sibling->error) {
		fd = open_function(sibling->user, sibling->bdf);
		sibling->error = fd < 0 ? fd : close(fd);
		sibling->opened++;
	}
	return NULL;
}

/* How many hot resets siblings that come and go are in the way of: VFIO_PCI_RS_ROUNDS, or 20. */
static int rounds(void)
{
	const char *text = getenv("VFIO_PCI_RS_ROUNDS");

	return text ? atoi(text) : 20;
}

/* Siblings in transit are waited for: a reset, or a clean refusal, and nothing hangs. */
TEST_F_TIMEOUT(hot_reset, while_siblings_open_and_close, 3600)
{
	struct sibling siblings[MAX_FUNCTIONS];
	pthread_t threads[MAX_FUNCTIONS];
	int i, ret, done = 0, count = self->functions.count;
	long before = resets(self->functions.bdf[0]);
	struct domain domain;
	bool stop = false;

	for (i = 1; i < count; i++) {
		siblings[i] = (struct sibling){
			.user = &self->user,
			.bdf = self->functions.bdf[i],
			.stop = &stop,
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, open_and_close, &siblings[i]));
	}
	for (i = 0; i < rounds(); i++) {
		ret = hot_reset(&self->user, self->fd[0]);
		/* The memory of a sibling is in use, or its device lock. */
		EXPECT_TRUE(!ret || ret == -EBUSY || ret == -EAGAIN);
		done += !ret;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 1; i < count; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		EXPECT_EQ(0, siblings[i].error);
		EXPECT_LT(0, siblings[i].opened);
	}
	TH_LOG("%d of %d hot resets done, the others refused", done, rounds());
	EXPECT_LT(0, done);
	if (shows_domains()) {
		ASSERT_EQ(0, read_domain(self->functions.bdf[0], &domain));
		EXPECT_EQ(before + done, domain.resets);
		EXPECT_EQ(count - 1, domain.idle);
	}
}

/* Functions of the root bus, which nothing resets. */
FIXTURE(root) {
	struct functions functions;
	struct user user;
	int fd;
};

FIXTURE_VARIANT(root) {
	bool cdev;
};

FIXTURE_VARIANT_ADD(root, group) {
	.cdev = false,
};

FIXTURE_VARIANT_ADD(root, cdev) {
	.cdev = true,
};

FIXTURE_SETUP(root)
{
	int ret = functions_setup("VFIO_PCI_RS_ROOT", 1, &self->functions);

	if (ret == -ENODEV)
		SKIP(return, "VFIO_PCI_RS_ROOT names no function");
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
	self->fd = open_function(&self->user, self->functions.bdf[0]);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(root)
{
	close(self->fd);
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

TEST_F(root, there_is_no_such_reset)
{
	struct info info;

	EXPECT_EQ(-ENODEV, get_info(self->fd, &info));
	EXPECT_EQ(-ENODEV, hot_reset(&self->user, self->fd));
}

/* Functions that can have different users. */
FIXTURE(owners) {
	struct functions functions;
	struct user user, other;
	int fd;
};

FIXTURE_VARIANT(owners) {
	bool cdev;
};

FIXTURE_VARIANT_ADD(owners, group) {
	.cdev = false,
};

FIXTURE_VARIANT_ADD(owners, cdev) {
	.cdev = true,
};

FIXTURE_SETUP(owners)
{
	int ret = functions_setup("VFIO_PCI_RS_PAIR", 2, &self->functions);

	if (ret == -ENODEV)
		SKIP(return, "VFIO_PCI_RS_PAIR names no two functions");
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
	ASSERT_EQ(0, user_init(&self->other, variant->cdev));
	self->fd = open_function(&self->user, self->functions.bdf[0]);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(owners)
{
	close(self->fd);
	user_exit(&self->user);
	user_exit(&self->other);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

TEST_F(owners, every_function_has_to_be_the_callers)
{
	long before = resets(self->functions.bdf[0]);
	struct info info;
	int fd;

	/* Nobody's. */
	EXPECT_EQ(-EINVAL, hot_reset(&self->user, self->fd));
	/* Somebody else's. */
	fd = open_function(&self->other, self->functions.bdf[1]);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EINVAL, hot_reset(&self->user, self->fd));
	EXPECT_EQ(-EINVAL, hot_reset(&self->other, fd));
	if (variant->cdev) {
		ASSERT_EQ(0, get_info(self->fd, &info));
		EXPECT_EQ(VFIO_PCI_HOT_RESET_FLAG_DEV_ID, info.header.flags);
		EXPECT_LT(0, (int)entry_of(&info, self->functions.bdf[0])->devid);
		EXPECT_EQ(VFIO_PCI_DEVID_NOT_OWNED,
			  (int)entry_of(&info, self->functions.bdf[1])->devid);
	}
	ASSERT_EQ(0, close(fd));
	user_exit(&self->other);
	ASSERT_EQ(0, user_init(&self->other, variant->cdev));
	EXPECT_EQ(before, resets(self->functions.bdf[0]));

	/* The caller's. */
	fd = open_function(&self->user, self->functions.bdf[1]);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, hot_reset(&self->user, self->fd));
	if (variant->cdev) {
		ASSERT_EQ(0, get_info(self->fd, &info));
		EXPECT_EQ(VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
			  info.header.flags);
	}
	ASSERT_EQ(0, close(fd));
	if (shows_domains())
		EXPECT_EQ(before + 1, resets(self->functions.bdf[0]));
}

TEST_HARNESS_MAIN
