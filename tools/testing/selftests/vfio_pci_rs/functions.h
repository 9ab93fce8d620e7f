/* SPDX-License-Identifier: GPL-2.0 */
/*
 * PCI functions that are bound to a driver, their users, and what vfio_pci_rs shows
 * of their reset domains in debugfs.
 */
#ifndef VFIO_PCI_RS_FUNCTIONS_H
#define VFIO_PCI_RS_FUNCTIONS_H

#include <stdbool.h>

#define MAX_FUNCTIONS	8

struct functions {
	int count;
	char bdf[MAX_FUNCTIONS][16];
};

/* How a user gets at functions: one of them is -1. */
struct user {
	int container;
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

/* Binds the functions that a variable names; -ENODEV if these are fewer than @least. */
int functions_setup(const char *variable, int least, struct functions *functions);
int bind_functions(struct functions *functions);
int unbind_functions(struct functions *functions);
int bind_function(const char *bdf);
int unbind_function(const char *bdf);
bool is_bound(const char *bdf);

/* Returns whether the function comes to this power state. */
bool comes_to(const char *bdf, const char *expected);

/* Reads the domain of the function; -ENOENT if it is in none. */
int read_domain(const char *bdf, struct domain *found);

/* Returns the number of the function's IOMMU group. */
int iommu_group_of(const char *bdf);

int user_init(struct user *user, bool cdev);
void user_exit(struct user *user);

/* Opens a function, and its group if that is what the user has. Returns a file descriptor. */
int open_function(struct user *user, const char *bdf);

#endif
