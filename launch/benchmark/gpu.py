"""Models, noises and sweeps on a GPU: pnoise benchmark gpu --out=FOLDER

Runs other benchmarks at the sizes of a large GPU. Compiling takes most of the time, so a few parts
prepare at the same time, and then measure one after another. XLA and PyTorch time kernels while
they compile, so --at_once=1 disturbs them least. The JSON of each part is written to a new folder.
If a part fails, this is reported, and the others continue. After --minutes, unfinished parts are
stopped and no others are started; their names are printed. With PyTorch and timm for CUDA, models
are compared with timm's, compiled by torch.compile.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import flags

from pnoise_jax import writing
from pnoise_jax.terminal import say

from . import measuring, report

_BFLOAT16 = ("--dtype=bfloat16",)
_STEP = ("models", *_BFLOAT16, "--only=training step", "--timm=compiled")
_VIT = (*_STEP, "--kernels=cudnn")


def _noise(dtype: str, k: int) -> tuple[str, ...]:
    return "noise", f"--dtype={dtype}", f"--k={k}", "--devices=1", "--rounds=7", "--torch"


# By name: a subcommand and its flags. The most important come first.
PARTS: dict[str, tuple[str, ...]] = {
    "vit_b_16": (*_VIT, "--models=vit_b_16", "--batch_size=256"),
    "resnet50": (*_STEP, "--models=resnet50", "--batch_size=256"),
    "swin_b": (*_STEP, "--models=swin_b", "--batch_size=64"),
    "step": (
        *("step", *_BFLOAT16, "--model=vit_b_16", "--depth=4", "--batch_size=256"),
        *("--preset=", "--sites="),
        "--noises=cyclic_shift,optimal,gaussian,salt_and_pepper",
    ),
    "noise_64_bfloat16": _noise("bfloat16", 64),
    "noise_512_bfloat16": _noise("bfloat16", 512),
    "vit_s_16": (*_STEP, "--kernels=xla,cudnn", "--models=vit_s_16", "--batch_size=256"),
    "vit_l_16": (*_VIT, "--models=vit_l_16", "--batch_size=64"),
    "vit_b_16_384": (*_VIT, "--models=vit_b_16", "--batch_size=64", "--image_size=384"),
    "draws": ("draws", *_BFLOAT16, "--k=64,256"),
    "sweep": ("sweep", "--runs=10", "--rounds=5"),
    "noise_64_float32": _noise("float32", 64),
    "noise_512_float32": _noise("float32", 512),
    "noise_4096_bfloat16": _noise("bfloat16", 4096),
    "noise_4096_float32": _noise("float32", 4096),
}
_PARTS = flags.DEFINE_list("parts", list(PARTS), f"What to measure, of {', '.join(PARTS)}.")
_AT_ONCE = flags.DEFINE_integer(
    "at_once", 3, "Number of parts to prepare at once; all take GPU memory.", lower_bound=1
)
_MINUTES = flags.DEFINE_float(
    "minutes", 8.0, "Minutes after which to stop and leave out the rest.", lower_bound=0.0
)
_OUT = flags.DEFINE_string("out", None, "A new folder for all results.", required=True)

# Runs in a separate process, which releases the GPU when it ends.
_LOOK = """
import importlib.util, json, jax
def sees_gpu():
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("timm") is None:
        return False
    import torch
    return torch.cuda.is_available()
print(json.dumps({"jax": jax.default_backend(), "torch": sees_gpu()}))
"""


def main() -> None:
    """Measures, and prints and writes the results.

    Raises:
      ValueError: no part, or an unknown one, is named, --out is a URL, or JAX sees no GPU.
      OSError: the folder exists or cannot be created.
      ChildProcessError: a part failed.
    """
    names = list(dict.fromkeys(_PARTS.value))
    report.require_some("parts", names, PARTS)
    for name in names:
        report.require_known("parts", name, PARTS)
    writing.require_local(_OUT.value, named=f"--out={_OUT.value!r}")
    folder = Path(_OUT.value).expanduser().absolute()
    if folder.exists():
        raise FileExistsError(f"--out={_OUT.value} exists: name a new folder")
    seen = look()
    if seen["jax"] != "gpu":
        raise ValueError(
            f"JAX runs on {seen['jax']} here: install pnoise_jax[cuda13] or [cuda12] on a machine "
            "with a GPU, and unset JAX_PLATFORMS"
        )
    writing.make_directory(folder, named=f"--out={_OUT.value!r}")
    start = time.monotonic()
    commands = {name: _command(name, folder, with_torch=seen["torch"]) for name in names}
    deadline = start + 60 * _MINUTES.value
    failed, late = _run(commands, at_once=_AT_ONCE.value, deadline=deadline)
    measured = len(names) - len(failed) - len(late)
    seconds = time.monotonic() - start
    say(f"measured {measured} of {len(names)} parts in {seconds:.0f} s; results in {folder}")
    if late:
        say(f"not measured, as --minutes={_MINUTES.value:g} had passed: --parts={','.join(late)}")
    if failed:
        raise ChildProcessError(f"failed: {', '.join(failed)}; the reasons are printed above")


def look() -> dict:
    """JAX's platform ("jax"), and whether PyTorch and timm are installed and see a GPU ("torch").

    Raises:
      ChildProcessError: JAX does not start.
    """
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True)
    if done.returncode:
        raise ChildProcessError(f"JAX does not start here:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def _command(name: str, folder: Path, *, with_torch: bool) -> list[str]:
    """The command that measures a part."""
    subcommand, *options = PARTS[name]
    if not with_torch:
        options = ["--timm=" if x.startswith("--timm=") else x for x in options if x != "--torch"]
    return [
        sys.executable,
        "-m",
        "launch.benchmark",
        subcommand,
        *options,
        f"--out={folder / name}.json",
    ]


def _run(
    commands: dict[str, list[str]], *, at_once: int, deadline: float
) -> tuple[list[str], list[str]]:
    """Runs commands, ``at_once`` at a time, and prints the output of each.

    Args:
      commands: the commands, by name.
      at_once: how many run at the same time.
      deadline: when to stop, on the clock of `time.monotonic`.

    Returns:
      The names of the parts that failed, and of the parts that ran out of time.
    """
    names, failed, late = list(commands), [], []
    with tempfile.NamedTemporaryFile() as turns, ThreadPoolExecutor(at_once) as pool:
        environment = os.environ | {measuring.TURNS: turns.name}

        def run(name: str) -> None:
            start = time.monotonic()
            if start >= deadline:
                late.append(name)
                return
            try:
                done = subprocess.run(
                    commands[name],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                    timeout=deadline - start,
                )
            except subprocess.TimeoutExpired:
                late.append(name)
                say(f"{name}: stopped after {time.monotonic() - start:.0f} s")
                return
            say(f"{name}: {time.monotonic() - start:.0f} s\n{done.stdout}")
            if done.returncode:
                failed.append(name)

        # A part only measures while no other prepares, so no part is added to a running group.
        for first in range(0, len(names), at_once):
            group = names[first : first + at_once]
            if time.monotonic() < deadline:
                say(f"{', '.join(group)} ...")
            list(pool.map(run, group))
    return failed, late
