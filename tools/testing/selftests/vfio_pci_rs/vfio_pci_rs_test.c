// SPDX-License-Identifier: GPL-2.0
/*
 * The life cycle of the functions of one bus that are bound to vfio_pci_rs: who
 * is in which state, when the bus is reset, and in which power state functions
 * are left.
 *
 * The functions are named by environment variables, as addresses separated by
 * spaces. They must have no driver or vfio_pci_rs, and are left without one:
 *
 *   VFIO_PCI_RS_BUS   all functions of one bus or slot, two at least, that have
 *                     no reset of their own
 *   VFIO_PCI_RS_FLR   functions of one bus or slot that have function level reset
 *
 * Each test runs on VFIO's groups and on its character devices. One whose
 * functions are not given is skipped. Reset domains are read from debugfs.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "functions.h"
#include "kselftest_harness.h"

#define REBINDS		20
#define ROUNDS		3
/* How often functions are released together. */
#define RELEASES	100
/* How long something is watched that must not change. */
#define WATCH_MS	500

/* One thread for each of the functions that are opened together and released together. */
struct together {
	struct user *user;
	struct functions *functions;
	pthread_barrier_t barrier;
	pthread_t threads[MAX_FUNCTIONS];
	struct opener {
		struct together *all;
		const char *bdf;
		int error;
	} openers[MAX_FUNCTIONS];
	int rounds;
};

/* Each round is a barrier before the opens, one before the releases, and one after them. */
static void *open_and_close(void *argument)
{
	struct opener *opener = argument;
	struct together *all = opener->all;
	int round, fd;

	for (round = 0; round < all->rounds; round++) {
		pthread_barrier_wait(&all->barrier);
		/* After an error, the others go on. */
		fd = opener->error ? opener->error : open_function(all->user, opener->bdf);
		pthread_barrier_wait(&all->barrier);
		opener->error = fd < 0 ? fd : close(fd);
		pthread_barrier_wait(&all->barrier);
	}
	return NULL;
}

/* Whoever calls this takes part in the barriers. */
static int together_start(struct together *all, struct user *user, struct functions *functions,
			  int rounds)
{
	int i, fd, count = functions->count;

	*all = (struct together){ .user = user, .functions = functions, .rounds = rounds };
	/* The groups are opened once: threads would be in each other's way there. */
	for (i = 0; i < count; i++) {
		fd = open_function(user, functions->bdf[i]);
		if (fd < 0)
			return fd;
		close(fd);
	}
	if (pthread_barrier_init(&all->barrier, NULL, count + 1))
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		all->openers[i] = (struct opener){ .all = all, .bdf = functions->bdf[i] };
		if (pthread_create(&all->threads[i], NULL, open_and_close, &all->openers[i]))
			return -ENOMEM;
	}
	return 0;
}

static int together_end(struct together *all)
{
	int i, error = 0;

	for (i = 0; i < all->functions->count; i++) {
		pthread_join(all->threads[i], NULL);
		if (all->openers[i].error)
			error = all->openers[i].error;
	}
	pthread_barrier_destroy(&all->barrier);
	return error;
}

/* Functions of one bus that only a reset of the bus can clean. */
FIXTURE(bus) {
	struct functions functions;
	struct user user;
};

FIXTURE_VARIANT(bus) {
	bool cdev;
};

FIXTURE_VARIANT_ADD(bus, group) {
	.cdev = false,
};

FIXTURE_VARIANT_ADD(bus, cdev) {
	.cdev = true,
};

FIXTURE_SETUP(bus)
{
	int ret = functions_setup("VFIO_PCI_RS_BUS", 2, &self->functions);

	if (ret == -ENODEV)
		SKIP(return, "VFIO_PCI_RS_BUS names no two functions");
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
}

