// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/limits.h>

#include "functions.h"

/* How long to wait for events, and how long to watch that nothing happens. */
#define SETTLE_MS	15000
#define WATCH_MS	500
#define POLL_MS		20

#define OURS		"vfio_pci_rs"
#define DEBUGFS		"/sys/kernel/debug"
#define DOMAINS		DEBUGFS "/" OURS "/reset_domains"
#define TRACEFS		"/sys/kernel/tracing"
#define TRACER		TRACEFS "/instances/" OURS
#define FILTER		TRACER "/set_ftrace_filter"

const char *driver(void)
{
	return getenv("VFIO_PCI_RS_DRIVER") ?: OURS;
}

bool is_ours(void)
{
	return !strcmp(driver(), OURS);
}

int rounds(int otherwise)
{
	const char *text = getenv("VFIO_PCI_RS_ROUNDS");

	return text ? atoi(text) : otherwise;
}

const char *path(const char *format, ...)
{
	static __thread char buffer[PATH_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(buffer, sizeof(buffer), format, args);
	va_end(args);
	return buffer;
}

bool exists(const char *path)
{
	return !access(path, F_OK);
}

int write_file(const char *path, const char *value)
{
	int ret, fd = open(path, O_WRONLY);

	if (fd < 0)
		return -errno;
	ret = write(fd, value, strlen(value)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

int read_word(const char *path, char word[32])
{
	FILE *file = fopen(path, "r");

	if (!file)
		return -errno;
	if (fscanf(file, "%31s", word) != 1)
		word[0] = '\0';
	fclose(file);
	return 0;
}

int read_host_config(const char *bdf, int where, void *config, size_t size)
{
	int fd = open(path(PCI_DEVICES "%s/config", bdf), O_RDONLY);
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = pread(fd, config, size, where);
	close(fd);
	return len < 0 ? -EIO : len;
}

/* Waits until the value of an attribute is, or is not, @value. */
static bool wait_for(const char *bdf, const char *name, const char *value, bool is, int limit_ms)
{
	char word[32];
	int waited;

	for (waited = 0; waited <= limit_ms; waited += POLL_MS) {
		if (read_word(path(PCI_DEVICES "%s/%s", bdf, name), word))
			return !is;
		if (!strcmp(word, value) == is)
			return true;
		usleep(POLL_MS * 1000);
	}
	if (is)
		ksft_print_msg("%s: %s is %s, not %s\n", bdf, name, word, value);
	return false;
}

bool attribute_comes_to(const char *bdf, const char *name, const char *expected)
{
	return wait_for(bdf, name, expected, true, SETTLE_MS);
}

bool comes_to(const char *bdf, const char *expected)
{
	return attribute_comes_to(bdf, "power_state", expected);
}

bool stays_in(const char *bdf, const char *expected)
{
	return !wait_for(bdf, "power_state", expected, false, WATCH_MS);
}

int bind_function(const char *bdf, const char *driver)
{
	int ret = write_file(path(PCI_DEVICES "%s/driver_override", bdf), driver);

	return ret ?: write_file(path(PCI_DRIVERS "%s/bind", driver), bdf);
}

int unbind_function(const char *bdf)
{
	char *driver = sysfs_driver_get(bdf);
	int ret = driver ? write_file(path(PCI_DRIVERS "%s/unbind", driver), bdf) : 0;

	free(driver);
	return ret ?: write_file(path(PCI_DEVICES "%s/driver_override", bdf), "\n");
}

bool is_bound(const char *bdf)
{
	return exists(path(PCI_DRIVERS "%s/%s", driver(), bdf));
}

const char *functions_find(struct functions *functions, const char *variable, int least,
			   const char *iommu_mode)
{
	const char *text = getenv(variable);
	static char missing[64];
	int i, used = 0;

	for (i = 0; text && i < MAX_FUNCTIONS; i++, text += used) {
		if (sscanf(text, " %15s%n", functions->bdf[i], &used) != 1)
			break;
	}
	functions->count = i;
	if (i < least)
		snprintf(missing, sizeof(missing), "%s names less than %d functions", variable,
			 least);
	else if (!strcmp(iommu_mode, MODE_IOMMUFD) && !exists("/dev/iommu"))
		snprintf(missing, sizeof(missing), "the kernel has no iommufd");
	else
		return NULL;
	return missing;
}

int unbind_functions(struct functions *functions)
{
	int i, ret = 0;

	for (i = 0; i < functions->count; i++)
		ret = unbind_function(functions->bdf[i]) ?: ret;
	return ret;
}

void bind_functions(struct functions *functions)
{
	int i;

	/* A test that was killed may have left them bound. */
	VFIO_ASSERT_EQ(unbind_functions(functions), 0);
	for (i = 0; i < functions->count; i++)
		VFIO_ASSERT_EQ(bind_function(functions->bdf[i], driver()), 0, "binding %s",
			       functions->bdf[i]);
}

const char *module(void)
{
	return is_ours() ? OURS : "vfio_pci";
}

int set_parameter(const char *name, bool value)
{
	return write_file(path("/sys/module/%s/parameters/%s", module(), name), value ? "Y" : "N");
}

int references(void)
{
	char count[32];

	return read_word(path("/sys/module/%s/refcnt", module()), count) ?: atoi(count);
}

void find_vfs(const char *pf, struct functions *vfs)
{
	int i;

	vfs->count = sysfs_sriov_numvfs_get(pf);
	VFIO_ASSERT_LE(vfs->count, MAX_FUNCTIONS);
	for (i = 0; i < vfs->count; i++) {
		char *bdf = sysfs_sriov_vf_bdf_get(pf, i);

		snprintf(vfs->bdf[i], sizeof(vfs->bdf[i]), "%s", bdf);
		free(bdf);
	}
}

bool shows_domains(void)
{
	char word[32];

	return is_ours() && (read_word(DOMAINS, word) || word[0]);
}

int read_domain(const char *bdf, struct domain *found)
{
	char line[128], function[32], state[16], dirt[16];
	struct domain domain = {};
	int ret = -ENOENT;
	FILE *file = fopen(DOMAINS, "r");

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		if (line[0] != ' ') {
			if (!ret)
				break;
			memset(&domain, 0, sizeof(domain));
			if (sscanf(line, "%*s %*s resets %ld failed %ld", &domain.resets,
				   &domain.failed) > 0)
				continue;
			break;
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

void tracer_start(void)
{
	if (!exists(DEBUGFS "/tracing"))
		mount("debugfs", DEBUGFS, "debugfs", 0, NULL);
	if (!exists(TRACEFS "/instances"))
		mount("tracefs", TRACEFS, "tracefs", 0, NULL);
	VFIO_ASSERT_TRUE(!mkdir(TRACER, 0700) || errno == EEXIST, "the kernel needs tracefs");
	/* Each write adds one. With none of them, everything would be traced. */
	VFIO_ASSERT_EQ(write_file(FILTER, "pcie_flr"), 0);
	VFIO_ASSERT_EQ(write_file(FILTER, "pci_bridge_secondary_bus_reset"), 0);
	VFIO_ASSERT_EQ(write_file(TRACER "/current_tracer", "function"), 0);
	take_resets();
}

void tracer_stop(void)
{
	rmdir(TRACER);
}

/* A slot reset is a bus reset that pciehp_reset_slot() calls. */
struct resets take_resets(void)
{
	FILE *file = fopen(TRACER "/trace", "r");
	struct resets resets = {};
	int kept, written;
	char line[256];

	VFIO_ASSERT_NOT_NULL(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "# entries-in-buffer/entries-written: %d/%d", &kept,
			   &written) == 2)
			VFIO_ASSERT_EQ(kept, written, "the tracer's buffer overran");
		resets.flr += !!strstr(line, ": pcie_flr <-");
		if (!strstr(line, ": pci_bridge_secondary_bus_reset <-"))
			continue;
		if (strstr(line, "<-pciehp_reset_slot"))
			resets.slot++;
		else
			resets.bus++;
	}
	fclose(file);
	/* Opening it with O_TRUNC clears the buffer. */
	close(open(TRACER "/trace", O_WRONLY | O_TRUNC));
	return resets;
}

int log_mark(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	VFIO_ASSERT_GE(log, 0);
	VFIO_ASSERT_NE(lseek(log, 0, SEEK_END), -1);
	return log;
}

int log_lines(int log, const char *part, const char *other)
{
	char record[8192];
	int lines = 0;
	ssize_t len;

	/* Each read returns one record. EPIPE: some were overwritten. */
	while ((len = read(log, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		record[len > 0 ? len : 0] = '\0';
		lines += strstr(record, part) && strstr(record, other);
	}
	return lines;
}

void user_init(struct user *user, const char *iommu_mode)
{
	*user = (struct user){ .iommu = iommu_init(iommu_mode) };
}

void user_exit(struct user *user)
{
	while (user->groups)
		close(user->group[--user->groups].fd);
	iommu_cleanup(user->iommu);
}

bool uses_cdev(const struct user *user)
{
	return !user->iommu->mode->container_path;
}

int open_group(struct user *user, const char *bdf)
{
	struct vfio_pci_device device = { .iommu = user->iommu };
	int i, id = sysfs_iommu_group_get(bdf);

	for (i = 0; i < user->groups; i++) {
		if (user->group[i].id == id)
			return user->group[i].fd;
	}
	vfio_pci_group_setup(&device, bdf);
	vfio_container_set_iommu(&device);
	user->group[user->groups].id = id;
	user->group[user->groups++].fd = device.group_fd;
	return device.group_fd;
}

int try_open(struct user *user, const char *bdf, const char *token)
{
	struct vfio_pci_device device = {};
	int ret;

	if (!uses_cdev(user)) {
		device.group_fd = open_group(user, bdf);
		__vfio_pci_group_get_device_fd(&device, bdf, token);
		return device.fd < 0 ? -errno : device.fd;
	}
	/* A function that is being unbound has no cdev any more. */
	if (!exists(path(PCI_DEVICES "%s/vfio-dev", bdf)))
		return -ENODEV;
	vfio_pci_cdev_open(&device, bdf);
	ret = __vfio_device_bind_iommufd(device.fd, user->iommu->iommufd, token);
	if (ret)
		close(device.fd);
	return ret ?: device.fd;
}

int open_with_token(struct user *user, const char *bdf, const char *token)
{
	int fd = try_open(user, bdf, token);

	VFIO_ASSERT_GE(fd, 0, "opening %s", bdf);
	return fd;
}

void get_region(int fd, int index, struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){ .argsz = sizeof(*info), .index = index };
	ioctl_assert(fd, VFIO_DEVICE_GET_REGION_INFO, info);
}

struct vfio_pci_device *open_device(struct user *user, const char *bdf)
{
	struct vfio_pci_device *device = vfio_pci_device_alloc(bdf, user->iommu);
	int i;

	device->fd = open_function(user, bdf);
	memset(device->msi_eventfds, 0xff, sizeof(device->msi_eventfds));
	get_region(device->fd, VFIO_PCI_CONFIG_REGION_INDEX, &device->config_space);
	vfio_pci_cmd_set(device, PCI_COMMAND_MEMORY);
	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		struct vfio_pci_bar *bar = &device->bars[i];

		get_region(device->fd, i, &bar->info);
		if (!(bar->info.flags & VFIO_REGION_INFO_FLAG_MMAP))
			continue;
		bar->vaddr = mmap(NULL, bar->info.size, PROT_READ | PROT_WRITE, MAP_SHARED,
				  device->fd, bar->info.offset);
		VFIO_ASSERT_NE(bar->vaddr, MAP_FAILED);
		/* A child would keep the function open. */
		madvise(bar->vaddr, bar->info.size, MADV_DONTFORK);
	}
	return device;
}

struct vfio_pci_bar *largest_bar(struct vfio_pci_device *device)
{
	struct vfio_pci_bar *largest = device->bars;
	int i;

	for (i = 1; i < PCI_STD_NUM_BARS; i++) {
		if (device->bars[i].vaddr && device->bars[i].info.size > largest->info.size)
			largest = &device->bars[i];
	}
	return largest;
}

int find_capability(struct vfio_pci_device *device, unsigned int id)
{
	unsigned int header, where = vfio_pci_config_readw(device, PCI_CAPABILITY_LIST) & 0xfc;
	int left;

	for (left = 48; left && where; left--) {
		header = vfio_pci_config_readw(device, where);
		if ((header & 0xff) == id)
			return where;
		where = header >> 8 & 0xfc;
	}
	return 0;
}

void set_power_state(struct vfio_pci_device *device, u16 state)
{
	int where = find_capability(device, PCI_CAP_ID_PM) + PCI_PM_CTRL;
	u16 control = vfio_pci_config_readw(device, where);

	vfio_pci_config_writew(device, where, (control & ~PCI_PM_CTRL_STATE_MASK) | state);
}

bool is_unmapped(struct vfio_pci_device *device)
{
	int fd = memfd_create("vfio_pci_rs", MFD_CLOEXEC);
	bool faults = write(fd, largest_bar(device)->vaddr, 1) < 0 && errno == EFAULT;

	close(fd);
	return faults;
}

int low_power(struct vfio_pci_device *device, unsigned int feature, int eventfd)
{
	struct {
		struct vfio_device_feature header;
		struct vfio_device_low_power_entry_with_wakeup entry;
	} request = {
		.header = {
			.argsz = sizeof(request),
			.flags = VFIO_DEVICE_FEATURE_SET | feature,
		},
		.entry = {
			.wakeup_eventfd = eventfd,
		},
	};

	return ioctl(device->fd, VFIO_DEVICE_FEATURE, &request) ? -errno : 0;
}

int set_irq(int fd, unsigned int index, unsigned int flags, int eventfd)
{
	struct {
		struct vfio_irq_set header;
		int eventfd;
	} irq = {
		.header = {
			.argsz = sizeof(irq),
			.flags = flags,
			.index = index,
			.count = 1,
		},
		.eventfd = eventfd,
	};

	return ioctl(fd, VFIO_DEVICE_SET_IRQS, &irq) ? -errno : 0;
}

int enable_irq(int fd, unsigned int index)
{
	int event = eventfd(0, EFD_CLOEXEC);

	VFIO_ASSERT_EQ(set_irq(fd, index, VFIO_IRQ_SET_DATA_EVENTFD |
			       VFIO_IRQ_SET_ACTION_TRIGGER, event), 0);
	return event;
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
	VFIO_ASSERT_GT(pid, 0);
	return pid;
}

bool blocks(pid_t pid)
{
	usleep(WATCH_MS * 1000);
	return !waitpid(pid, NULL, WNOHANG);
}

bool succeeds(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}
