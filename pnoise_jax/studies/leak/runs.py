"""The audit of trained runs: one, or one for each of several seeds."""

import copy
import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from rich.console import Console

from pnoise_jax import noise, parallel, training
from pnoise_jax.studies import tables
from pnoise_jax.studies.leak.audit import Audit, summarise
from pnoise_jax.studies.leak.measure import measure
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.subjects import AuditedNoise, ModelSubject
from pnoise_jax.studies.report import print_audit
from pnoise_jax.training import workdir as directories
from pnoise_jax.training.checks import require_weights
from pnoise_jax.training.config import differing
from pnoise_jax.training.restore import NOT_OF_WEIGHTS, Run, import_weights, restore

_SEED_DIRECTORY = re.compile(r"seed_([0-9]+)")


def audit_runs(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    *,
    seeds: Sequence[int] | None = None,
    presets: Sequence[str] = (),
    strengths: Sequence[float] = (),
    settings: AuditSettings | None = None,
    out: str | os.PathLike | None = None,
    command: str | None = None,
) -> Audit:
    """Audits the runs in ``workdir``, trains those that are missing, and writes the report.

    The run of seed s is ``workdir`` itself, if it holds that run, else ``workdir/seed_s``. Where
    there is none, no seeds are given, and the config names weights, these are audited as they are.

    Args:
      config: of the runs; its noise, evaluation and data sections may differ from theirs. Its noise
        is the first under audit, which the verdict is about.
      workdir: holds a run, or one for each seed.
      seeds: which; None: those that are there, or the config's where none is.
      presets: further noises under audit, of `noise.PRESETS`.
      strengths: of each noise; its own, if empty.
      settings: batch sizes, confidence and so on.
      out: directory of the report; ``workdir/audit`` if None.
      command: what was typed, for the report.

    Returns:
      The audit, already written.

    Raises:
      ValueError, OSError: bad config, seeds, settings or work directory, named, before any training
        or evaluation.
    """
    if jax.process_count() > 1:
        raise ValueError("an audit runs on one host, on all of its devices; start it on one alone")
    path = Path(workdir).expanduser().absolute()
    found = find_runs(path)
    as_they_are = seeds is None and not found and config.weights is not None
    seeds = _choose_seeds(seeds, found, config)
    if not found:
        require_weights(config)
    settings = settings or AuditSettings()
    settings.over_seeds(len(seeds))
    _require_same_config(config, found)
    experiment = training.build(config)
    _require_same_task(experiment, found)
    labels = experiment.test_data.labels
    what = f"{config.data.name}'s split {config.data.test_split!r}"
    settings = settings.for_labels(labels, what)
    noises = _noises(experiment, config, presets, strengths, settings)
    if as_they_are:
        experiment.match_weights(head="keep")  # raises now, and leaves nothing behind
    directory = directories.make_writable(out or path / "audit", flag="out" if out else "workdir")

    console = Console()
    runs = None if as_they_are else _train_missing(config, path, found, seeds, console)
    audited: list[Run] = []
    subjects = _subjects(config, runs, noises, directory, console, audited)
    measured = measure(subjects, labels, noises, settings, report=console.print)
    content = summarise(measured, settings, model=config.model.name, dataset=config.data.name)
    audit = Audit(content | _origin(config, audited) | {"command": command}, measured)
    paths = audit.write(directory)
    print_audit(console, audit.content)
    for written in paths:
        console.print(f"wrote {written}", soft_wrap=True, highlight=False)
    return audit


def _origin(config: ml_collections.ConfigDict, audited: Sequence[Run]) -> dict[str, Any]:
    """What `audit.json` says of the runs."""
    return {
        "split": config.data.test_split,
        "steps": [run.step for run in audited],
        "weights": audited[0].weights,
        "notes": list(audited[0].notes),
        "config": config.to_dict(),
    }


def _subjects(
    config: ml_collections.ConfigDict,
    runs: dict[int, Path] | None,
    noises: tuple[AuditedNoise, ...],
    scratch: Path,
    console: Console,
    audited: list[Run],
) -> Iterator[ModelSubject]:
    """The subjects, each restored when it is its turn, and noted without its arrays.

    With runs=None it is one: the weights that the config names.
    """
    mesh = parallel.data_mesh()
    for seed in [config.seed] if runs is None else runs:
        if runs is None:
            run = import_weights(config, mesh=mesh)
            for sentence in (run.weights, *run.notes):
                console.print(sentence, soft_wrap=True, highlight=False)
        else:
            ours = _with_seed(config, seed)
            run = restore(runs[seed], ours, mesh=mesh, report=console.print)
        audited.append(dataclasses.replace(run, variables={}))
        yield ModelSubject(
            run.experiment.model,
            run.variables,
            run.experiment.test_data,
            noises=noises,
            seed=seed,
            mesh=mesh,
            mean=run.experiment.mean,
            std=run.experiment.std,
            scratch=scratch,
            report=functools.partial(console.print, soft_wrap=True, highlight=False),
        )
        del run  # before the next one is restored


def find_runs(workdir: Path) -> dict[int, Path]:
    """The runs in a work directory by their seeds: itself and its seed_*.

    Raises:
      ValueError: the config of one is not readable.
    """
    found = {}
    if (workdir / "config.json").exists():
        found[training.read_config(workdir).seed] = workdir
    for directory in sorted(workdir.glob("seed_*")):
        match = _SEED_DIRECTORY.fullmatch(directory.name)
        if match and (directory / "config.json").exists():
            found.setdefault(int(match[1]), directory)
    return found


