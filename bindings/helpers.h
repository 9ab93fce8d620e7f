/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C helpers: inline functions, tracepoints and module parameters.
 */
#ifndef VFIO_PCI_RS_HELPERS_H
#define VFIO_PCI_RS_HELPERS_H

#include <linux/pci.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct iommufd_ctx;
struct list_head;
struct vfio_pci_core_device;
struct vfio_pci_group_info;

bool vfio_rs_pci_is_root_bus(struct pci_dev *pdev);
int vfio_rs_pci_domain_nr(struct pci_dev *pdev);
int vfio_rs_pci_num_vf(struct pci_dev *pdev);
bool vfio_rs_pci_is_unplugged(struct pci_dev *pdev);
int vfio_rs_register_driver(struct pci_driver *drv, struct module *module);
int vfio_rs_driver_name(struct pci_dev *pdev, char *buf, size_t len);
int vfio_rs_reset_function(struct pci_dev *pdev);
bool vfio_rs_pci_answers(struct pci_dev *pdev);
bool vfio_rs_pci_has_ats(struct pci_dev *pdev);
bool vfio_rs_had_reset_method(struct pci_dev *pdev);
int vfio_rs_try_reset_function(struct pci_dev *pdev);
bool vfio_rs_may_be_mapped(struct vfio_pci_core_device *core);
bool vfio_rs_begin_half_close(struct vfio_pci_core_device *core);
int vfio_rs_wake(struct vfio_pci_core_device *core);
bool vfio_rs_has_iommu(struct pci_dev *pdev);
int vfio_rs_wake_open(struct vfio_pci_core_device *core);
void __iomem *vfio_rs_bar(struct vfio_pci_core_device *core, unsigned int bar,
			  size_t *len);
void vfio_rs_keep_awake(struct vfio_pci_core_device *core);
void vfio_rs_put(struct vfio_pci_core_device *core);
void vfio_rs_put_sync(struct vfio_pci_core_device *core);
void vfio_rs_put_async(struct vfio_pci_core_device *core);
void vfio_rs_suspend(struct vfio_pci_core_device *core);
void vfio_rs_suspend_later(struct pci_dev *pdev);
bool vfio_rs_is_suspended(struct vfio_pci_core_device *core);
bool vfio_rs_log_ratelimited(void);
int vfio_rs_iommu_group_id(struct pci_dev *pdev);

void vfio_rs_init_list(struct list_head *list);
void vfio_rs_link_device(struct vfio_pci_core_device *core,
			 struct list_head *devices);

int vfio_rs_create_workqueue(void);
void vfio_rs_destroy_workqueue(void);
void vfio_rs_init_delayed_work(struct delayed_work *dwork, work_func_t func);
void vfio_rs_schedule_delayed_work(struct delayed_work *dwork, u32 ms);
void vfio_rs_reschedule_delayed_work(struct delayed_work *dwork, u32 ms);

void vfio_rs_trace_wait(struct pci_dev *pdev, const char *scope,
			const char *purpose);
void vfio_rs_trace_claim(struct pci_dev *pdev, const char *scope,
			 const char *purpose, s64 waited_ns);
void vfio_rs_trace_settle(struct pci_dev *pdev, const char *scope, bool open,
			  bool bound, bool dirty);
void vfio_rs_trace_reset_begin(struct pci_dev *pdev, const char *scope,
			       bool hot, unsigned int functions);
void vfio_rs_trace_reset_end(struct pci_dev *pdev, const char *scope, bool hot,
			     unsigned int functions, int error, s64 duration_ns);

int vfio_rs_igd_init(struct vfio_pci_core_device *core);

bool vfio_rs_iommufd_has_group(struct iommufd_ctx *ictx, struct pci_dev *pdev);
bool vfio_rs_groups_have_dev(const struct vfio_pci_group_info *groups,
			     struct vfio_pci_core_device *core);

struct vfio_rs_params {
	char ids[1024];
	char serialize[1024];
	bool skip_clean_reset;
	bool background_reset;
	bool bus_reset;
	bool strict;
	bool nointxmask;
	bool disable_vga;
	bool disable_idle_d3;
	bool enable_sriov;
	bool disable_denylist;
};

extern struct vfio_rs_params vfio_rs_params;

#endif /* VFIO_PCI_RS_HELPERS_H */
