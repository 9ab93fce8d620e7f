// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include "functions.h"
#include "kselftest.h"

/* How long something may take that happens by itself, and how long it is watched. */
#define SETTLE_MS	5000
/* How long something is watched that has to wait. */
#define WATCH_MS	500

#define OURS		"vfio_pci_rs"
#define DOMAINS		"/sys/kernel/debug/" OURS "/reset_domains"
#define DEVICES		"/sys/bus/pci/devices/"

const char *driver(void)
{
	return getenv("VFIO_PCI_RS_DRIVER") ?: OURS;
}

bool shows_domains(void)
{
	return !strcmp(driver(), OURS);
}

int write_file(const char *value, const char *format, const char *name)
{
	char path[PATH_MAX];
	int fd, ret = 0;

	snprintf(path, sizeof(path), format, name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

bool is_bound(const char *bdf)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/%s", driver(), bdf);
	return access(path, F_OK) == 0;
}

int bind_function(const char *bdf)
{
	int ret = write_file(driver(), DEVICES "%s/driver_override", bdf);

	return ret ?: write_file(bdf, "/sys/bus/pci/drivers/%s/bind", driver());
}

int unbind_function(const char *bdf)
{
	int ret = 0;

	if (is_bound(bdf))
		ret = write_file(bdf, "/sys/bus/pci/drivers/%s/unbind", driver());
	return ret ?: write_file("\n", DEVICES "%s/driver_override", bdf);
}

bool exists(const char *bdf)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEVICES "%s", bdf);
	return access(path, F_OK) == 0;
}

int read_attribute(const char *bdf, const char *name, char value[32])
{
	char path[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof(path), DEVICES "%s/%s", bdf, name);
	file = fopen(path, "r");
	if (!file)
		return -errno;
	if (fscanf(file, "%31s", value) != 1)
		value[0] = '\0';
	fclose(file);
	return 0;
}

int write_attribute(const char *bdf, const char *name, const char *value)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", bdf, name);
	return write_file(value, DEVICES "%s", path);
}

int read_host_config(const char *bdf, int where, void *config, size_t size)
{
	char path[PATH_MAX];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), DEVICES "%s/config", bdf);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -errno;
	len = pread(fd, config, size, where);
	close(fd);
	return len < 0 ? -EIO : len;
}

bool attribute_comes_to(const char *bdf, const char *name, const char *expected)
{
	char value[32];
	int waited;

	for (waited = 0; waited <= SETTLE_MS; waited += 20) {
		if (read_attribute(bdf, name, value))
			return false;
		if (!strcmp(value, expected))
			return true;
		usleep(20000);
	}
	ksft_print_msg("%s: %s is %s, and not %s\n", bdf, name, value, expected);
	return false;
}

bool comes_to(const char *bdf, const char *expected)
{
	return attribute_comes_to(bdf, "power_state", expected);
}

int read_domain(const char *bdf, struct domain *found)
{
	struct domain domain = {};
	char line[128], function[32], state[16], dirt[16];
	int ret = -ENOENT;
	FILE *file;

	file = fopen(DOMAINS, "r");
	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		if (line[0] != ' ') {
			if (!ret)
				break;
			memset(&domain, 0, sizeof(domain));
			domain.resets = strtol(strrchr(line, ' '), NULL, 10);
			continue;
		}
		if (sscanf(line, " %31s %15s %15s", function, state, dirt) != 3)
			continue;
		domain.members++;
		domain.idle += !strcmp(state, "idle");
		domain.dirty += !strcmp(dirt, "dirty");
		if (!strcmp(function, bdf)) {
			memcpy(domain.state, state, sizeof(state));
			ret = 0;
		}
	}
	fclose(file);
	*found = domain;
	return ret;
}

int set_parameter(const char *name, bool value)
{
	char path[PATH_MAX], *dash;

	snprintf(path, sizeof(path), "%s/parameters/%s", driver(), name);
	while ((dash = strchr(path, '-')))
		*dash = '_';
	return write_file(value ? "Y" : "N", "/sys/module/%s", path);
}

int set_vfs(const char *pf, int count)
{
	char value[8];

	snprintf(value, sizeof(value), "%d", count);
	return write_file(value, DEVICES "%s/sriov_numvfs", pf);
}

