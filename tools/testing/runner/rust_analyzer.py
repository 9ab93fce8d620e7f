# SPDX-License-Identifier: GPL-2.0
"""Writes rust-project.json for the driver: `make rust-analyzer`."""

import json

from . import REPO, shown
from .artifact import Steps
from .kernel import BUILD, LINUX, ROOT, WORK, kernel, make, source, working
from .modules import Parts


def write():
    """Has kbuild write it, and puts the user's paths for those of the build."""
    run = Steps("rust-analyzer")
    with working("debian", kernel("debian") / "work"):
        parts = Parts("debian", run)
        parts.core()
        work = parts.driver()
        make(run, "ask kbuild", parts.own / "build", f"M={WORK}/rs", "rust-analyzer",
             work=parts.work, writable=False)  # fmt: skip
        text = (work / "rust-project.json").read_text()
    places = {WORK / "rs": REPO, LINUX: source(), BUILD: parts.own / "build", "/usr": ROOT / "usr"}
    for inside, outside in places.items():
        text = text.replace(f'"{inside}', f'"{shown(outside)}')
    project = json.loads(text)
    for crate in project["crates"]:
        if crate["display_name"] == "vfio_pci_rs":
            # The bindings that bindgen has made.
            crate.setdefault("env", {})["VFIO_PCI_RS_OBJ"] = shown(work)
    (REPO / "rust-project.json").write_text(json.dumps(project, indent=1))
    print('For rust-analyzer: "linkedProjects": ["rust-project.json", "tools/testing/Cargo.toml"]')
