# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Shared by the tools (sourced, never run): where the repository and the cache are, and how to fail.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A home directory may be unset (cron, minimal containers); the password database still knows it.
CACHE=${XDG_CACHE_HOME:-${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}/.cache}/vfio-pci-rs
export REPO CACHE

# die MESSAGE: one sentence that says what is missing or what was looked for.
die() {
	echo "${0##*/}: $*" >&2
	exit 1
}
