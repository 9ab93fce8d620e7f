/* SPDX-License-Identifier: GPL-2.0 */
/*
 * PCI functions under test, their users, and the effects of the driver on them:
 * bindings, power states and resets.
 *
 * Functions that return int return a negative errno, or end the test, if they
 * fail; all others end the test.
 */
#ifndef VFIO_PCI_RS_FUNCTIONS_H
#define VFIO_PCI_RS_FUNCTIONS_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

#include <libvfio.h>

#define MAX_FUNCTIONS	8

/* Time limit of a test, in seconds. Emulated machines are slow. */
#define LIMIT		300

#define PCI_DEVICES	"/sys/bus/pci/devices/"
#define PCI_DRIVERS	"/sys/bus/pci/drivers/"

#define GROUP_MODE	MODE_VFIO_TYPE1V2_IOMMU
#define CDEV_MODE	MODE_IOMMUFD

struct functions {
	int count;
	char bdf[MAX_FUNCTIONS][16];
};

/* A container or an iommufd, with the groups that were opened for it. */
struct user {
	struct iommu *iommu;
	int groups;
	struct {
		int id;
		int fd;
	} group[MAX_FUNCTIONS];
};

/* A function that a thread opens and closes until it is stopped. */
struct sibling {
	struct user *user;
	const char *bdf;
	pthread_t thread;
	bool stop;
	int opened;
	int error;
};

/* Calls of the kernel's reset functions. */
struct resets {
	int flr;
	int bus;
	int slot;
};

/* The driver under test: $VFIO_PCI_RS_DRIVER, by default vfio_pci_rs. */
const char *driver(void);
const char *module(void);

/* Returns true for vfio_pci_rs. */
bool is_ours(void);

/* Returns a path, which is valid until the thread's next call. */
const char *path(const char *format, ...) __printf(1, 2);
bool exists(const char *path);
int write_file(const char *path, const char *value);
int read_word(const char *path, char word[32]);

/* Returns 0 if the module is there. */
int load_module(const char *name);

/* Returns whether the power state changes to @expected in time. */
bool comes_to(const char *bdf, const char *expected);

/* Returns whether the function is in a power state, and stays in it for a while. */
bool stays_in(const char *bdf, const char *expected);

int bind_function(const char *bdf, const char *driver);
int unbind_function(const char *bdf);
bool is_bound(const char *bdf);

/*
 * Finds the functions that a variable names. Returns the reason to skip the test if
 * there are less than @least, or if the kernel lacks the mode.
 */
const char *functions_find(struct functions *functions, const char *variable, int least,
			   const char *iommu_mode);
void bind_functions(struct functions *functions);
int unbind_functions(struct functions *functions);
void find_vfs(const char *pf, struct functions *vfs);

/* Sets a boolean parameter of the driver. */
int set_parameter(const char *name, bool value);

/* Returns the reference count of the driver's module, -ENOENT if it is built in. */
int references(void);

/* Returns whether vfio_pci_rs has any reset domain. */
bool shows_domains(void);

/* Count resets in an instance of the function tracer. */
void tracer_start(void);
void tracer_stop(void);

/* Returns the resets since the last call. */
struct resets take_resets(void);

void user_init(struct user *user, const char *iommu_mode);
void user_exit(struct user *user);
bool uses_cdev(const struct user *user);
int open_group(struct user *user, const char *bdf);

/* Opens a function, or fails. A VF token is a UUID, or NULL. */
int try_open(struct user *user, const char *bdf, const char *token);
int open_with_token(struct user *user, const char *bdf, const char *token);
#define open_function(_user, _bdf) open_with_token(_user, _bdf, NULL)

void get_region(int fd, int index, struct vfio_region_info *info);

/* Returns an eventfd that the first vector signals. */
int enable_irq(int fd, unsigned int index);

void sibling_start(struct sibling *sibling, struct user *user, const char *bdf);
int sibling_opened(struct sibling *sibling);
int sibling_stop(struct sibling *sibling);

/* Starts an action that may block, in a child without any open files. */
pid_t begin(int (*action)(const char *bdf), const char *bdf);
bool blocks(pid_t pid);
bool succeeds(pid_t pid);

#define EXPECT_RESETS(_flr, _bus) do {				\
	struct resets __resets = take_resets();			\
								\
	EXPECT_EQ(_flr, __resets.flr);				\
	EXPECT_EQ(_bus, __resets.bus);				\
	EXPECT_EQ(0, __resets.slot);				\
} while (0)

/* Nothing is left of the users, nor of the functions. */
#define END(_functions) do {					\
	tracer_stop();						\
	EXPECT_GE(0, references());				\
	EXPECT_EQ(0, unbind_functions(_functions));		\
	EXPECT_FALSE(shows_domains());				\
} while (0)

#endif
