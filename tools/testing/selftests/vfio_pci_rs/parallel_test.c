// SPDX-License-Identifier: GPL-2.0
/*
 * Functions that are opened at the same time, and released at the same time: each
 * reset that is due is made, and no other one.
 *
 * The environment is described in vfio_pci_rs_test.c, and also has:
 *
 *   VFIO_PCI_RS_PAIR    functions of one bus with function level reset, each in an
 *                       IOMMU group of its own
 *   VFIO_PCI_RS_PF      a physical function with seven VFs
 *
 * vfio-pci may lose function resets: those are counted and logged.
 */
#include <pthread.h>
#include <unistd.h>

#include "functions.h"
#include "kselftest_harness.h"

#define PF_STUB		"pci-pf-stub"
#define AUTOPROBE	PCI_DEVICES "%s/sriov_drivers_autoprobe"

/* Threads that open and release one function each, all at the same time. */
struct together {
	struct user user;
	pthread_barrier_t barrier;
	pthread_t threads[MAX_FUNCTIONS];
	struct opener {
		struct together *all;
		const char *bdf;
		int error;
	} openers[MAX_FUNCTIONS];
	int rounds;
};

static void *open_and_close(void *argument)
{
	struct opener *opener = argument;
	struct together *all = opener->all;
	int round, fd;

	for (round = 0; round < all->rounds; round++) {
		pthread_barrier_wait(&all->barrier);
		/* After an error, the others go on. */
		fd = opener->error ?: try_open(&all->user, opener->bdf, NULL);
		pthread_barrier_wait(&all->barrier);
		/* The main thread counts the resets of the opens here. */
		pthread_barrier_wait(&all->barrier);
		opener->error = fd < 0 ? fd : close(fd);
		pthread_barrier_wait(&all->barrier);
	}
	return NULL;
}

static void together_start(struct together *all, struct functions *functions,
			   const char *iommu_mode, int rounds)
{
	int i;

	all->rounds = rounds;
	user_init(&all->user, iommu_mode);
	pthread_barrier_init(&all->barrier, NULL, functions->count + 1);
	for (i = 0; i < functions->count; i++) {
		if (!uses_cdev(&all->user))
			open_group(&all->user, functions->bdf[i]);
		all->openers[i] = (struct opener){ .all = all, .bdf = functions->bdf[i] };
		VFIO_ASSERT_EQ(pthread_create(&all->threads[i], NULL, open_and_close,
					      &all->openers[i]), 0);
	}
}

/* Functions that are opened together and released together. */
FIXTURE(parallel) {
	struct functions functions, pf;
};

FIXTURE_VARIANT(parallel) {
	const char *iommu_mode;
	const char *functions;
	/* The functions are VFs of the one that the variable names. */
	bool vfs;
	/* Resets of the bus after the last release. Without, each function is reset. */
	int bus;
};

FIXTURE_VARIANT_ADD(parallel, bus_group) {
	.iommu_mode = GROUP_MODE, .functions = "VFIO_PCI_RS_BUS", .bus = 1
};

FIXTURE_VARIANT_ADD(parallel, bus_cdev) {
	.iommu_mode = CDEV_MODE, .functions = "VFIO_PCI_RS_BUS", .bus = 1
};

FIXTURE_VARIANT_ADD(parallel, flr_group) {
	.iommu_mode = GROUP_MODE, .functions = "VFIO_PCI_RS_FLR"
};

FIXTURE_VARIANT_ADD(parallel, flr_cdev) {
	.iommu_mode = CDEV_MODE, .functions = "VFIO_PCI_RS_FLR"
};

FIXTURE_VARIANT_ADD(parallel, pair_group) {
	.iommu_mode = GROUP_MODE, .functions = "VFIO_PCI_RS_PAIR"
};

FIXTURE_VARIANT_ADD(parallel, pair_cdev) {
	.iommu_mode = CDEV_MODE, .functions = "VFIO_PCI_RS_PAIR"
};

FIXTURE_VARIANT_ADD(parallel, vfs_group) {
	.iommu_mode = GROUP_MODE, .functions = "VFIO_PCI_RS_PF", .vfs = true
};

FIXTURE_VARIANT_ADD(parallel, vfs_cdev) {
	.iommu_mode = CDEV_MODE, .functions = "VFIO_PCI_RS_PF", .vfs = true
};

FIXTURE_SETUP(parallel)
{
	const char *missing = functions_find(&self->functions, variant->functions,
					     variant->vfs ? 1 : 2, variant->iommu_mode);

	if (missing)
		SKIP(return, "%s", missing);
	if (variant->vfs) {
		self->pf = self->functions;
		ASSERT_EQ(0, load_module(PF_STUB));
		ASSERT_EQ(0, bind_function(self->pf.bdf[0], PF_STUB));
		ASSERT_EQ(0, write_file(path(AUTOPROBE, self->pf.bdf[0]), "0"));
		sysfs_sriov_numvfs_set(self->pf.bdf[0], MAX_FUNCTIONS - 1);
		find_vfs(self->pf.bdf[0], &self->functions);
	}
	bind_functions(&self->functions);
	tracer_start();
}

FIXTURE_TEARDOWN_PARENT(parallel)
{
	END(&self->functions);
	if (variant->vfs) {
		sysfs_sriov_numvfs_set(self->pf.bdf[0], 0);
		EXPECT_EQ(0, write_file(path(AUTOPROBE, self->pf.bdf[0]), "1"));
		EXPECT_EQ(0, unbind_functions(&self->pf));
	}
}

/* Each open and each release resets its function, or the last release the bus. */
TEST_F_TIMEOUT(parallel, resets, 3600)
{
	int i, round, lost = 0, count = self->functions.count, flr = variant->bus ? 0 : count;
	struct resets opens, releases;
	static struct together all;

	together_start(&all, &self->functions, variant->iommu_mode, rounds(20));
	for (round = 1; round <= rounds(20); round++) {
		pthread_barrier_wait(&all.barrier);
		pthread_barrier_wait(&all.barrier);
		opens = take_resets();
		pthread_barrier_wait(&all.barrier);
		pthread_barrier_wait(&all.barrier);
		releases = take_resets();
		EXPECT_EQ(flr, opens.flr);
		lost += flr - releases.flr;
		if (is_ours() || variant->bus) {
			EXPECT_EQ(0, opens.bus + opens.slot + releases.slot);
			EXPECT_EQ(variant->bus, releases.bus);
		}
		EXPECT_IDLE_DOMAIN(self->functions.bdf[0], 0, variant->bus * round);
	}
	TH_LOG("%s loses %d of %d function resets", driver(), lost, flr * rounds(20));
	if (is_ours())
		EXPECT_EQ(0, lost);
	for (i = 0; i < count; i++) {
		ASSERT_EQ(0, pthread_join(all.threads[i], NULL));
		EXPECT_EQ(0, all.openers[i].error);
		/* QEMU's VFs have no power management. */
		EXPECT_TRUE(comes_to(self->functions.bdf[i], variant->vfs ? "D0" : "D3hot"));
		EXPECT_IDLE_DOMAIN(self->functions.bdf[i], 0, variant->bus * rounds(20));
	}
}

TEST_HARNESS_MAIN
