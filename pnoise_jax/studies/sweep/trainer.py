"""Trains each run that a sweep needs once; runs of one program train in turn or together."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import stopping, training
from pnoise_jax.runs import Checkpoints, RunDirectory
from pnoise_jax.studies.sweep.cells import Cell, copy_config, name_of, require_one_numbering
from pnoise_jax.studies.sweep.speed import Speed, chunk_size, measure
from pnoise_jax.training import (
    HARMLESS,
    data_version,
    default_config,
    flatten,
    run_config,
    starting_weights,
    trains_with_noise,
)
from pnoise_jax.writing import file_name

WAYS = ("auto", "never", "always")  # when to train the runs of one program together


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """A run that some cells need.

    Attributes:
      cells: the cells that are evaluated on its weights.
      identity: a digest of everything that the weights depend on.
      program: the fields shared by all runs of its compiled program, as text.
      family: the fields shared by all runs of its family, which may also differ in their noise.
    """

    cells: tuple[Cell, ...]
    identity: str
    program: str
    family: str

    @functools.cached_property
    def experiment(self) -> training.Experiment:
        """The experiment to train; its model has no noise at all if it trains without noise."""
        experiment = self.cells[0].experiment
        model = experiment.model
        if not trains_with_noise(experiment):
            model = model.clone(injection=None)
        return dataclasses.replace(experiment, config=training_config(experiment), model=model)

    @property
    def name(self) -> str:
        """The swept fields that the weights depend on, such as "strength=0.3, seed=1"."""
        with_noise = trains_with_noise(self.cells[0].experiment)
        return name_of(
            {
                field: value
                for field, value in self.cells[0].values.items()
                if not field.startswith(HARMLESS) and (with_noise or not field.startswith("noise."))
            }
        )

    def require_same(self, path: Path, cell: str) -> None:
        """Raises ValueError if the run in ``path`` is not the one that would be trained now.

        Args:
          path: a work directory. If its digest differs, the configs are compared instead, because
            a field added since then, or starting weights that no longer exist, change the digest.
          cell: the cell's name, for the error.
        """
        experiment = self.cells[0].experiment
        try:
            described = data_version.describe(experiment)
            if path.name.endswith(self.identity):
                data_version.check(path, experiment.config, experiment.config, described)
            else:
                run_config.check(path, self.experiment.config, described=described)
        except ValueError as error:
            raise ValueError(f"{cell}: {error}") from None

    def directory(self, runs: Path) -> Path:
        """Returns its work directory: the existing one with its digest, whatever its name."""
        existing = sorted(runs.glob(f"*-{self.identity}"))
        readable = file_name(self.name, longest=80, between="")
        return existing[0] if existing else runs / f"{readable}-{self.identity}"


Ended = tuple[Training, training.TrainState | training.NonFiniteLossError]


def plan(cells: Sequence[Cell], runs: Path | None = None) -> list[list[Training]]:
    """Returns the trainings that cells need, grouped by program.

    Args:
      cells: the cells of the sweep.
      runs: the directory of the trainings; they have recorded the fingerprints of starting weights
        that may no longer exist.
    """
    texts = functools.partial(_text_of, contents=_contents(cells, runs))
    needed: dict[str, list[Cell]] = {}
    described: dict[str, dict[str, Any]] = {}  # the fields of each training's config
    for cell in cells:
        fields = _training_fields(cell.experiment)
        identity = hashlib.sha256(texts(fields).encode()).hexdigest()[:8]
        needed.setdefault(identity, []).append(cell)
        described.setdefault(identity, fields)
    programs: dict[str, list[Training]] = {}
    for identity, served in needed.items():
        fields = described[identity]
        require_one_numbering(served)
        run = Training(
            tuple(served),
            identity,
            program=texts(fields, but=_is_traced),
            family=texts(fields, but=_is_of_noise),
        )
        programs.setdefault(run.program, []).append(run)
    return list(programs.values())


def training_config(experiment: training.Experiment) -> ml_collections.ConfigDict:
    """Returns the config of the run that trains a cell's weights: one checkpoint, at the end."""
    config = copy_config(experiment.config)
    if not trains_with_noise(experiment):
        config.noise = default_config().noise
    config.checkpoint.every = f"{experiment.total_steps} steps"
    config.checkpoint.keep = 1
    config.evaluation.every = None
    return config


