/* SPDX-License-Identifier: GPL-2.0 */
/*
 * PCI functions that are bound to a driver, their users, and what vfio_pci_rs shows
 * of their reset domains in debugfs.
 */
#ifndef VFIO_PCI_RS_FUNCTIONS_H
#define VFIO_PCI_RS_FUNCTIONS_H

#include <stdbool.h>
#include <sys/types.h>

#define MAX_FUNCTIONS	8
#define TOKEN_SIZE	16

struct functions {
	int count;
	char bdf[MAX_FUNCTIONS][16];
};

/* How a user gets at functions: one of the files is -1. */
struct user {
	int container;
	/* What the container is given: VFIO_TYPE1v2_IOMMU, unless it is set. */
	int iommu;
	int iommufd;
	int groups;
	struct {
		int id;
		int fd;
	} group[MAX_FUNCTIONS];
};

struct domain {
	long resets;
	int members;
	int dirty;
	int idle;
	/* Of the function that was asked for. */
	char state[16];
};

/* All return a negative errno if something fails, and else 0 unless they say so. */

/* The driver: vfio_pci_rs, unless VFIO_PCI_RS_DRIVER names another one. Only that shows domains. */
const char *driver(void);
bool shows_domains(void);

/* Finds the functions that a variable names, and binds them; -ENODEV if fewer than @least. */
int functions_find(const char *variable, int least, struct functions *functions);
int functions_setup(const char *variable, int least, struct functions *functions);
int bind_functions(struct functions *functions);
int unbind_functions(struct functions *functions);
int bind_function(const char *bdf);
int unbind_function(const char *bdf);
bool is_bound(const char *bdf);

/* Returns whether there is such a function, bound or not. */
bool exists(const char *bdf);

/* Reads the first word of a function's attribute in sysfs, 31 characters of it at most. */
int read_attribute(const char *bdf, const char *name, char value[32]);

/* Reads configuration space as the host sees it. Returns how many bytes there are, up to @size. */
int read_host_config(const char *bdf, int where, void *config, size_t size);

/* Writes to the file whose path is @format with @name in it. */
int write_file(const char *value, const char *format, const char *name);

int write_attribute(const char *bdf, const char *name, const char *value);

/* Returns whether the function comes to this power state, or an attribute to this value. */
bool comes_to(const char *bdf, const char *expected);
bool attribute_comes_to(const char *bdf, const char *name, const char *expected);

/* Reads the domain of the function; -ENOENT if it is in none. */
int read_domain(const char *bdf, struct domain *found);

/* Sets a parameter of the driver's module. */
int set_parameter(const char *name, bool value);

/* Enables so many VFs of a PF, or disables them all. */
int set_vfs(const char *pf, int count);

/* Finds the VFs of a PF; -E2BIG if there are too many. */
int find_vfs(const char *pf, struct functions *vfs);

/* Returns the number of the function's IOMMU group. */
int iommu_group_of(const char *bdf);

int user_init(struct user *user, bool cdev);
void user_exit(struct user *user);

/* Opens a function, and its group if that is what the user has. Returns a file descriptor. */
int open_function(struct user *user, const char *bdf);

/* The same with a VF token, or with none if that is NULL. */
int open_with_token(struct user *user, const char *bdf, const unsigned char *token);

/* Reads 16 bits of the configuration space of an open function; ~0U if that fails. */
unsigned int config_read(int fd, int where);

/* Returns where the configuration space is in the file, or -1. */
off_t config_offset(int fd);

/* VFIO_DEVICE_SET_IRQS from vector 0 on: @data are bytes or file descriptors, as the flags say. */
int set_irqs(int fd, unsigned int index, unsigned int flags, unsigned int count, const void *data);

/* Returns an eventfd by which the user of a function is asked to let go of it. */
int request_eventfd(int fd);

bool is_signalled(int eventfd, int timeout_ms);

/* Asks for a hot reset with @count group files, or as a user of iommufd with none. */
int reset_with(int fd, const int *groups, int count);

/* Asks for it with all groups that the user has. */
int hot_reset(struct user *user, int fd);

/* Begins what may have to wait, in a child that has nothing open of what its parent has. */
pid_t begin(int (*action)(const char *bdf), const char *bdf);

/* Returns whether the child is still at it after a while, or whether it comes to a good end. */
bool waits(pid_t pid);
bool succeeds(pid_t pid);

#endif
