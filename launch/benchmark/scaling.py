"""The work that more devices and hosts add: pnoise benchmark scaling [--flags]

Measured: the CPU seconds of all threads, because all devices and hosts are on one machine and share
its cores,

  plain step, noisy step  of a training step of a small ViT on several devices, with a constant
                          batch per device; the noise is X + QX over the whole batch, a cyclic
                          shift, at the last block
  input                   per image, of training batches with RandomResizedCrop and a flip, if
                          several hosts read their shares, with a constant batch per host

The hosts are the shares that the pipeline gives to process 0, 1, ... of several. One process reads
them one after another, each in its own stream. All numbers of hosts read the same crops of the same
generated JPEGs, in the same number of streams.

Printed: the time of a step divided by the number of devices and by the time on one device, and the
time per image divided by the time per image with one host, in the same round, as median and
quartiles. If nothing is added, a ratio is 1. XLA compiles a step for one device differently, as
there is nothing to exchange, so also compare the ratios of several devices with each other.
"""

import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import noise, parallel
from pnoise_jax.data import prepare

from ..main import whole_numbers
from . import input_pipelines, measuring, report
from .input_pipelines import Pipeline
from .workload import SmallStep

_DEVICES = flags.DEFINE_list("devices", ["1", "2", "4", "8"], "Numbers of devices of a step.")
flags.DEFINE_integer("batch_size", 8, "Examples of a step on each device.", lower_bound=2)
flags.DEFINE_integer("image_size", 64, "Side of the step's images; a multiple of 8.", lower_bound=8)
flags.DEFINE_integer("dim", 128, "Features of a token; a multiple of 32.", lower_bound=32)
flags.DEFINE_integer("depth", 4, "Number of blocks.", lower_bound=1)
_HOSTS = flags.DEFINE_list("hosts", ["1", "2", "4", "8"], "Numbers of hosts that read.")
flags.DEFINE_integer("images", 512, "Number of JPEGs to generate.", lower_bound=1)
flags.DEFINE_integer("images_per_host", 16, "Images in a host's batch.", lower_bound=1)
flags.DEFINE_integer("rounds", 7, "Number of measurements.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

_CROP, _THREADS = 224, 2  # pixels; per host
_NOISE = {"preset": "paper_vit", "implementation": "structured", "train": True, "layer": "last"}

_Key = TypeVar("_Key")  # identifies a measurement


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure: the checked flags."""

    devices: tuple[int, ...]
    batch_size: int
    image_size: int
    dim: int
    depth: int
    hosts: tuple[int, ...]
    images: int
    images_per_host: int
    rounds: int

    def step(self, devices: int) -> SmallStep:
        """The step on this number of devices."""
        return SmallStep(devices * self.batch_size, self.image_size, self.dim, self.depth)

    @property
    def streams(self) -> int:
        """The number of streams in which all images are read: one or several per host."""
        return math.lcm(*self.hosts)


def main() -> None:
    """Measures, and prints and writes the results."""
    devices = whole_numbers("devices", _DEVICES.value, minimum=1)
    hosts = whole_numbers("hosts", _HOSTS.value, minimum=1)
    for flag, counts in (("devices", devices), ("hosts", hosts)):
        if 1 not in counts:
            given = ",".join(map(str, counts))
            raise ValueError(f"--{flag}={given}: give 1 too, as the others are compared with it")
    spec = report.spec_of(Spec, devices=devices, hosts=hosts)
    spec.step(1)
    report.require_multiple("images", spec.images, spec.streams * spec.images_per_host)
    report.run("scaling", [spec], measure, _print, devices=(max(devices),), out=_OUT.value)


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """A result for each kind of step and number of devices, and for each number of hosts."""
    return [*_measure_steps(spec, mesh), *_measure_input(spec)]


def _measure_steps(spec: Spec, mesh: Mesh) -> list[dict]:
    calls = {}
    for what, injection in _injections().items():
        for count in spec.devices:
            part = parallel.make_mesh(mesh.devices.ravel()[:count].tolist())
            calls[what, count] = spec.step(count).make_advance(part, injection=injection)
    seconds = _interleave(calls, spec.rounds)
    return [
        {"what": what, "devices": count, **_compare(taken, seconds[what, 1], work=count)}
        for (what, count), taken in seconds.items()
    ]


def _injections() -> dict[str, noise.Injection | None]:
    return {"plain step": None, "noisy step": noise.Injection.from_config(_NOISE)}


def _measure_input(spec: Spec) -> list[dict]:
    with tempfile.TemporaryDirectory() as directory:
        folders, data_dir = Path(directory) / "folders", Path(directory) / "data"
        input_pipelines.write_folders(folders, spec.images)
        prepare.prepare(input_pipelines.DATASET, manual_dir=folders, data_dir=data_dir)
        pipelines = {hosts: _share_out(spec, data_dir, hosts) for hosts in spec.hosts}
        means = {str(hosts): _mean_pixel(each) for hosts, each in pipelines.items()}
        measuring.require_agreement("mean pixel, of 255", means, tolerance=1e-3)
        calls = {
            hosts: functools.partial(input_pipelines.exhaust, each)
            for hosts, each in pipelines.items()
        }
        seconds = _interleave(calls, spec.rounds)
    return [
        {
            "what": "input",
            "devices": 1,
            "hosts": hosts,
            "cpu_seconds_per_image": measuring.spread([each / spec.images for each in taken]),
            **_compare(taken, seconds[1]),
        }
        for hosts, taken in seconds.items()
    ]


def _share_out(spec: Spec, data_dir: Path, hosts: int) -> Pipeline:
    """All images once: the shares of all hosts, one after another.

    Each host's share is split into streams. Their total is the same for any number of
    hosts.
    """
    each = spec.streams // hosts
    steps = spec.images // spec.streams // spec.images_per_host
    return input_pipelines.ours(
        data_dir,
        batch_size=hosts * spec.images_per_host,
        side=_CROP,
        threads=_THREADS,
        streams=[
            {
                "process_index": host,
                "process_count": hosts,
                "start_step": number * steps,
                "num_steps": (number + 1) * steps,
            }
            for host in range(hosts)
            for number in range(each)
        ],
    )


def _mean_pixel(pipeline: Pipeline) -> np.ndarray:
    """The mean pixel of all batches, from 0 to 255."""
    return np.array([batch.mean(dtype=np.float64) for batch in pipeline()]).mean(keepdims=True)


def _interleave(calls: Mapping[_Key, Callable[[], object]], rounds: int) -> dict[_Key, list[float]]:
    """The CPU seconds of each call in all rounds, as `measuring.interleave` takes them."""
    named = {str(key): call for key, call in calls.items()}
    times = measuring.interleave(named, rounds=rounds)
    return {key: times[str(key)].cpu for key in calls}


def _compare(taken: Sequence[float], reference: Sequence[float], *, work: int = 1) -> dict:
    """CPU seconds, and their ratios to `work` times the reference's seconds in each round."""
    ratios = [a / (work * b) for a, b in zip(taken, reference, strict=True)]
    return {
        "cpu_seconds": measuring.spread(taken),
        "ratio": measuring.spread(ratios),
        "ratios": ratios,
    }


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    rows = []
    for result in results:
        of_hosts = "hosts" in result
        seconds = result["cpu_seconds_per_image" if of_hosts else "cpu_seconds"]
        rows.append(
            [
                result["what"],
                str(result["hosts" if of_hosts else "devices"]),
                report.figure(1000 * seconds["median"]),
                report.ratio(result, decimals=3),
            ]
        )
    title = (
        f"{results[0]['device_kind']}, {spec.rounds} rounds\n"
        f"step: ViT, {spec.depth} blocks, dim {spec.dim}, {spec.image_size} px, "
        f"batch {spec.batch_size} per device\n"
        f"input: {spec.images} JPEGs, {_CROP} px, batch {spec.images_per_host} per host\n"
        "CPU ms: of a step on all devices, of an image\n"
        "ratio: per device, to one device; to one host"
    )
    columns = ["what", "devices, hosts", "CPU ms", "ratio: median (quartiles)"]
    console.print(report.table(title, columns, rows))
