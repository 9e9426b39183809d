"""Convolutions that use all cores of a CPU: an option of XLA for programs that compute there.

XLA leaves convolutions to YNNPACK. In jaxlib 0.10 that used one of two cores for many shapes, such
as 56 x 56 pixels with 64 channels, and its gradients of kernels take longer than those of XLA's own
in all tested versions: docs/speed.md has the times.
"""

import importlib.metadata
import os
import re
import sys
from collections.abc import Mapping

from . import programs

VARIABLE, NAME = "XLA_FLAGS", "xla_cpu_experimental_ynn_fusion_type"
OPTION = f"--{NAME}=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
# XLA ends a process with an option that it does not know. Tried: 0.10.0, 0.10.2, 0.11.2, 0.12.0.1.
_JAXLIB = ((0, 10, 0), (0, 12, 0))


def choose() -> None:
    """Puts the option into `XLA_FLAGS`, if this is one of our programs and has not begun yet."""
    if programs.is_program(sys.orig_argv, sys.argv):
        os.environ.update(wanted(os.environ))


def wanted(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable to set for programs of this environment; empty where there is none.

    There is none where they compute elsewhere, where `XLA_FLAGS` has the option already, in any
    form, and for jaxlib older or newer than the versions that we tried.
    """
    flags = environment.get(VARIABLE, "")
    first, last = _JAXLIB
    if NAME in flags or not first <= _jaxlib() <= last or not programs.compute_on_cpu(environment):
        return {}
    return {VARIABLE: f"{flags} {OPTION}".strip()}


def _jaxlib() -> tuple[int, ...]:
    """Its version, three numbers; () where it is not installed or counts otherwise."""
    try:
        found = re.match(r"(\d+)\.(\d+)\.(\d+)", importlib.metadata.version("jaxlib"))
    except importlib.metadata.PackageNotFoundError:
        found = None
    return tuple(map(int, found.groups())) if found else ()
