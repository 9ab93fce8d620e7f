# SPDX-License-Identifier: GPL-2.0
#
# One Makefile for kbuild (the first part) and for people (the second).

ifneq ($(KERNELRELEASE),)

# With VFIO_PCI_RS_IN_PLACE=y, the module takes the name and place of vfio-pci.
vfio_pci_rs_module := vfio-pci$(if $(VFIO_PCI_RS_IN_PLACE),,-rs)
obj-$(CONFIG_VFIO_PCI_RS) += $(vfio_pci_rs_module).o
$(vfio_pci_rs_module)-y := vfio_pci_rs.o \
	bindings/helpers.o bindings/helpers_pci.o bindings/params.o \
	bindings/trace.o
ccflags-$(VFIO_PCI_RS_IN_PLACE) += -DVFIO_PCI_RS_IN_PLACE
rustflags-$(VFIO_PCI_RS_IN_PLACE) += --cfg VFIO_PCI_RS_IN_PLACE

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
.PHONY: all unit lint test models soak check check-all rust-analyzer demo bench install uninstall \
	deb doctor intree series series-check builds coverage clean help

all:
	@tools/run modules debian rs

test:
	@ARCH="$(ARCH)" tools/run test "$(or $(T),list)" $(addprefix --kernel ,$(K)) $(addprefix --driver ,$(DRIVER))

soak:
	@tools/run soak $(addprefix --kernel ,$(K)) $(addprefix --modules ,$(M)) \
		--options "$(addprefix --seed ,$(SEED)) --ops $(or $(OPS),10000) $(O)"

models:
	@tools/run models $(if $(M),"$(M)")

unit lint check check-all rust-analyzer series-check builds coverage:
	@tools/run $@

bench deb series:
	@OUT="$(OUT)" tools/run $@

demo:
	@ARCH="$(ARCH)" OUT="$(OUT)" tools/run demo $(addprefix --kernel ,$(K))

doctor:
	@tools/package/doctor $(DEV)

intree:
	@KSRC="$(KSRC)" tools/run $@

install uninstall:
	@IN_PLACE="$(IN_PLACE)" tools/$@

# Mounts of a tool that was killed are not the cache's.
clean:
	@. tools/lib.sh && rm -rf --one-file-system "$$CACHE" && echo "Deleted $$CACHE."

help:
	@echo "make                   builds the driver and the patched core for Debian's kernel"
	@echo "make install           installs them for the running kernel, if they are for it;"
	@echo "     [IN_PLACE=y]      in place of vfio-pci, and otherwise beside it"
	@echo "make uninstall         removes them again"
	@echo "make deb [OUT=DIR]     builds Debian packages, to the cache or to DIR"
	@echo "make doctor [DEV=ADDR] says what this machine lacks to hand out PCI functions"
	@echo "make demo [OUT=DIR]    shows why to use the driver, beside vfio-pci  (2 min)"
	@echo
	@echo "make unit              tests the reset domains and the tools on the host   (10 s)"
	@echo "make lint              checks the source: format, lints, the patch series  (30 s)"
	@echo "make test T=NAME       runs one scenario, selftest or suite in a guest     (60 s)"
	@echo "     [K=debian|debian-old|perf|debug] [DRIVER=vfio_pci_rs|in-place|vfio-pci]"
	@echo "     [ARCH=arm64]      on an emulated machine of arm64; so do demo and deb"
	@echo "make soak              performs random operations, and checks the driver"
	@echo "     [K=perf|debug] [SEED=7] [OPS=10000] [O='--seeds 10 --shrink']"
	@echo "make models [M=NAME]   runs the models of the reflck through all interleavings"
	@echo "make check             runs the tests"
	@echo "make check-all         runs them in their long form, and those of packages and programs"
	@echo "make rust-analyzer     writes rust-project.json, for completion in an editor"
	@echo
	@echo "make bench [OUT=DIR]   measures the driver beside vfio-pci, in a virtual machine"
	@echo "make intree KSRC=DIR   puts the driver into the kernel tree DIR"
	@echo "make series [OUT=DIR]  writes the same as a patch series, to the cache or to DIR"
	@echo "make series-check      checks each patch as reviewers would"
	@echo "make builds            builds the driver in other kernel trees, by other compilers"
	@echo "make coverage          says which code of the driver the tests do not run"
	@echo "make clean             deletes the cache, with everything that was built"

endif
