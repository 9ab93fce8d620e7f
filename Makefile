# SPDX-License-Identifier: GPL-2.0
#
# One Makefile for kbuild (the first part) and for people (the second).

ifneq ($(KERNELRELEASE),)

obj-$(CONFIG_VFIO_PCI_RS) += vfio-pci-rs.o
vfio-pci-rs-y := vfio_pci_rs.o bindings/helpers.o bindings/trace.o

# define_trace.h looks for trace.h there.
CFLAGS_bindings/trace.o := -I$(src)/bindings

# bindgen reads the vfio headers with the flags and parameters that the kernel
# crate's own bindings were made with: types must come out the same in both.
export VFIO_PCI_RS_OBJ := $(abspath $(obj))

# Flags of gcc that bindgen's libclang does not know (rust/Makefile has the
# same list, but kbuild cannot be asked for it).
bindgen_skip_c_flags := -mno-fp-ret-in-387 -mpreferred-stack-boundary=% \
	-mskip-rax-setup -mgeneral-regs-only -msign-return-address=% \
	-mindirect-branch=thunk-extern -mindirect-branch-register \
	-mfunction-return=thunk-extern -mrecord-mcount -mabi=lp64 \
	-mindirect-branch-cs-prefix -mstack-protector-guard% \
	-mno-pointers-to-nested-functions -mno-strict-align -mstrict-align \
	-mdirect-extern-access -fconserve-stack -falign-jumps=% \
	-falign-loops=% -femit-struct-debug-baseonly -fno-ipa-cp-clone \
	-fno-ipa-sra -fno-partial-inlining -fno-reorder-blocks \
	-fno-allow-store-data-races -fasan-shadow-offset=% \
	-fzero-call-used-regs=% -fno-stack-clash-protection \
	-fno-inline-functions-called-once -fsanitize=bounds-strict \
	-fstrict-flex-arrays=% -fmin-function-alignment=% \
	-fzero-init-padding-bits=% -fdiagnostics-show-context% \
	--param=% --param asan-% -fno-isolate-erroneous-paths-dereference \
	-fplugin-arg-arm_ssp_per_task_plugin-% $(CC_FLAGS_LTO)

bindgen_target := $(if $(filter x86,$(SRCARCH)),x86_64-linux-gnu,$(if $(filter arm64,$(SRCARCH)),aarch64-linux-gnu))

quiet_cmd_vfio_bindgen = BINDGEN $@
      cmd_vfio_bindgen = \
	$(BINDGEN) $< $(shell grep -Ev '^\#|^$$' $(srctree)/rust/bindgen_parameters) \
		--rust-target 1.85 --use-core --with-derive-default \
		--ctypes-prefix ffi --no-debug '.*' \
		--enable-function-attribute-detection \
		--allowlist-file '.*/linux/vfio(_pci_core)?\.h' \
		--allowlist-file '(.*/)?bindings/helpers\.h' \
		--no-recursive-allowlist \
		-o $@ -- $(filter-out $(bindgen_skip_c_flags),$(c_flags)) \
		-w $(addprefix --target=,$(bindgen_target)) \
		-fno-builtin -D__BINDGEN__ -DMODULE

$(obj)/bindings/bindings_generated.rs: $(src)/bindings/bindings_helper.h \
    $(srctree)/rust/bindgen_parameters FORCE
	$(call if_changed_dep,vfio_bindgen)
targets += bindings/bindings_generated.rs

$(obj)/vfio_pci_rs.o: $(obj)/bindings/bindings_generated.rs

else

# For people. Everything is built in the cache; what is missing there is made.
.PHONY: all check demo bench install uninstall intree series clean help

all:
	@modules=$$(tools/modules rs $(if $(CLIPPY),CLIPPY=$(CLIPPY))) && \
		find "$$modules" -name 'vfio-pci*.ko' && \
		echo "These are the modules for Debian's kernel $$(tools/enter sh -c 'ls /usr/lib/modules')."

check:
	@tools/testing/check

demo:
	@tools/testing/demo

bench:
	@tools/testing/bench/run $(OUT)

install uninstall:
	@tools/$@

intree:
	@tools/intree $(KSRC)

series:
	@tools/series $(OUT)

clean:
	@tools/clean

help:
	@echo "make              builds vfio-pci-rs.ko and the patched vfio-pci-core.ko for Debian's kernel"
	@echo "make demo         shows the driver at work in a virtual machine, beside vfio-pci"
	@echo "make check        runs every test"
	@echo "make bench        measures it beside vfio-pci, in a virtual machine; OUT=DIR gets the report"
	@echo "make install      installs the modules for the running kernel, if it is the one they are for"
	@echo "make uninstall    removes them again"
	@echo "make intree KSRC=DIR   puts the driver into the kernel tree DIR"
	@echo "make series       writes the same as a patch series, to the cache or to OUT=DIR"
	@echo "make clean        deletes the cache, with everything that was built"
	@echo "make help         says this"
	@echo "Variables: CLIPPY=1 builds with clippy."

endif
