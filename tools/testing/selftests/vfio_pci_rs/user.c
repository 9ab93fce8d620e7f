// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
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
