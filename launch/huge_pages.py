"""Puts large arrays in huge pages on a CPU: the program restarts itself once with a glibc setting.

XLA allocates the buffers of a step again in each step. Linux provides them in pages of 4 kB, with a
page fault for each: 270 000 in a step of ViT-Ti/16 with 16 images. glibc requests pages of 2 MB if
`GLIBC_TUNABLES` says so when a process starts. Freed memory is still returned to the system, so the
peak stays the same.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from . import programs

VARIABLE, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
SWITCH = "PNOISE_HUGE_PAGES"
SENTENCE = (
    f"note: memory was in huge pages, which saves time ({TUNABLE}); {SWITCH}=0 turns this off"
)
_STARTED_AGAIN = "_PNOISE_STARTED_AGAIN"  # the id of the process, which stays the same
_FIRST_GLIBC = (2, 35)
_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_WATCHERS = ("bdb", "pydevd", "debugpy", "_lsprof", "coverage")  # debuggers and profilers

_state = {"decided": False, "in_use": False}


def start_again() -> None:
    """Replaces this process by one with huge pages if that helps; otherwise does nothing.

    The new program runs the same command from the beginning, with the same process id. Call this
    before anything else is done or imported; a second call does nothing. Programs that it starts
    get the original environment.
    """
    if _state["decided"]:
        return
    _state["decided"] = True
    again = os.environ.pop(_STARTED_AGAIN, None) == str(os.getpid())
    if again:
        _state["in_use"] = os.environ.pop(VARIABLE, None) == TUNABLE
        return
    watched = not sys.modules.keys().isdisjoint(_WATCHERS)  # a watcher would lose this process
    program = programs.is_program(sys.orig_argv, sys.argv)
    if watched or not program or not sys.executable or not help_here():
        return
    environment = os.environ | {VARIABLE: TUNABLE, _STARTED_AGAIN: str(os.getpid())}
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError:  # for example if the environment is too large; huge pages are optional
        return


def in_use() -> bool:
    """Whether this process uses huge pages, after a restart."""
    return _state["in_use"]


def help_here(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether programs in this environment compute on the CPU, and glibc can use huge pages.

    If the kernel provides huge pages always or never, glibc's setting changes nothing.

    Args:
      environment: the environment variables. If they already choose an allocator or a tunable,
        the answer is False.
    """
    if environment.get(SWITCH, "").lower() in ("0", "false", "no", "off"):
        return False
    if environment.get(VARIABLE) or "malloc" in environment.get("LD_PRELOAD", ""):
        return False
    return (
        programs.compute_on_cpu(environment)
        and _glibc() >= _FIRST_GLIBC
        and _gives_them_on_request()
    )


def _glibc() -> tuple[int, ...]:
    """The version of glibc; () if the C library is another."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(map(int, version.split("."))) if name == "glibc" else ()
    except (AttributeError, ValueError, OSError):
        return ()


def _gives_them_on_request() -> bool:
    try:
        return "[madvise]" in _MODE.read_text()
    except OSError:
        return False