def _training_fields(experiment: training.Experiment) -> dict[str, Any]:
    """Returns the fields of `training_config` that affect a run's weights, without copying it."""
    fields = {k: v for k, v in flatten(experiment.config) if not k.startswith(HARMLESS)}
    if not trains_with_noise(experiment):
        fields = {k: v for k, v in fields.items() if not k.startswith("noise.")}
        fields |= _default_noise()
    return fields


@functools.cache
def _default_noise() -> Mapping[str, Any]:
    fields = flatten({"noise": default_config().noise})
    return {k: v for k, v in fields if not k.startswith(HARMLESS)}


def _contents(cells: Sequence[Cell], runs: Path | None) -> dict[str, str]:
    """Returns, for each path of starting weights, a text that identifies their content."""
    directories_of_runs = runs.iterdir() if runs is not None and runs.is_dir() else ()
    noted = dict(filter(None, map(starting_weights.noted_weights, directories_of_runs)))
    paths: set[str] = {w for cell in cells if (w := cell.experiment.config.weights) is not None}
    return {
        path: starting_weights.find_fingerprint(path) or noted.get(path, path) for path in paths
    }


def _is_traced(field: str) -> bool:
    """Returns whether runs of one program may differ in a field: the seed and the strengths."""
    of_noise = field.startswith("noise.") and ".options." not in field
    return field == "seed" or (of_noise and field.endswith((".strength", ".probability")))


def _is_of_noise(field: str) -> bool:
    """Returns whether runs of one family may differ in a field."""
    return field == "seed" or field.startswith("noise.")


def _text_of(
    fields: Mapping[str, Any],
    *,
    contents: Mapping[str, str],
    but: Callable[[str], bool] = lambda field: False,
) -> str:
    """Returns config fields as text, with starting weights represented by their content."""
    kept = {k: v for k, v in fields.items() if not but(k)}
    if kept["weights"] is not None:
        kept["weights"] = contents[kept["weights"]]
    return json.dumps(kept, sort_keys=True)


