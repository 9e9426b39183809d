"""Models, noises and sweeps on a GPU: python -m launch.benchmark gpu --out=FOLDER

Runs other benchmarks at the sizes of a large GPU, one after another, so that nothing disturbs XLA
and PyTorch, which time kernels while they compile. The JSON of each part is written into a new
folder. A part that fails is reported, and the others go on. With PyTorch and timm for CUDA, models
are compared with timm's, compiled by torch.compile.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from pnoise_jax import writing
from pnoise_jax.terminal import say

from . import report

_BFLOAT16 = ("--dtype=bfloat16",)
_STEP = ("models", *_BFLOAT16, "--only=training step", "--timm=compiled")
_VIT = (*_STEP, "--kernels=xla,cudnn")
# By name: a subcommand and its flags.
PARTS: dict[str, tuple[str, ...]] = {
    "vit_b_16": (*_VIT, "--models=vit_b_16", "--batch_size=256"),
    "resnet50": (*_STEP, "--models=resnet50", "--batch_size=256"),
    "vit_s_16": (*_VIT, "--models=vit_s_16", "--batch_size=256"),
    "vit_l_16": (*_VIT, "--models=vit_l_16", "--batch_size=64"),
    "swin_b": (*_STEP, "--models=swin_b", "--batch_size=64"),
    "vit_b_16_384": (*_VIT, "--models=vit_b_16", "--batch_size=64", "--image_size=384"),
    "step": (
        *("step", *_BFLOAT16, "--model=vit_b_16", "--batch_size=256", "--preset=", "--sites="),
        "--noises=cyclic_shift,optimal,gaussian,salt_and_pepper",
    ),
    "noise": ("noise", *_BFLOAT16, "--k=64,512,4096", "--devices=1", "--torch"),
    "noise_float32": ("noise", "--k=64,512,4096", "--devices=1", "--torch"),
    "draws": ("draws", *_BFLOAT16, "--k=64,256"),
    "sweep": ("sweep", "--runs=10", "--rounds=5"),
}
_PARTS = flags.DEFINE_list("parts", list(PARTS), f"What to measure, of {', '.join(PARTS)}.")
_OUT = flags.DEFINE_string("out", None, "A new folder for all results.", required=True)

# Asked in a process of its own, which gives the GPU back.
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
    """Measures, prints and writes.

    Raises:
      ValueError: no part, or an unknown one, is named, --out is a URL, or JAX sees no GPU.
      OSError: the folder exists, or cannot be made.
      ChildProcessError: a part failed.
    """
    names = list(dict.fromkeys(_PARTS.value))
    if not names:
        raise ValueError(f"--parts is empty: use some of {', '.join(PARTS)}")
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
    failed = [name for name in names if not _run(name, folder, with_torch=seen["torch"])]
    say(f"{len(names)} parts in {time.monotonic() - start:.0f} s; results in {folder}")
    if failed:
        raise ChildProcessError(f"failed: {', '.join(failed)}; the reasons are printed above")


def look() -> dict:
    """What JAX runs on ("jax"), and whether PyTorch and timm are installed and see a GPU ("torch").

    Raises:
      ChildProcessError: JAX does not start.
    """
    done = subprocess.run([sys.executable, "-c", _LOOK], capture_output=True, text=True)
    if done.returncode:
        raise ChildProcessError(f"JAX does not start here:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def _run(name: str, folder: Path, *, with_torch: bool) -> bool:
    """Measures a part, which prints and writes; returns whether it succeeded."""
    subcommand, *options = PARTS[name]
    if not with_torch:
        options = ["--timm=" if x.startswith("--timm=") else x for x in options if x != "--torch"]
    command = [sys.executable, "-m", __package__, subcommand, *options]
    start = time.monotonic()
    say(f"{name}:")
    done = subprocess.run([*command, f"--out={folder / name}.json"], check=False)
    say(f"{name}: {time.monotonic() - start:.0f} s\n")
    return done.returncode == 0