FIXTURE_TEARDOWN(bus)
{
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

TEST_F(bus, rebind)
{
	struct domain domain;
	const char *bdf = self->functions.bdf[0];
	int i;

	for (i = 0; i < REBINDS; i++) {
		ASSERT_EQ(0, read_domain(bdf, &domain));
		ASSERT_EQ(self->functions.count, domain.members);
		ASSERT_EQ(self->functions.count, domain.idle);
		ASSERT_EQ(0, unbind_functions(&self->functions));
		ASSERT_EQ(-ENOENT, read_domain(bdf, &domain));
		ASSERT_EQ(0, bind_functions(&self->functions));
	}
}

TEST_F(bus, last_release_resets)
{
	struct domain before, domain;
	int fd[MAX_FUNCTIONS];
	int i, last = self->functions.count - 1;

	ASSERT_EQ(0, read_domain(self->functions.bdf[0], &before));
	for (i = 0; i <= last; i++) {
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
		fd[i] = open_function(&self->user, self->functions.bdf[i]);
		ASSERT_LE(0, fd[i]);
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D0"));
	}
	for (i = 0; i < last; i++) {
		ASSERT_EQ(0, close(fd[i]));
		ASSERT_EQ(0, read_domain(self->functions.bdf[i], &domain));
		EXPECT_EQ(before.resets, domain.resets);
		EXPECT_EQ(i + 1, domain.dirty);
		EXPECT_STREQ("idle", domain.state);
	}
	ASSERT_EQ(0, close(fd[last]));
	ASSERT_EQ(0, read_domain(self->functions.bdf[last], &domain));
	EXPECT_EQ(before.resets + 1, domain.resets);
	EXPECT_EQ(0, domain.dirty);
	EXPECT_EQ(self->functions.count, domain.idle);
	for (i = 0; i <= last; i++)
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
}

TEST_F(bus, foreign_function)
{
	const char *bdf = self->functions.bdf[0];
	struct domain before, domain;
	int fd;

	ASSERT_EQ(0, read_domain(bdf, &before));
	/* A reset of the bus would reset this one too, which nobody vouches for now. */
	ASSERT_EQ(0, unbind_function(self->functions.bdf[1]));
	fd = open_function(&self->user, bdf);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, close(fd));
	ASSERT_EQ(0, read_domain(bdf, &domain));
	EXPECT_EQ(before.resets, domain.resets);
	EXPECT_EQ(1, domain.dirty);

	ASSERT_EQ(0, bind_function(self->functions.bdf[1]));
	fd = open_function(&self->user, bdf);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, close(fd));
	ASSERT_EQ(0, read_domain(bdf, &domain));
	EXPECT_EQ(before.resets + 1, domain.resets);
	EXPECT_EQ(0, domain.dirty);
}

TEST_F(bus, killed_user)
{
	const char *bdf = self->functions.bdf[0];
	struct domain before, domain;
	int ready[2], i, status;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, read_domain(bdf, &before));
	ASSERT_EQ(0, pipe(ready));
	/* Or the parent would have the groups open as well. */
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct user user;

		if (user_init(&user, variant->cdev))
			_exit(1);
		for (i = 0; i < self->functions.count; i++) {
			if (open_function(&user, self->functions.bdf[i]) < 0)
				_exit(1);
		}
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	close(ready[0]);
	ASSERT_EQ(0, read_domain(bdf, &domain));
	EXPECT_EQ(0, domain.idle);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(0, read_domain(bdf, &domain));
	EXPECT_EQ(self->functions.count, domain.idle);
	EXPECT_EQ(0, domain.dirty);
	EXPECT_EQ(before.resets + 1, domain.resets);
	for (i = 0; i < self->functions.count; i++)
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
}