int find_vfs(const char *pf, struct functions *vfs)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t len;

	for (vfs->count = 0;; vfs->count++) {
		snprintf(path, sizeof(path), DEVICES "%s/virtfn%d", pf, vfs->count);
		len = readlink(path, target, sizeof(target) - 1);
		if (len < 0)
			return errno == ENOENT ? 0 : -errno;
		if (vfs->count == MAX_FUNCTIONS)
			return -E2BIG;
		target[len] = '\0';
		snprintf(vfs->bdf[vfs->count], sizeof(vfs->bdf[0]), "%s", basename(target));
	}
}

int user_init(struct user *user, bool cdev)
{
	memset(user, 0, sizeof(*user));
	user->iommufd = cdev ? open("/dev/iommu", O_RDWR) : -1;
	user->container = cdev ? -1 : open("/dev/vfio/vfio", O_RDWR);
	user->iommu = VFIO_TYPE1v2_IOMMU;
	return user->container >= 0 || user->iommufd >= 0 ? 0 : -errno;
}

void user_exit(struct user *user)
{
	while (user->groups)
		close(user->group[--user->groups].fd);
	close(user->container >= 0 ? user->container : user->iommufd);
}

int iommu_group_of(const char *bdf)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t len;

	snprintf(path, sizeof(path), DEVICES "%s/iommu_group", bdf);
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0)
		return -errno;
	target[len] = '\0';
	return atoi(basename(target));
}

static int open_group(struct user *user, const char *bdf)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	int i, fd, id = iommu_group_of(bdf);
	char path[PATH_MAX];

	if (id < 0)
		return id;
	for (i = 0; i < user->groups; i++) {
		if (user->group[i].id == id)
			return user->group[i].fd;
	}
	snprintf(path, sizeof(path), "/dev/vfio/%s%d",
		 user->iommu == VFIO_NOIOMMU_IOMMU ? "noiommu-" : "", id);
	fd = open(path, O_RDWR);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, VFIO_GROUP_GET_STATUS, &status) ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
		close(fd);
		return -EPERM;
	}
	if (ioctl(fd, VFIO_GROUP_SET_CONTAINER, &user->container) ||
	    (!user->groups && ioctl(user->container, VFIO_SET_IOMMU, user->iommu))) {
		int error = errno;

		close(fd);
		return -error;
	}
	user->group[user->groups].id = id;
	user->group[user->groups++].fd = fd;
	return fd;
}

static int open_cdev(struct user *user, const char *bdf, const unsigned char *token)
{
	struct vfio_device_bind_iommufd bind = {
		.argsz = sizeof(bind),
		.flags = token ? VFIO_DEVICE_BIND_FLAG_TOKEN : 0,
		.iommufd = user->iommufd,
		.token_uuid_ptr = (uintptr_t)token,
	};
	char pattern[PATH_MAX], path[PATH_MAX];
	glob_t found;
	int fd;

	snprintf(pattern, sizeof(pattern), DEVICES "%s/vfio-dev/vfio*", bdf);
	if (glob(pattern, 0, NULL, &found))
		return -ENODEV;
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", basename(found.gl_pathv[0]));
	globfree(&found);
	fd = open(path, O_RDWR);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind)) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

/* What a user of groups calls a function: its address, and " vf_token=" with a UUID. */
static void name_with_token(char *name, size_t size, const char *bdf, const unsigned char *token)
{
	int i, used = snprintf(name, size, "%s%s", bdf, token ? " vf_token=" : "");

	for (i = 0; token && i < TOKEN_SIZE; i++)
		used += snprintf(name + used, size - used, "%s%02x",
				 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", token[i]);
}

int open_with_token(struct user *user, const char *bdf, const unsigned char *token)
{
	char name[80];
	int fd;

	if (user->container < 0)
		return open_cdev(user, bdf, token);
	name_with_token(name, sizeof(name), bdf, token);
	fd = open_group(user, bdf);
	if (fd >= 0)
		fd = ioctl(fd, VFIO_GROUP_GET_DEVICE_FD, name);
	return fd == -1 ? -errno : fd;
}

int open_function(struct user *user, const char *bdf)
{
	return open_with_token(user, bdf, NULL);
}

off_t config_offset(int fd)
{
	struct vfio_region_info info = {
		.argsz = sizeof(info),
		.index = VFIO_PCI_CONFIG_REGION_INDEX,
	};

	return ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info) ? -1 : (off_t)info.offset;
}

