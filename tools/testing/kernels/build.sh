# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Configures, builds and installs one of our own kernels: tools/testing/kernel sources this, and has
# said where the root ($ROOT) and the place for our kernels ($OWN) are. $PRISTINE is Debian's source.

# The grafted tree, which all our kernels share.
SOURCE=$OWN/source
mapfile -t DRIVER < <(driver_sources)

# choose NAME: which kernel the functions below are about.
choose() {
	NAME=$1
	# Where it is built (and the helper module), where it takes itself to be built, and what from.
	OUT=$OWN/$NAME
	HELPER=$OWN/$NAME-helper
	PLACE=$OUT
	START=
	FRAGMENTS=(perf)
	VARIABLES=()
	FLAGS=()
	case $NAME in
	perf) ;;
	debug* | kcsan)
		FRAGMENTS+=("${NAME%%-*}")
		# The kernel has KASAN and Rust together with clang only.
		VARIABLES=(LLVM=1)
		# clang inlines functions that the tests count with the function tracer.
		FLAGS=(CFLAGS_pci.o=-fno-inline-functions)
		;;
	esac
	if [ "$NAME" = debug-builtin ]; then
		FRAGMENTS+=(builtin)
		START=debug
		# Where it is built is part of how Rust's crates are built.
		PLACE=$OWN/$START
	fi
	FRAGMENTS=("${FRAGMENTS[@]/#/tools/testing/kernels/}")
	FRAGMENTS=("${FRAGMENTS[@]/%/.config}")
	RESULT=$CACHE/modules-$NAME-$({
		echo "$ROOT"
		content_key patches tools/intree tools/testing/kernels/build.sh tools/testing/helper-module "${FRAGMENTS[@]}" "${DRIVER[@]}"
	} | key)
}

# is FILE TEXT: whether FILE is there and has TEXT in it.
is() {
	[ -e "$1" ] && [ "$(<"$1")" = "$2" ]
}

make_kernel() {
	tools/enter --bind "$OUT" "$(in_cache "$PLACE")" env -C "$(in_cache "$SOURCE")" "${VARIABLES[@]}" LOCALVERSION= \
		make "O=$(in_cache "$PLACE")" "-j$(nproc)" "$@"
}

# Makes the tree Debian's again, but for the driver itself. What was built from the files that change
# back is older than they are then.
restore_source() {
	local changed file was_there=
	[ ! -e "$SOURCE" ] || was_there=yes
	mkdir -p "$SOURCE"
	changed=$(tools/enter rsync --archive --delete --exclude=/drivers/vfio/pci/rust --out-format=%n \
		"$(in_cache "$PRISTINE")/" "$(in_cache "$SOURCE")/") || return
	[ -n "$was_there" ] || return 0
	while read -r file; do
		[ ! -f "$SOURCE/$file" ] || touch "$SOURCE/$file"
	done <<<"$changed"
}

# The first three fragments are what `make tinyconfig` is. What no fragment asks for is off, also where
# an option of ours makes it available.
configure() {
	mkdir -p "$OUT"
	tools/enter env -C "$(in_cache "$SOURCE")" "${VARIABLES[@]}" \
		scripts/kconfig/merge_config.sh -n -O "$(in_cache "$OUT")" \
		kernel/configs/tiny-base.config kernel/configs/tiny.config arch/x86/configs/tiny.config \
		"${FRAGMENTS[@]/#//src/}"
}

