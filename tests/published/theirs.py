"""The published code's side of the comparison: jobs for `their_code`, and their output."""

import dataclasses
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from pnoise_jax import data, weights
from tests.published import inputs
from tests.published.ours import BATCH_SIZE, Ours

# As in the authors' published command, but for one epoch on a CPU.
ARGUMENTS = {"noise_type": "linear", "tra": 0, "inf": 1, "epochs": 1, "gpu_id": ""}
_LINE = re.compile(r"^Test .*\[(\d+)/\d+\].*?\tAccuracy ([\d.]+) \(([\d.]+)\)", re.MULTILINE)


class FailedError(RuntimeError):
    """Their code did not run to its end."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A line that their program prints while it evaluates.

    Attributes:
      batch: the number of the batch, from 0.
      running: the accuracy so far, as printed.
      meter: in brackets, the mean over batches of the accuracy so far, as printed.
    """

    batch: int
    running: str
    meter: str


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """The results of a run of their program.

    Attributes:
      logits: those of the test images in the order of the evaluation, (n, classes).
      lines: what it printed.
      reported: the accuracy that it logs for TensorBoard, unrounded, in percent.
      checkpoint: the name of the file that it saved, which carries that number.
      unchanged: whether all weights are bitwise what they were before the epoch.
    """

    logits: np.ndarray
    lines: tuple[Line, ...]
    reported: float
    checkpoint: str
    unchanged: bool


@dataclasses.dataclass(frozen=True)
class Theirs:
    """Their code, and a Python to run it.

    Attributes:
      code: the folder with their files.
      python: a Python with torch, torchvision, timm and safetensors.
      directory: has the files that their code reads.
      options: those of every job.
    """

    code: Path
    python: Path
    directory: Path
    options: Mapping[str, object]

    def model_class(self, cases: Mapping[str, tuple[np.ndarray, bool]]) -> dict[str, np.ndarray]:
        """Logits of their model class, in each case's order; a case is (order, noisy or not)."""
        job_cases = {
            name: {"order": order.tolist(), "noise": int(noisy)}
            for name, (order, noisy) in cases.items()
        }
        weights_file = str(self.directory / "half.safetensors")
        arrays, _ = self._run(
            self._arguments(optimal_q=True), program=False, cases=job_cases, weights=weights_file
        )
        return arrays

    def program(
        self, *, optimal_q: bool, cifar: bool, positions: Sequence[int] | None = None
    ) -> Outcome:
        """Runs their training program for one epoch.

        Args:
          optimal_q: whether the optimal quality matrix acts at inference.
          cifar: use the branch for CIFAR-10, not the one for ImageNet. They normalise images by
            0.5 and 0.5, and by ImageNet's moments; each gets weights that take this into account.
          positions: in the sorted list of files, the order in which they are evaluated; None leaves
            their own. Only in the branch for ImageNet.
        """
        with tempfile.TemporaryDirectory(dir=self.directory) as saved:
            arrays, printed = self._run(
                {
                    **self._arguments(optimal_q=optimal_q),
                    "datasets": "Cifar10" if cifar else "ImageNet",
                    "imagenet_path": self.directory,
                    "model_saved_path": saved,
                },
                program=True,
                cifar=cifar,
                order=positions,
                weights=str(self.directory / f"{'half' if cifar else 'imagenet'}.safetensors"),
            )
            (checkpoint,) = (file.name for file in Path(saved).iterdir())
        return Outcome(
            logits=arrays["logits"],
            lines=printed_lines(printed),
            reported=100 * float(arrays["test_acc_0"]),
            checkpoint=checkpoint,
            unchanged=bool(arrays["unchanged"]),
        )

    def _arguments(self, *, optimal_q: bool) -> dict[str, object]:
        sizes = {
            "res": self.options["side"],
            "patch_size": self.options["patch_size"],
            "num_classes": self.options["num_classes"],
            "layer": self.options["sizes"]["depth"] - 1,  # they count from 0
        }
        return ARGUMENTS | sizes | {"OptimalQ": int(optimal_q)}

    def _run(self, arguments: Mapping[str, object], **job) -> tuple[dict[str, np.ndarray], str]:
        """Runs a job; returns its arrays and what it prints."""
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            file, out = Path(directory, "job.json"), Path(directory, "out.npz")
            job |= self.options
            job["arguments"] = [f"--{name}={value}" for name, value in arguments.items()]
            job |= {"code": str(self.code), "out": str(out)}
            job["images"] = str(self.directory / "images.npz")
            file.write_text(json.dumps(job))
            program = Path(__file__).with_name("their_code.py").absolute()
            done = subprocess.run(
                [str(self.python), str(program), str(file)],
                capture_output=True,
                text=True,
                cwd=directory,
                check=False,
            )
            if done.returncode:
                raise FailedError(
                    f"{self.python} {program.name} ended with code {done.returncode}; it needs "
                    f"torch, torchvision, timm and safetensors:\n{done.stderr[-2000:]}"
                )
            with np.load(out) as arrays:
                return dict(arrays), done.stdout


def prepare(code: Path, python: Path, ours: Ours, directory: Path) -> Theirs:
    """Writes what their code reads: images in class folders, arrays, and weights.

    Args:
      code: their files, from `clone.code_folder`.
      python: the Python to run them.
      ours: the run whose weights they use.
      directory: an empty directory.
    """
    experiment = ours.experiment
    arrays = {}
    splits = {"train": experiment.train_data, "test": experiment.test_data}
    for split, folder in (("train", "train"), ("test", "val")):
        images = inputs.in_colour(_images(splits[split]))
        labels = splits[split].labels
        inputs.write_class_folders(directory / folder, images, labels)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(directory / "images.npz", **arrays)
    weights.export(ours.workdir, directory / "grey.safetensors")
    state = load_file(directory / "grey.safetensors")
    moments = {
        "half": (inputs.HALF, inputs.HALF),
        "imagenet": (inputs.IMAGENET_MEAN, inputs.IMAGENET_STD),
    }
    for name, (mean, std) in moments.items():
        adapted = inputs.three_channels(state, mean, std)
        save_file(adapted, directory / f"{name}.safetensors")
    model = experiment.config.model
    options = {
        "sizes": {"embed_dim": model.dim, "depth": model.depth, "num_heads": model.num_heads},
        "side": model.image_size,
        "patch_size": model.patch_size,
        "num_classes": experiment.test_data.num_classes,
        "batch_size": BATCH_SIZE,
    }
    return Theirs(code, python, directory, options)


def printed_lines(output: str) -> tuple[Line, ...]:
    """The lines of the evaluation in what their program printed."""
    return tuple(Line(int(batch), *numbers) for batch, *numbers in _LINE.findall(output))


def _images(dataset: data.Dataset) -> np.ndarray:
    return np.stack([dataset[i]["image"] for i in range(len(dataset))])
