// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "functions.h"

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

int low_power(int fd, unsigned int feature)
{
	struct vfio_device_feature request = {
		.argsz = sizeof(request),
		.flags = VFIO_DEVICE_FEATURE_SET | feature,
	};

	return ioctl(fd, VFIO_DEVICE_FEATURE, &request) ? -errno : 0;
}

int enable_irq(int fd, unsigned int index)
{
	struct {
		struct vfio_irq_set header;
		int eventfd;
	} irq = {
		.header.argsz = sizeof(irq),
		.header.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.header.index = index,
		.header.count = 1,
		.eventfd = eventfd(0, EFD_CLOEXEC),
	};

	ioctl_assert(fd, VFIO_DEVICE_SET_IRQS, &irq);
	return irq.eventfd;
}

bool is_signalled(int eventfd, int timeout_ms)
{
	struct pollfd event = { .fd = eventfd, .events = POLLIN };

	return poll(&event, 1, timeout_ms) == 1;
}

int hot_reset(struct user *user, int fd)
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

static void *open_and_close(void *argument)
{
	struct sibling *sibling = argument;
	int fd;

	while (!__atomic_load_n(&sibling->stop, __ATOMIC_RELAXED)) {
		fd = sibling->error ?: try_open(sibling->user, sibling->bdf, NULL);
		sibling->error = fd < 0 ? fd : close(fd);
		__atomic_fetch_add(&sibling->opened, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

void sibling_start(struct sibling *sibling, struct user *user, const char *bdf)
{
	*sibling = (struct sibling){ .user = user, .bdf = bdf };
	if (!uses_cdev(user))
		open_group(user, bdf);
	VFIO_ASSERT_EQ(pthread_create(&sibling->thread, NULL, open_and_close, sibling), 0);
}

int sibling_opened(struct sibling *sibling)
{
	return __atomic_load_n(&sibling->opened, __ATOMIC_RELAXED);
}

int sibling_stop(struct sibling *sibling)
{
	__atomic_store_n(&sibling->stop, true, __ATOMIC_RELAXED);
	VFIO_ASSERT_EQ(pthread_join(sibling->thread, NULL), 0);
	return sibling->error;
}