/* Whichever is the last one: exactly one reset of the bus each time. */
TEST_F_TIMEOUT(bus, released_together, 600)
{
	int i, round, count = self->functions.count;
	struct domain before, domain;
	struct together all;

	ASSERT_EQ(0, together_start(&all, &self->user, &self->functions, RELEASES));
	for (round = 0; round < RELEASES; round++) {
		ASSERT_EQ(0, read_domain(self->functions.bdf[0], &before));
		EXPECT_EQ(count, before.idle);
		pthread_barrier_wait(&all.barrier);
		pthread_barrier_wait(&all.barrier);
		pthread_barrier_wait(&all.barrier);
		ASSERT_EQ(0, read_domain(self->functions.bdf[0], &domain));
		EXPECT_EQ(before.resets + 1, domain.resets);
		EXPECT_EQ(count, domain.idle);
		EXPECT_EQ(0, domain.dirty);
	}
	EXPECT_EQ(0, together_end(&all));
	for (i = 0; i < count; i++)
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
}

/* Functions of one bus, each with a reset of its own. */
FIXTURE(flr) {
	struct functions functions;
	struct user user;
};

FIXTURE_VARIANT(flr) {
	bool cdev;
};

FIXTURE_VARIANT_ADD(flr, group) {
	.cdev = false,
};

FIXTURE_VARIANT_ADD(flr, cdev) {
	.cdev = true,
};

FIXTURE_SETUP(flr)
{
	int ret = functions_setup("VFIO_PCI_RS_FLR", 1, &self->functions);

	if (ret == -ENODEV)
		SKIP(return, "VFIO_PCI_RS_FLR names no function");
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, user_init(&self->user, variant->cdev));
}

FIXTURE_TEARDOWN(flr)
{
	user_exit(&self->user);
	EXPECT_EQ(0, unbind_functions(&self->functions));
}

/* A function is enabled at its first open and disabled at its last release; a cdev opens once. */
TEST_F(flr, opened_twice)
{
	const char *bdf = self->functions.bdf[0];
	struct domain domain;
	int first, second;

	EXPECT_TRUE(comes_to(bdf, "D3hot"));
	first = open_function(&self->user, bdf);
	ASSERT_LE(0, first);
	second = open_function(&self->user, bdf);
	if (variant->cdev) {
		EXPECT_EQ(-EINVAL, second);
	} else {
		ASSERT_LE(0, second);
		ASSERT_EQ(0, close(second));
	}
	usleep(WATCH_MS * 1000);
	ASSERT_EQ(0, read_domain(bdf, &domain));
	EXPECT_STREQ("open", domain.state);
	EXPECT_TRUE(comes_to(bdf, "D0"));
	ASSERT_EQ(0, close(first));
	ASSERT_EQ(0, read_domain(bdf, &domain));
	EXPECT_STREQ("idle", domain.state);
	EXPECT_EQ(0, domain.dirty);
	EXPECT_TRUE(comes_to(bdf, "D3hot"));
}

TEST_F(flr, unbind_waits_for_release)
{
	const char *bdf = self->functions.bdf[0];
	int fd, status;
	pid_t pid;

	fd = open_function(&self->user, bdf);
	ASSERT_LE(0, fd);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* The parent's alone shall keep the function open. */
		close(fd);
		user_exit(&self->user);
		_exit(unbind_function(bdf) ? 1 : 0);
	}
	usleep(WATCH_MS * 1000);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	ASSERT_EQ(0, close(fd));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status) && !WEXITSTATUS(status));
	EXPECT_FALSE(is_bound(bdf));
}

TEST_F(flr, parallel)
{
	struct together all;
	struct domain domain;
	int i;

	ASSERT_EQ(0, together_start(&all, &self->user, &self->functions, ROUNDS));
	for (i = 0; i < 3 * ROUNDS; i++)
		pthread_barrier_wait(&all.barrier);
	EXPECT_EQ(0, together_end(&all));
	ASSERT_EQ(0, read_domain(self->functions.bdf[0], &domain));
	EXPECT_EQ(domain.members, domain.idle);
	EXPECT_EQ(0, domain.dirty);
	for (i = 0; i < self->functions.count; i++)
		EXPECT_TRUE(comes_to(self->functions.bdf[i], "D3hot"));
}

TEST_HARNESS_MAIN
