// SPDX-License-Identifier: GPL-2.0
/*
 * Records which blocks of the driver, of vfio-pci-core and of type1 have run, in
 * any task, since the machine was booted. (KCOV records one task at a time.) For
 * test guests only.
 *
 * They must be compiled to call __sanitizer_cov_trace_pc() in each block.
 * /sys/kernel/debug/vfio_pci_rs_coverage has a line for each call that was made:
 * the module, "text" or "init", and where it returns to, from the start of the
 * module's text or of the text that the kernel discards.
 */

#include <linux/bitmap.h>
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>

struct area {
	const char *module, *name;
	enum mod_mem_type type;
	unsigned long base;
	unsigned int size;
	DECLARE_BITMAP(ran, SZ_1M);
};

static struct area areas[] = {
	{ .module = "vfio_pci_rs", .name = "text", .type = MOD_TEXT },
	{ .module = "vfio_pci_rs", .name = "init", .type = MOD_INIT_TEXT },
	{ .module = "vfio_pci_core", .name = "text", .type = MOD_TEXT },
	{ .module = "vfio_pci_core", .name = "init", .type = MOD_INIT_TEXT },
	{ .module = "vfio_iommu_type1", .name = "text", .type = MOD_TEXT },
};

void __sanitizer_cov_trace_pc(void);

notrace void __sanitizer_cov_trace_pc(void)
{
	unsigned long ip = (unsigned long)__builtin_return_address(0);
	struct area *area;

	for (area = areas; area < areas + ARRAY_SIZE(areas); area++) {
		unsigned long offset = ip - READ_ONCE(area->base);

		if (offset < READ_ONCE(area->size) && !test_bit(offset, area->ran))
			set_bit(offset, area->ran);
	}
}
EXPORT_SYMBOL_GPL(__sanitizer_cov_trace_pc);

/* A module's code has not run yet when it comes, and does not run any more when it goes. */
static int changed(struct notifier_block *nb, unsigned long state, void *data)
{
	struct module *module = data;
	struct area *area;

	for (area = areas; area < areas + ARRAY_SIZE(areas); area++) {
		struct module_memory *memory = &module->mem[area->type];

		if (strcmp(module->name, area->module))
			continue;

		if (state == MODULE_STATE_COMING) {
			WRITE_ONCE(area->base, (unsigned long)memory->base);
			WRITE_ONCE(area->size, min(memory->size, SZ_1M));
		} else if (state == MODULE_STATE_GOING || area->type == MOD_INIT_TEXT) {
			WRITE_ONCE(area->size, 0);
		}
	}
	return NOTIFY_OK;
}

static struct notifier_block notifier = { .notifier_call = changed };

static int coverage_show(struct seq_file *m, void *unused)
{
	struct area *area;
	unsigned long bit;

	for (area = areas; area < areas + ARRAY_SIZE(areas); area++) {
		for_each_set_bit(bit, area->ran, SZ_1M)
			seq_printf(m, "%s %s %#lx\n", area->module, area->name, bit);
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(coverage);

static int __init init(void)
{
	/* It stays when the driver goes, and what it has recorded too. */
	__module_get(THIS_MODULE);
	debugfs_create_file("vfio_pci_rs_coverage", 0400, NULL, NULL, &coverage_fops);

	return register_module_notifier(&notifier);
}
module_init(init);

MODULE_DESCRIPTION("Records the coverage of a driver under test");
MODULE_LICENSE("GPL");
