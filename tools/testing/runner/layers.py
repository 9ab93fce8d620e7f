# SPDX-License-Identifier: GPL-2.0
"""Programs that few commands need, in layers over the root."""

from . import REPO
from .artifact import artifact, recipe

# To build and check packages, and to make roots to try them in.
PROGRAMS = ("debhelper", "dh-dkms", "dpkg-dev", "fakeroot", "lintian", "mmdebstrap")
# The root's own sandbox, for one below it.
SANDBOX = ["--dev-bind", "/dev", "/dev", "--proc", "/proc", "--bind", "/tmp", "/tmp"]
SANDBOX += ["--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf"]
SANDBOX += ["--ro-bind-try", "/etc/ssl/certs", "/etc/ssl/certs"]
SANDBOX += ["--setenv", "DEBIAN_FRONTEND", "noninteractive", "--"]


def layer(kind, programs):
    """Returns a directory with the layer of files that packages add to the root, in upper/."""

    def install(new, run):
        (new / "upper").mkdir()
        (new / "work").mkdir()
        layers = ["--overlay-src", "/", "--overlay", new / "upper", new / "work", "/"]
        inside = ["bwrap", *layers, *SANDBOX]
        run("", *inside, "apt-get", "update")
        options = ["--yes", "--no-install-recommends"]
        run(f"install {programs[0]} and others", *inside, "apt-get", "install", *options, *programs)
        run("", *inside, "apt-get", "clean")

    return artifact(kind, [repr((programs, SANDBOX)), recipe(install)], install)


def above(layer, *command):
    """Returns a command that runs with the files of a layer."""
    layers = ["--overlay-src", "/", "--overlay-src", layer / "upper", "--ro-overlay", "/"]
    shown = ["--bind", "/cache", "/cache", "--ro-bind", REPO, REPO]
    return ["bwrap", *layers, *shown, *SANDBOX, *command]


def builder():
    return layer("builder", PROGRAMS)


def building(*command):
    """Returns a command that runs with PROGRAMS."""
    return above(builder(), *command)
