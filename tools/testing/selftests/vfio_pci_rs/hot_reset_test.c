// SPDX-License-Identifier: GPL-2.0
/*
 * Hot resets by the owner of all functions, and the state that they leave.
 *
 * The environment is described in vfio_pci_rs_test.c. Here, the variables must name
 * all functions of their bus:
 *
 *   VFIO_PCI_RS_BUS   two functions at least, without a reset of their own
 *   VFIO_PCI_RS_FLR   two functions at least, with function level reset
 *
 * vfio-pci must give the same answers.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "functions.h"
#include "kselftest_harness.h"

/* Enables memory, and maps the last BAR. Reading it faults while it is unmapped. */
static u32 *map_bar(int fd)
{
	struct vfio_region_info region;
	u16 command = PCI_COMMAND_MEMORY;
	int i = PCI_STD_NUM_BARS;
	void *bar;

	get_region(fd, VFIO_PCI_CONFIG_REGION_INDEX, &region);
	VFIO_ASSERT_EQ(pwrite(fd, &command, sizeof(command), region.offset + PCI_COMMAND),
		       sizeof(command));
	do {
		get_region(fd, --i, &region);
	} while (!(region.flags & VFIO_REGION_INFO_FLAG_MMAP));
	bar = mmap(NULL, region.size, PROT_READ, MAP_SHARED, fd, region.offset);
	VFIO_ASSERT_NE(bar, MAP_FAILED);
	return bar;
}

/* Hot reset with all groups of the user. */
static int hot_reset(struct user *user, int fd)
{
	struct {
		struct vfio_pci_hot_reset header;
		int groups[MAX_FUNCTIONS];
	} request = {
		.header.argsz = sizeof(request),
		.header.count = user->groups,
	};
	int i;

	for (i = 0; i < user->groups; i++)
		request.groups[i] = user->group[i].fd;
	return ioctl(fd, VFIO_DEVICE_PCI_HOT_RESET, &request) ? -errno : 0;
}

/* All functions of a bus. The first one is open. */
FIXTURE(hot_reset) {
	struct functions functions;
	struct user user;
	int fd;
};

FIXTURE_VARIANT(hot_reset) {
	const char *functions;
	const char *iommu_mode;
};

FIXTURE_VARIANT_ADD(hot_reset, bus_group) {
	.functions = "VFIO_PCI_RS_BUS", .iommu_mode = GROUP_MODE
};

FIXTURE_VARIANT_ADD(hot_reset, bus_cdev) {
	.functions = "VFIO_PCI_RS_BUS", .iommu_mode = CDEV_MODE
};

FIXTURE_VARIANT_ADD(hot_reset, flr_group) {
	.functions = "VFIO_PCI_RS_FLR", .iommu_mode = GROUP_MODE
};

FIXTURE_VARIANT_ADD(hot_reset, flr_cdev) {
	.functions = "VFIO_PCI_RS_FLR", .iommu_mode = CDEV_MODE
};

FIXTURE_SETUP(hot_reset)
{
	const char *missing = functions_find(&self->functions, variant->functions, 2,
					     variant->iommu_mode);

	if (missing)
		SKIP(return, "%s", missing);
	bind_functions(&self->functions);
	user_init(&self->user, variant->iommu_mode);
	self->fd = open_function(&self->user, self->functions.bdf[0]);
	tracer_start();
}

FIXTURE_TEARDOWN_PARENT(hot_reset)
{
	tracer_stop();
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

struct reader {
	u32 *bar;
	bool stop;
	u32 expected;
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

/* A read from a mapped BAR waits for the reset, and does not see it. */
TEST_F_TIMEOUT(hot_reset, bars_are_away_meanwhile, LIMIT)
{
	struct reader reader = { .bar = map_bar(self->fd) };
	int ret, done = 0;
	pthread_t thread;

	reader.expected = *reader.bar;
	ASSERT_NE(~0U, reader.expected);
	ASSERT_EQ(0, pthread_create(&thread, NULL, read_on, &reader));
	do {
		ret = hot_reset(&self->user, self->fd);
		done += !ret;
		/* The reset fails with EBUSY during a page fault of the reader. */
	} while ((!ret || ret == -EBUSY) && done < 5);
	EXPECT_EQ(0, ret);
	__atomic_store_n(&reader.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(0, reader.reads);
	EXPECT_EQ(0, reader.odd);
}

/* A hot reset waits for siblings in transit, and succeeds or changes nothing. */
TEST_F_TIMEOUT(hot_reset, while_siblings_open_and_close, 3600)
{
	int i, ret, done = 0, count = self->functions.count;
	struct sibling siblings[MAX_FUNCTIONS];
	const char *rounds = getenv("VFIO_PCI_RS_ROUNDS") ?: "20";

	for (i = 1; i < count; i++)
		sibling_start(&siblings[i], &self->user, self->functions.bdf[i]);
	for (i = 0; i < atoi(rounds); i++) {
		ret = hot_reset(&self->user, self->fd);
		/* The memory of a sibling, or its device lock, may be in use. */
		EXPECT_TRUE(!ret || ret == -EBUSY || ret == -EAGAIN);
		done += !ret;
	}
	for (i = 1; i < count; i++) {
		EXPECT_EQ(0, sibling_stop(&siblings[i]));
		EXPECT_LT(0, sibling_opened(&siblings[i]));
	}
	TH_LOG("%d of %s hot resets done, the others refused", done, rounds);
	EXPECT_LT(0, done);
}

/* The device lock of a function is held until its user lets it be unbound. */
TEST_F_TIMEOUT(hot_reset, while_sibling_is_unbound, LIMIT)
{
	const char *bdf = self->functions.bdf[1];
	int fd = open_function(&self->user, bdf);
	pid_t pid = begin(unbind_function, bdf);

	EXPECT_TRUE(blocks(pid));
	EXPECT_EQ(-EAGAIN, hot_reset(&self->user, self->fd));
	ASSERT_EQ(0, close(fd));
	EXPECT_TRUE(succeeds(pid));
}

TEST_HARNESS_MAIN
