"""Sets an XLA option that makes convolutions use all cores of a CPU.

By default, XLA leaves convolutions to YNNPACK. In jaxlib 0.10 YNNPACK used only one of two cores
for many shapes, such as 56 x 56 pixels with 64 channels, and its gradients of kernels take longer
than XLA's own in all tested versions: docs/speed.md has the times.
"""

import importlib.metadata
import os
import re
import sys
from collections.abc import Mapping

from . import programs

VARIABLE, NAME = "XLA_FLAGS", "xla_cpu_experimental_ynn_fusion_type"
OPTION = f"--{NAME}=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
# XLA ends the process if it does not know an option. Tried: 0.10.0, 0.10.2, 0.11.2, 0.12.0.1.
_JAXLIB = ((0, 10, 0), (0, 12, 0))


def choose() -> None:
    """Adds the option to `XLA_FLAGS` if Python is about to run one of our programs."""
    if programs.is_program(sys.orig_argv, sys.argv):
        os.environ.update(wanted(os.environ))


def wanted(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable to set for programs in this environment; {} if there is nothing to set.

    There is nothing to set if they do not compute on the CPU, if `XLA_FLAGS` already has the
    option, in any form, or if jaxlib is older or newer than the versions that we tried.
    """
    flags = environment.get(VARIABLE, "")
    first, last = _JAXLIB
    if NAME in flags or not first <= _jaxlib() <= last or not programs.compute_on_cpu(environment):
        return {}
    return {VARIABLE: f"{flags} {OPTION}".strip()}


def _jaxlib() -> tuple[int, ...]:
    """jaxlib's version as three numbers; () if it is not installed or has another format."""
    try:
        match = re.match(r"(\d+)\.(\d+)\.(\d+)", importlib.metadata.version("jaxlib"))
    except importlib.metadata.PackageNotFoundError:
        match = None
    return tuple(map(int, match.groups())) if match else ()
