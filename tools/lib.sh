# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Shared by the tools (sourced, never run): where the repository and the cache are,
# how a tool says what it is doing, and how the things in the cache get their names.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A home directory may be unset (cron, minimal containers); the password database still knows it.
CACHE=${XDG_CACHE_HOME:-${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}/.cache}/vfio-pci-rs
export REPO CACHE

# die MESSAGE: the one sentence that says what is missing or what was looked for.
die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# step WHAT CMD...: runs CMD with its output in $STEP_LOG, and says on stderr what happens and,
# when it is done, how long it took. A failing step shows the end of its log and ends the tool.
step() {
	local what=$1 start=$EPOCHREALTIME
	shift
	echo "  $what ..." >&2
	if ! "$@" >>"$STEP_LOG" 2>&1 </dev/null; then
		tail -n 40 "$STEP_LOG" >&2
		die "the step '$what' failed, its whole log is $STEP_LOG"
	fi
	printf '  %s: done in %s s\n' "$what" "$(seconds_since "$start")" >&2
}

# seconds_since START: with a tenth of a second, START being an earlier $EPOCHREALTIME.
seconds_since() {
	local now=$EPOCHREALTIME
	# EPOCHREALTIME uses the locale's decimal point: drop whatever it is.
	local tenths=$(((${now//[!0-9]/} - ${1//[!0-9]/}) / 100000))
	echo "$((tenths / 10)).$((tenths % 10))"
}

# key: twelve hex digits that name the content of stdin.
key() {
	sha256sum | cut -c1-12
}

# content_key PATH...: names the content of these files, and of all files below these directories.
# File names are part of it, so that a rename is seen too.
content_key() {
	find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | key
}

# in_cache PATH: where PATH, which is in the cache, is inside the root.
in_cache() {
	echo "/cache/${1#"$CACHE/"}"
}

# touched_by_patches: the files of the kernel's tree that our patches change.
touched_by_patches() {
	sed -n -E 's,^(---|\+\+\+) [ab]/([^[:space:]]+).*,\2,p' "$REPO"/patches/*.patch | sort -u
}

# driver_sources: what the driver is built from, at the top of the repository.
driver_sources() {
	(cd "$REPO" && printf '%s\n' Makefile Kconfig ./*.rs reflck vfio bindings)
}

# lock NAME: holds NAME's lock until the tool ends, so that of two concurrent callers the second
# one finds what the first one built.
lock() {
	mkdir -p "$CACHE"
	exec {LOCK_FD}>"$CACHE/$1.lock"
	if ! flock --nonblock "$LOCK_FD"; then
		echo "  waiting for another run that builds $1 ..." >&2
		flock "$LOCK_FD"
	fi
}

# kernel_version ROOT: the version of the kernel in ROOT, as uname -r says it.
kernel_version() {
	local dirs=("$1"/usr/lib/modules/*/vmlinuz)
	if [ ${#dirs[@]} != 1 ] || [ ! -e "${dirs[0]}" ]; then
		die "looked for exactly one usr/lib/modules/*/vmlinuz in $1"
	fi
	basename "$(dirname "${dirs[0]}")"
}
