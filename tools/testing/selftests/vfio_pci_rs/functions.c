// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#define OUR_SECOND	"vfio-pci-nvme"
#define DOMAINS		"/sys/kernel/debug/" OURS "/reset_domains"
#define TRACEFS		"/sys/kernel/tracing"
#define TRACER		TRACEFS "/instances/" OURS
#define FILTER		TRACER "/set_ftrace_filter"

const char *driver(void)
{
	return getenv("VFIO_PCI_RS_DRIVER") ?: OURS;
}

bool is_ours(void)
{
	return !strcmp(driver(), OURS) || !strcmp(driver(), OUR_SECOND);
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

int load_module(const char *name)
{
	char command[64];

	snprintf(command, sizeof(command), "modprobe -q %s", name);
	return system(command);
}

/* Waits until the power state is, or is not, @state. */
static bool wait_for(const char *bdf, const char *state, bool is, int limit_ms)
{
	char word[32];
	int waited;

	for (waited = 0; waited <= limit_ms; waited += POLL_MS) {
		if (read_word(path(PCI_DEVICES "%s/power_state", bdf), word))
			return !is;
		if (!strcmp(word, state) == is)
			return true;
		usleep(POLL_MS * 1000);
	}
	if (is)
		ksft_print_msg("%s is in %s, not in %s\n", bdf, word, state);
	return false;
}

bool comes_to(const char *bdf, const char *expected)
{
	return wait_for(bdf, expected, true, SETTLE_MS);
}

bool stays_in(const char *bdf, const char *expected)
{
	return !wait_for(bdf, expected, false, WATCH_MS);
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

void tracer_start(void)
{
	VFIO_ASSERT_TRUE(!mkdir(TRACER, 0700) || errno == EEXIST, TRACEFS " must be mounted");
	/* Each write adds one. With none of them, everything would be traced. */
	VFIO_ASSERT_EQ(write_file(FILTER, "pcie_flr"), 0);
	VFIO_ASSERT_EQ(write_file(FILTER, "pcibios_reset_secondary_bus"), 0);
	VFIO_ASSERT_EQ(write_file(FILTER, "pci_bridge_secondary_bus_reset"), 0);
	VFIO_ASSERT_EQ(write_file(TRACER "/current_tracer", "function"), 0);
	take_resets();
}

void tracer_stop(void)
{
	rmdir(TRACER);
}

/*
 * A slot reset is a bus reset that pciehp_reset_slot() calls.  Compilers inline
 * its function elsewhere, but not the weak function that it calls.
 */
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
		resets.bus += !!strstr(line, ": pcibios_reset_secondary_bus <-");
		resets.slot += !!strstr(line, "_bus_reset <-pciehp_reset_slot");
	}
	resets.bus -= resets.slot;
	fclose(file);
	/* Opening it with O_TRUNC clears the buffer. */
	close(open(TRACER "/trace", O_WRONLY | O_TRUNC));
	return resets;
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
