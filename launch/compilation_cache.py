"""Keeps compiled programs on disk, so that a restarted program need not compile them again."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax

from pnoise_jax import writing


def use_compilation_cache() -> None:
    """Turns JAX's persistent compilation cache on, unless the user has set it up or turned it off.

    The cache is in ``$XDG_CACHE_HOME/pnoise_jax`` or else in ``~/.cache/pnoise_jax``: one directory
    for each kind of CPU, because XLA compiles for the instructions of the CPU that it runs on.
    ``JAX_COMPILATION_CACHE_DIR=DIR`` chooses another directory, and
    ``JAX_ENABLE_COMPILATION_CACHE=0`` turns the cache off.
    """
    options: Any = jax.config  # type checkers do not know its attributes
    if options.jax_compilation_cache_dir is not None:
        return
    try:
        directory = writing.cache_directory() / f"compiled-{_cpu()}"
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:  # the home directory is missing or not writable
        return
    if os.access(directory, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(directory))


def _cpu() -> str:
    """A digest of the CPU's instruction sets, or of its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    text = "\n".join(sorted(set(known))) or platform.processor() or platform.machine()
    return hashlib.sha256(text.encode()).hexdigest()[:12]