# Prints the options of the fragments that are not as asked for. A later fragment overrules an earlier one.
missing_options() {
	awk '
		/^# CONFIG_[A-Za-z0-9_]+ is not set$/ { option = $2; value = "n" }
		/^CONFIG_[A-Za-z0-9_]+=/ { option = substr($0, 1, index($0, "=") - 1); value = substr($0, index($0, "=") + 1) }
		!/^(# )?CONFIG_[A-Za-z0-9_]+(=| is not set$)/ { next }
		FILENAME == ARGV[ARGC - 1] { is[option] = value; next }
		{ asked[option] = value }
		END {
			for (option in asked) {
				if (asked[option] != (option in is ? is[option] : "n"))
					print option "=" asked[option]
			}
		}
	' "${FRAGMENTS[@]}" "$OUT/.config" | sort
}

# without_warnings DIR CMD...: runs CMD, which builds in DIR, and fails if it warned. What is not built
# again does not warn again: DIR is removed, or of a kernel what is ours, if it is all that warned.
without_warnings() {
	local dir=$1 log=$OWN/$NAME.build-log status=0
	shift
	"$@" >"$log" 2>&1 || status=$?
	cat "$log"
	grep --quiet --ignore-case warning: "$log" || return "$status"
	# rustc names the file in one of the next two lines.
	if [ "$dir" = "$OUT" ] && awk '
		tolower($0) ~ /warning:/ && !/warnings? emitted/ { elsewhere += left > 0; left = 3 }
		/drivers\/vfio/ { left = 0 }
		left && !--left { elsewhere++ }
		END { exit elsewhere || left }
	' "$log"; then
		dir=$OUT/drivers/vfio
	fi
	rm -rf "$dir"
	echo "The build has warned:"
	grep --ignore-case --after-context=4 warning: "$log"
	return 1
}

build() {
	without_warnings "$OUT" make_kernel "${FLAGS[@]}" bzImage modules || return
	# Unchanged files keep their time stamps here too.
	tools/enter rsync --recursive --checksum --include=Makefile --include='*.c' --exclude='*' \
		/src/tools/testing/helper-module/ "$(in_cache "$HELPER")/" || return
	without_warnings "$HELPER" make_kernel "M=$(in_cache "$HELPER")" modules
}

install_kernel() {
	local new=$RESULT.new release modules
	release=$(make_kernel --silent kernelrelease) || return
	rm -rf "$new"
	mkdir -p "$new"
	make_kernel "INSTALL_MOD_PATH=$(in_cache "$new")" modules_install || return
	make_kernel "M=$(in_cache "$HELPER")" "INSTALL_MOD_PATH=$(in_cache "$new")" INSTALL_MOD_DIR=updates modules_install || return
	modules=$new/lib/modules/$release
	cp "$OUT/arch/x86/boot/bzImage" "$modules/vmlinuz" || return
	cp "$OUT/.config" "$modules/config" || return
	mv "$new" "$RESULT"
}

# Builds the kernel that was chosen, unless it is what was built last in its place and is in the cache.
build_kernel() {
	local graft_key config_key missing
	if [ -d "$RESULT" ] && is "$OUT/built" "$RESULT"; then
		return
	fi
	STEP_LOG=$OWN/$NAME.log
	: >"$STEP_LOG"
	if [ ! -e "$OUT/vmlinux" ]; then
		echo "Building the kernel '$NAME' (once; some minutes)" >&2
		if [ -n "$START" ]; then
			rm -rf "$OUT" "$OUT.new"
			step "copy the build of the kernel '$START'" cp --archive "$OWN/$START" "$OUT.new"
			rm -f "$OUT.new/built" "$OUT.new/configured"
			mv "$OUT.new" "$OUT"
		fi
	fi
	rm -f "$OUT/built"
	graft_key=$(content_key patches tools/intree)
	if ! is "$OWN/grafted" "$graft_key"; then
		rm -f "$OWN/grafted"
		step "copy Debian's source" restore_source
	fi
	step "graft the driver into it" tools/intree "$SOURCE"
	echo "$graft_key" >"$OWN/grafted"
	config_key=$(content_key Kconfig "${FRAGMENTS[@]}" tools/testing/kernels/build.sh)
	if ! is "$OUT/configured" "$config_key"; then
		rm -f "$OUT/configured"
		step "configure the kernel '$NAME'" configure
		missing=$(missing_options | paste --serial --delimiters=' ')
		[ -z "$missing" ] || die "the configuration in $OUT is not what the fragments ask for: $missing"
		echo "$config_key" >"$OUT/configured"
	fi
	step "build the kernel '$NAME'" build
	[ -d "$RESULT" ] || step "install it in the cache" install_kernel
	echo "$RESULT" >"$OUT/built"
}
