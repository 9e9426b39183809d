"""What a GPU changes, all measured by one command: python -m launch.benchmark gpu --out=FOLDER

Runs other benchmarks at the sizes of a large GPU, and writes the JSON of each and what it printed
into a new folder. Preparing takes most of the time, so parts are prepared at the same time, except
that XLA compiles for one at a time, since it times kernels; while one measures, the others are
stopped. A part that fails is reported, and the others go on.
With PyTorch and timm for CUDA, models are compared with timm's, compiled by torch.compile.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import flags

from pnoise_jax.terminal import say

from . import measuring, report

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
    "sweep": ("sweep", "--runs=10"),
}
_PARTS = flags.DEFINE_list("parts", list(PARTS), f"What to measure, of {', '.join(PARTS)}.")
_AT_ONCE = flags.DEFINE_integer(
    "at_once", 2, "How many parts are prepared at once; all take memory of the GPU.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "A new folder for all results.", required=True)


def main() -> None:
    """Measures, prints and writes.

    Raises:
      ChildProcessError: a part failed.
    """
    measuring.keep_accelerators_free()
    for name in _PARTS.value:
        report.require_known("parts", name, PARTS)
    folder = Path(_OUT.value).expanduser().absolute()
    folder.mkdir(parents=True)
    cores = os.cpu_count() or 1
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(max(4, cores // _AT_ONCE.value)))
    start = time.monotonic()
    with tempfile.NamedTemporaryFile() as groups, ThreadPoolExecutor(_AT_ONCE.value) as pool:
        os.environ[measuring.GROUPS] = groups.name
        running = [pool.submit(_run, name, folder) for name in _PARTS.value]
        try:
            failed = [name for part in running if (name := part.result()) is not None]
        except BaseException:  # such as Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
            measuring.send(signal.SIGKILL, map(int, Path(groups.name).read_text().split()))
            raise
    say(f"{len(_PARTS.value)} parts in {time.monotonic() - start:.0f} s; results in {folder}")
    if failed:
        raise ChildProcessError(f"failed: {', '.join(failed)}; the reasons are printed above")


def _run(name: str, folder: Path) -> str | None:
    """Measures a part, and prints what it printed; returns its name if it failed."""
    options = [x for x in PARTS[name] if x != "--torch" or importlib.util.find_spec("torch")]
    command = [sys.executable, "-m", __package__, *options, f"--out={folder / name}.json"]
    start = time.monotonic()
    with measuring.in_turn() as groups:  # so that none starts while another measures
        assert groups is not None
        part = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        groups.write(f"{part.pid}\n")
    printed, _ = part.communicate()
    # Where it was killed while it measured, the others are still stopped.
    with measuring.in_turn() as groups:
        assert groups is not None
        measuring.send(signal.SIGCONT, map(int, groups.read().split()))
    (folder / f"{name}.txt").write_text(printed)
    outcome = f"failed with exit code {part.returncode}" if part.returncode else "done"
    say(f"{name}: {outcome} after {time.monotonic() - start:.0f} s\n{printed}")
    return name if part.returncode else None