def read_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """The config of the first run in ``workdir``.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is not readable.
    """
    found = find_runs(Path(workdir).expanduser())
    if not found:
        raise FileNotFoundError(
            f"--workdir={str(workdir)!r} holds no run: neither config.json nor seed_*/config.json "
            "is there; give --config, and what is missing is trained"
        )
    return training.read_config(next(iter(found.values())))


def _choose_seeds(
    seeds: Sequence[int] | None, found: dict[int, Path], config: ml_collections.ConfigDict
) -> list[int]:
    if seeds is None:
        return sorted(found) or [config.seed]
    if not seeds:
        raise ValueError("seeds is empty: give some, such as 0,1,2,3,4, or leave it out")
    chosen = [int(seed) for seed in seeds]
    for seed in chosen:
        if not 0 <= seed < 2**32 or chosen.count(seed) > 1:
            raise ValueError(f"seeds={chosen}: give different whole numbers from 0 to {2**32 - 1}")
    return chosen


def _require_same_config(config: ml_collections.ConfigDict, found: dict[int, Path]) -> None:
    """All seeds must be of one config, else their mean means nothing."""
    reference = None
    for seed, path in found.items():
        stored = training.read_config(path)
        if stored.seed != seed:
            raise ValueError(
                f"{path} holds the run of seed {stored.seed}: rename it to seed_{stored.seed}"
            )
        reference = reference or (path, stored)
        changed = differing(reference[1], _with_seed(stored, reference[1].seed))
        if changed:
            listed = "; ".join(
                f"{field}: {one!r} in {reference[0].name}, {other!r} in {path.name}"
                for field, (one, other) in changed.items()
            )
            raise ValueError(
                f"the seeds in {path.parent} come from different configs ({listed}): audit them "
                "one by one, or move those that do not belong to another directory"
            )
        directories.check(path, _with_seed(config, seed), but=NOT_OF_WEIGHTS)


def _require_same_task(experiment: training.Experiment, found: dict[int, Path]) -> None:
    """The data set may be another one, but of images and classes that the weights know."""
    for path in list(found.values())[:1]:
        stored = training.build(training.read_config(path)).test_data
        asked = experiment.test_data
        if (stored.image_shape, stored.num_classes) != (asked.image_shape, asked.num_classes):
            raise ValueError(
                f"data.name={asked.name!r} has images {asked.image_shape} of {asked.num_classes} "
                f"classes, and the runs in {path.parent} were trained on {stored.image_shape} of "
                f"{stored.num_classes}: audit them on such data"
            )


def _noises(
    experiment: training.Experiment,
    config: ml_collections.ConfigDict,
    presets: Sequence[str],
    strengths: Sequence[float],
    settings: AuditSettings,
) -> tuple[AuditedNoise, ...]:
    """The config's noise and the presets, at each strength; checked against the model."""
    model = experiment.model
    injections = [model.injection] if model.injection is not None else []
    injections += [noise.Injection.preset(name) for name in presets]
    if not injections:
        raise ValueError(
            "there is no noise to audit: set noise.preset or noise.name in the config, or give "
            "--presets"
        )
    audited = []
    for injection in injections:
        injection.validate(num_layers=model.num_layers, points=model.points)
        for strength in strengths or (injection.noise.strength,):
            try:
                scaled = injection.with_strength(strength)
            except ValueError as error:
                raise ValueError(f"strengths={strength} for {injection.noise}: {error}") from None
            audited.append(AuditedNoise.of(scaled, model.num_layers))
        for size in settings.batch_sizes:
            try:
                injection.in_batches_of(size)
            except ValueError as error:
                raise ValueError(f"batch_sizes={size}: {error}") from None
    names = [n.name for n in audited]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"the noise {name!r} comes twice; leave out the preset or strength that repeats it"
            )
    return tuple(audited)


def _train_missing(
    config: ml_collections.ConfigDict,
    workdir: Path,
    found: dict[int, Path],
    seeds: Sequence[int],
    console: Console,
) -> dict[int, Path]:
    """The directory of each seed's run; goes on with those that are not finished."""
    runs = {}
    if found:  # as the others were trained, whatever noise is asked about now
        config = training.read_config(next(iter(found.values())))
    missing = [seed for seed in seeds if seed not in found]
    try:
        total = training.build(config).total_steps
    except (ValueError, OSError) as error:
        if not missing:
            raise
        fix = "; leave --seeds out to audit the weights as they are" if config.weights else ""
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(
            f"{error} (no run of seed {tables.series(missing)} is there, so it would be trained"
            f"{fix})"
        ) from None
    for seed in seeds:
        runs[seed] = found.get(seed, workdir / f"seed_{seed}")
        checkpoints = (runs[seed] / "checkpoints").glob("[0-9]*")
        trained = max((int(path.name) for path in checkpoints if path.name.isdecimal()), default=0)
        if trained < total:
            console.rule(f"training seed {seed}")
            training.train(_with_seed(config, seed), runs[seed])
    return runs


def _with_seed(config: ml_collections.ConfigDict, seed: int) -> ml_collections.ConfigDict:
    config = copy.deepcopy(config)
    config.seed = seed
    return config