class Trainer:
    """Trains runs in their work directories, one after another or together."""

    def __init__(self, runs: Path, mesh: Mesh, console: Console, *, together: str):
        """Creates a trainer for the work directories below ``runs``.

        Args:
          runs: the parent of the work directories.
          mesh: the devices.
          console: the console to print on.
          together: when to train the runs of one program together: "never", "always", or "auto",
            which chooses the faster way by measuring both.
        """
        self._runs, self._mesh, self._console = runs, mesh, console
        self._together = together
        self._choices: dict[str, bool] = {}  # by family: whether to train together
        self._programs: dict[tuple[str, bool], training.Program] = {}  # compiled so far
        # By family, as noise is off while a model is initialised.
        self._create: dict[str, Callable] = {}

    def choose(self, programs: Sequence[Sequence[Training]]) -> None:
        """Decides how to train each family of programs, by measuring if necessary."""
        families: dict[str, list[list[Training]]] = {}
        for runs in programs:
            pending = [run for run in runs if not self._finished(run)]
            for run in pending:
                run.experiment.match_weights()  # raise now instead of hours later
            if pending:
                families.setdefault(runs[0].family, []).append(pending)
        for family, pending in families.items():
            if pending[0][0].experiment.task.preparations:
                self._choices[family] = False  # each run has its own batches
            elif max(map(len, pending)) == 1 or self._together != "auto":
                self._choices[family] = self._together == "always"
            else:
                stopping.check("while measuring how to train")
                self._choices[family] = self._measure(pending)

    def train(self, runs: Sequence[Training]) -> Iterator[list[Ended]]:
        """Yields the runs of one program with their states, as soon as they finish.

        Runs that had already finished come first. A run that diverges is yielded with its error
        instead of a state, and the others continue.

        Raises:
          ValueError, OSError: as `training.train`; the message names the run.
        """
        for run in runs:
            self._claim(run)
        pending = [run for run in runs if not self._finished(run)]
        together = len(pending) > 1 and self._choices.get(runs[0].family, False)
        alone = self._program(runs[0], together=False)
        for run in runs:
            if run not in pending:
                yield [(run, self._restore(run, alone))]
        if not together:
            for run in pending:
                yield [(run, self._fit(run, alone))]
        else:
            yield from self._train_together(pending)
        for way in (False, True):
            self._programs.pop((runs[0].program, way), None)

    def _claim(self, run: Training) -> None:
        path = run.directory(self._runs)
        try:
            described = data_version.describe(run.experiment)
            run_config.claim(path, run.experiment.config, described)
        except ValueError as error:
            raise ValueError(f"{run.name}: {error}{_delete(path)}") from None

    def _restore(self, run: Training, program: training.Program) -> training.TrainState:
        """Returns the state of a finished run."""
        path = run.directory(self._runs)
        checkpoints = Checkpoints(path, keep=1, report=self._console.print)
        with contextlib.closing(checkpoints):
            try:
                restored = checkpoints.restore(program.like, set_aside=False)
                if restored is None or restored[1] != run.experiment.total_steps:
                    raise OSError(f"the checkpoint of step {run.experiment.total_steps} is broken")
                return restored[0]
            except OSError as error:
                raise OSError(f"{run.name}: {error}{_delete(path)}") from None

    def _fit(
        self, run: Training, program: training.Program
    ) -> training.TrainState | training.NonFiniteLossError:
        try:
            return training.fit(run.experiment, run.directory(self._runs), program)
        except training.NonFiniteLossError as error:
            return error

    def _train_together(self, runs: Sequence[Training]) -> Iterator[list[Ended]]:
        program = self._program(runs[0], together=True)
        size = chunk_size(len(runs))
        for first in range(0, len(runs), size):
            chunk = runs[first : first + size]
            experiments = [run.experiment for run in chunk]
            paths = [run.directory(self._runs) for run in chunk]
            states = training.fit_together(experiments, paths, program, size=size)
            yield list(zip(chunk, states, strict=True))

    def _measure(self, pending: Sequence[Sequence[Training]]) -> bool:
        """Returns whether a family trains faster together, as measured on its largest program."""
        runs = max(pending, key=len)
        size, steps = chunk_size(len(runs)), runs[0].experiment.total_steps
        alone, joint = self._speeds(runs[:size])
        if joint is None:
            self._console.print(
                f"{size} runs together do not fit in device memory: training one after another",
            )
            return False
        count = sum(map(len, pending))
        padded = sum(-(-len(p) // chunk_size(len(p))) * chunk_size(len(p)) for p in pending)
        left = len(pending) - 1  # the measured program is already compiled, both ways
        seconds = {
            False: alone.seconds(programs=left, runs=count, steps=steps),
            True: joint.seconds(programs=left, runs=padded, steps=steps),
        }
        together = seconds[True] < seconds[False]
        self._console.print(
            f"{count} runs of {steps} steps, {len(pending)} program(s), {left} to compile: "
            f"one after another about {seconds[False]:.0f} s (compiling {alone.compiling:.1f} s, "
            f"step {1000 * alone.step:.1f} ms), {size} together about {seconds[True]:.0f} s "
            f"(compiling {joint.compiling:.1f} s, step {1000 * joint.step:.1f} ms): "
            + ("together" if together else "one after another"),
            soft_wrap=True,
        )
        return together

    def _speeds(self, runs: Sequence[Training]) -> tuple[Speed, Speed | None]:
        """Returns the speeds in turn and together; the latter is None if memory is too small."""
        experiments = [run.experiment for run in runs]
        alone = measure(experiments, self._program(runs[0], False), together=False)
        try:
            return alone, measure(experiments, self._program(runs[0], True), together=True)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            del self._programs[runs[0].program, True]
            return alone, None

    def _program(self, run: Training, together: bool) -> training.Program:
        key = run.program, together
        if key not in self._programs:
            program = training.create_program(
                run.experiment, self._mesh, any_strength=True, together=together
            )
            create = self._create.setdefault(run.family, program.create)
            self._programs[key] = dataclasses.replace(program, create=create)
        return self._programs[key]

    def _finished(self, run: Training) -> bool:
        directory = RunDirectory(run.directory(self._runs))
        return directory.checkpoint(run.experiment.total_steps).is_dir()


def _delete(path: Path) -> str:
    return f". To repair the sweep: delete {path}, and the same command trains it again"
