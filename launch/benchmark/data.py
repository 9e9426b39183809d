"""Speed of the input pipeline: pnoise benchmark data [--flags]

Measured: the CPU seconds of all threads and the wall-clock seconds of making training batches, with
RandomResizedCrop and a random flip, from generated JPEGs of ImageNet's sizes in the page cache, by

  ours                   this project's pipeline on array_record, uint8
  tf.data uint8          tf.data on tfrecord with decode_and_crop_jpeg
  tf.data float32        tf.data, normalised on the host
  PIL float32            a loop over class folders with PIL, normalised, on one thread
  ours, short side 320   ours, from images that were shrunk when they were prepared

Printed: the CPU time of each divided by the CPU time of "ours" in the same round, as median and
quartiles. tf.data needs TensorFlow: pip install 'pnoise-jax[benchmark]'.
"""

import dataclasses
import functools
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console

from pnoise_jax.data import prepare

from ..main import whole_numbers
from . import input_pipelines, measuring, report
from .input_pipelines import DATASET, MEAN, STD, Pipeline

flags.DEFINE_integer("images", 512, "Number of JPEGs to generate.", lower_bound=8)
flags.DEFINE_integer("image_size", 224, "Side of the crops in pixels.", lower_bound=8)
flags.DEFINE_integer("batch_size", 64, "Images per batch.", lower_bound=1)
_THREADS = flags.DEFINE_list(
    "threads", ["2"], "Numbers of decoding threads; the PIL loop always has one."
)
flags.DEFINE_integer("rounds", 9, "Passes of each alternative.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

_SHORT_SIDE = 320  # pixels, of the shrunk images


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    images: int
    image_size: int
    batch_size: int
    threads: tuple[int, ...]
    rounds: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The same images, in the format of each pipeline.

    Attributes:
      folders: class folders.
      array_record, shrunk: data directories of the data set, and of the one with shrunk images.
      tfrecord: a file with the same records; None without TensorFlow.
      kilobytes: mean size of an image.
    """

    folders: Path
    array_record: Path
    shrunk: Path
    tfrecord: Path | None
    kilobytes: float


def main() -> None:
    """Measures, and prints and writes the results."""
    threads = whole_numbers("threads", _THREADS.value, minimum=1)
    spec = report.spec_of(Spec, threads=threads)
    if spec.batch_size > spec.images:
        raise ValueError(
            f"--batch_size={spec.batch_size} is larger than --images={spec.images}: lower it, or "
            "generate more images"
        )
    console, where = report.start(_OUT.value)
    with_tensorflow = importlib.util.find_spec("tensorflow") is not None
    if not with_tensorflow:
        console.print(
            "TensorFlow is not installed: compared with PIL only (pip install "
            "'pnoise-jax[benchmark]' installs it)",
            style="yellow",
            markup=False,
        )
    results = []
    with tempfile.TemporaryDirectory() as directory:
        prepared = _prepare(spec, Path(directory), with_tensorflow=with_tensorflow)
        for threads in spec.threads:
            results.append(_measure(spec, prepared, threads))
            _print(console, spec, results[-1])
    content = {
        "benchmark": "data",
        **where,
        "specs": [dataclasses.asdict(spec)],
        "results": results,
    }
    report.write(_OUT.value, console, content)


def _prepare(spec: Spec, directory: Path, *, with_tensorflow: bool) -> Prepared:
    folders = directory / "folders"
    input_pipelines.write_folders(folders, spec.images)
    array_record, shrunk = directory / "array_record", directory / "shrunk"
    prepared = prepare.prepare(DATASET, manual_dir=folders, data_dir=array_record)
    prepare.prepare(DATASET, manual_dir=folders, data_dir=shrunk, short_side=_SHORT_SIDE)
    tfrecord = None
    if with_tensorflow:
        tfrecord = directory / "textures.tfrecord"
        input_pipelines.write_tfrecord(prepared.path, tfrecord)
    sizes = [file.stat().st_size for file in folders.glob("*/*.jpg")]
    return Prepared(folders, array_record, shrunk, tfrecord, float(np.mean(sizes)) / 1000)


def _pipelines(spec: Spec, prepared: Prepared, threads: int) -> dict[str, Pipeline]:
    shape: dict[str, Any] = {"batch_size": spec.batch_size, "side": spec.image_size}
    pipelines = {"ours": input_pipelines.ours(prepared.array_record, threads=threads, **shape)}
    if prepared.tfrecord is not None:
        tf_data = functools.partial(
            input_pipelines.tf_data, prepared.tfrecord, threads=threads, **shape
        )
        pipelines |= {
            "tf.data uint8": tf_data(dtype="uint8"),
            "tf.data float32": tf_data(dtype="float32"),
        }
    pipelines["PIL float32"] = input_pipelines.pil_folder(prepared.folders, **shape)
    shrunk = input_pipelines.ours(prepared.shrunk, threads=threads, **shape)
    return pipelines | {f"ours, short side {_SHORT_SIDE}": shrunk}


def _measure(spec: Spec, prepared: Prepared, threads: int) -> dict:
    pipelines = _pipelines(spec, prepared, threads)
    means = {name: _mean_pixel(pipeline, spec) for name, pipeline in pipelines.items()}
    # Pipelines draw different crops, which matters more with fewer images.
    tolerance = max(4, 32 / spec.images**0.5)
    differences = measuring.require_agreement("mean pixel, of 255", means, tolerance=tolerance)
    calls = {
        name: functools.partial(input_pipelines.exhaust, pipeline)
        for name, pipeline in pipelines.items()
    }
    times = measuring.interleave(calls, rounds=spec.rounds)
    compared = measuring.compare(times, to="ours")
    images = spec.images // spec.batch_size * spec.batch_size
    for name, figures in compared.items():
        figures["cpu_seconds_per_image"] = measuring.spread([s / images for s in times[name].cpu])
        figures["seconds_per_image"] = measuring.spread([s / images for s in times[name].wall])
    return {
        "threads": threads,
        "kilobytes": prepared.kilobytes,
        "alternatives": compared,
        "difference": differences,
    }


def _mean_pixel(pipeline: Pipeline, spec: Spec) -> np.ndarray:
    """The mean pixel of one pass, (3,), from 0 to 255, which depends little on the crops.

    Raises:
      ArithmeticError: the batches do not have the expected shape or number.
    """
    sums, images = np.zeros(3), 0
    shape = (spec.batch_size, spec.image_size, spec.image_size, 3)
    for batch in pipeline():
        if batch.shape != shape:
            raise ArithmeticError(f"a batch has the shape {batch.shape}, not {shape}")
        mean = batch.mean(axis=(0, 1, 2), dtype=np.float64)
        sums += mean if batch.dtype == np.uint8 else 255 * (mean * np.array(STD) + MEAN)
        images += len(batch)
    if images != spec.images // spec.batch_size * spec.batch_size:
        raise ArithmeticError(f"a pass has {images} images, of {spec.images}")
    return sums * spec.batch_size / images


def _print(console: Console, spec: Spec, result: dict) -> None:
    rows = []
    for name, figures in result["alternatives"].items():
        milliseconds = [
            report.figure(1000 * figures[key]["median"])
            for key in ("cpu_seconds_per_image", "seconds_per_image")
        ]
        ratio = report.ratio({"ratio": figures["cpu_ratio"]}) if "cpu_ratio" in figures else ""
        rows.append([name, *milliseconds, ratio])
    title = (
        f"{result['threads']} threads, {spec.images} JPEGs of {result['kilobytes']:.0f} kB, "
        f"{spec.image_size} px, batch {spec.batch_size}, {spec.rounds} rounds\n"
        "CPU ms, wall ms: per image; ratio: CPU time / CPU time of this package"
    )
    columns = ["pipeline", "CPU ms", "wall ms", "ratio: median (quartiles)"]
    console.print(report.table(title, columns, rows))
    report.say_agreement(console, "the mean pixels", [result])