unsigned int config_read(int fd, int where)
{
	__u16 value;

	if (pread(fd, &value, sizeof(value), config_offset(fd) + where) != sizeof(value))
		return ~0U;
	return value;
}

int set_irqs(int fd, unsigned int index, unsigned int flags, unsigned int count, const void *data)
{
	struct {
		struct vfio_irq_set header;
		unsigned char data[MAX_FUNCTIONS * sizeof(int)];
	} irqs = {
		.header = {
			.flags = flags,
			.index = index,
			.count = count,
		},
	};
	size_t size = 0;

	if (flags & VFIO_IRQ_SET_DATA_BOOL)
		size = count;
	else if (flags & VFIO_IRQ_SET_DATA_EVENTFD)
		size = count * sizeof(int);
	if (size > sizeof(irqs.data))
		return -E2BIG;
	if (size)
		memcpy(irqs.data, data, size);
	irqs.header.argsz = sizeof(irqs.header) + size;
	return ioctl(fd, VFIO_DEVICE_SET_IRQS, &irqs) ? -errno : 0;
}

int request_eventfd(int fd)
{
	int ret, request = eventfd(0, EFD_CLOEXEC);

	ret = set_irqs(fd, VFIO_PCI_REQ_IRQ_INDEX,
		       VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, 1, &request);
	return ret ?: request;
}

bool is_signalled(int eventfd, int timeout_ms)
{
	struct pollfd event = {
		.fd = eventfd,
		.events = POLLIN,
	};

	return poll(&event, 1, timeout_ms) == 1;
}

int reset_with(int fd, const int *groups, int count)
{
	struct {
		struct vfio_pci_hot_reset header;
		int groups[MAX_FUNCTIONS + 1];
	} request = {
		.header = {
			.argsz = sizeof(request),
			.count = count,
		},
	};

	if (count)
		memcpy(request.groups, groups, count * sizeof(*groups));
	return ioctl(fd, VFIO_DEVICE_PCI_HOT_RESET, &request) ? -errno : 0;
}

int hot_reset(struct user *user, int fd)
{
	int groups[MAX_FUNCTIONS], i;

	for (i = 0; i < user->groups; i++)
		groups[i] = user->group[i].fd;
	return reset_with(fd, groups, user->groups);
}

pid_t begin(int (*action)(const char *bdf), const char *bdf)
{
	pid_t pid = fork();

	if (!pid) {
		close_range(3, ~0U, 0);
		_exit(action(bdf) ? 1 : 0);
	}
	return pid;
}

bool waits(pid_t pid)
{
	usleep(WATCH_MS * 1000);
	return !waitpid(pid, NULL, WNOHANG);
}

bool succeeds(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* Returns how many functions a variable names, or -EINVAL if there are too many. */
static int parse_functions(const char *variable, struct functions *functions)
{
	const char *text = getenv(variable);
	int used;

	functions->count = 0;
	while (text && sscanf(text, " %15s%n", functions->bdf[functions->count], &used) == 1) {
		text += used;
		if (++functions->count == MAX_FUNCTIONS)
			break;
	}
	if (text && text[strspn(text, " ")])
		return -EINVAL;
	return functions->count;
}

int bind_functions(struct functions *functions)
{
	int i, ret = 0;

	for (i = 0; i < functions->count && !ret; i++)
		ret = is_bound(functions->bdf[i]) ? 0 : bind_function(functions->bdf[i]);
	return ret;
}

int unbind_functions(struct functions *functions)
{
	int i, ret = 0;

	for (i = 0; i < functions->count; i++)
		ret = unbind_function(functions->bdf[i]) ?: ret;
	return ret;
}

int functions_find(const char *variable, int least, struct functions *functions)
{
	int count = parse_functions(variable, functions);

	if (count < 0)
		return count;
	return count < least ? -ENODEV : 0;
}

int functions_setup(const char *variable, int least, struct functions *functions)
{
	return functions_find(variable, least, functions) ?: bind_functions(functions);
}
