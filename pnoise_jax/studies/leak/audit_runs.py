"""Audits of trained runs: one run, or one for each of several seeds."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from rich.console import Console

from pnoise_jax import data, noise, parallel, stopping, training, weights, writing
from pnoise_jax.data import imagenet_sets
from pnoise_jax.evaluation import Metric
from pnoise_jax.runs import RunDirectory
from pnoise_jax.studies.leak import report_directory as places
from pnoise_jax.studies.leak.audit import Audit, conclude, identify
from pnoise_jax.studies.leak.audited.audited_model import AuditedModel
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.measure import measure
from pnoise_jax.studies.leak.seed_runs import (
    choose_seeds,
    find_runs,
    require_same_config,
    require_same_task,
    with_seed,
)
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.reporting import tables
from pnoise_jax.studies.reporting.console import print_audit
from pnoise_jax.terminal import create_console, printable
from pnoise_jax.training import Run, data_version, import_weights, require_weights, restore


def audit_runs(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    *,
    seeds: Sequence[int] | None = None,
    presets: Sequence[str] = (),
    strengths: Sequence[float] = (),
    settings: AuditSettings | None = None,
    metric: Metric | None = None,
    out: str | os.PathLike | None = None,
    command: str | None = None,
) -> Audit:
    """Audits the runs in ``workdir``, trains missing ones, and writes the report.

    The run of seed s is ``workdir`` itself if that is the run, else ``workdir/seed_s``. If there
    are no runs, no seeds are given, and the config names weights, the weights are audited without
    training.

    Args:
      config: config of the runs; its noise, evaluation and data sections may differ from theirs.
        Its noise is the first to be audited; `Audit.verdict` is about that one.
      workdir: a run, or a directory of one run per seed.
      seeds: seeds of the runs; None for those of the existing runs, or the config's seed if there
        are none.
      presets: further noises to audit, from `noise.PRESETS`.
      strengths: strengths to audit each noise at; if empty, its own.
      settings: batch sizes, numbers of orders, confidence and so on.
      metric: a metric to score in addition to accuracy, as in `audit`.
      out: directory of the report. None for ``workdir/audit``, or for a directory in
        ``workdir/audits`` if ``workdir/audit`` contains another audit.
      command: the command line, for the report.

    Returns:
      The audit; its report is already written.

    Raises:
      ValueError, OSError: an invalid config, seeds, settings or work directory; the error names it,
        and is raised before any training or evaluation.
      StoppedError: a signal arrived; trained runs are kept, measurements are not.
    """
    if jax.process_count() > 1:
        raise ValueError("an audit runs on one host, with all of its devices; start it on one only")
    writing.require_local(workdir, named=f"--workdir={str(workdir)!r}")
    path = Path(workdir).expanduser().absolute()
    existing = find_runs(path)
    as_they_are = seeds is None and not existing and config.weights is not None
    seeds = choose_seeds(seeds, existing, config)
    settings = settings or AuditSettings()
    settings.over_seeds(len(seeds))
    experiment = _build(config, existing)
    labels = experiment.evaluated_data.labels
    what = f"{config.data.name}'s split {config.data.test_split!r}"
    settings = settings.for_labels(labels, what)
    noises = _noises(experiment, presets, strengths, settings)
    _require_one_view(config)
    imported = experiment.match_weights(head="keep") if as_they_are else None
    measurement = identify(
        settings, labels, metric, places.describe(experiment, path, seeds, noises)
    )
    directory = places.open_directory(path, out, measurement, noises, seeds)

    console = create_console()
    audited: list[Run] = []
    with _keeping_runs(path):
        if imported is None:
            trained = _train_missing(config, path, existing, seeds, console)
            runs = _restore_each(config, trained, console)
        else:
            runs = _import(experiment, imported, console)
        subjects = _subjects(runs, noises, directory, console, audited)
        measured = measure(
            subjects,
            labels,
            noises,
            settings,
            report=console.print,
            metric=metric,
            label_sets=experiment.evaluated_data.label_sets,
        )
    audit = conclude(
        measured,
        settings,
        model=config.model.name,
        dataset=config.data.name,
        class_names=experiment.evaluated_data.class_names,
        origin=_origin(experiment, audited) | {"command": command and printable(command)},
        measurement=measurement,
    )
    print_audit(console, audit.content)
    for written in places.write(audit, directory):
        console.print(f"wrote {printable(str(written))}", soft_wrap=True)
    return audit


def _build(config: ml_collections.ConfigDict, existing: dict[int, Path]) -> training.Experiment:
    """Builds the experiment of a config, with the classes of the existing runs, if any.

    Raises:
      ValueError, OSError: the config is invalid or does not fit the runs; the error names the
        field.
    """
    if not existing:
        require_weights(config)
    require_same_config(config, existing)
    experiment = training.build(config)
    if not experiment.task.classifies:
        raise ValueError(
            f"task.name={config.task.name!r} classifies nothing, and an audit explains an "
            "accuracy: fine-tune a classifier from this run, with weights=RUN and "
            "weights_head='fresh', and audit that"
        )
    require_same_task(experiment, existing)
    if existing:
        experiment, _ = data_version.match_run(experiment, next(iter(existing.values())))
    return experiment


@contextlib.contextmanager
def _keeping_runs(workdir: Path) -> Iterator[None]:
    """Adds to the error of a signal which runs are kept."""
    try:
        yield
    except stopping.StoppedError as stopped:
        seeds = sorted(find_runs(workdir))
        runs = f"the runs of seeds {tables.series(seeds)} are kept in {workdir}; " if seeds else ""
        raise stopped.with_kept(f"{runs}there is no report yet") from None


def _origin(experiment: training.Experiment, audited: Sequence[Run]) -> dict[str, Any]:
    """Returns the fields of `audit.json` about the runs."""
    config = experiment.config
    acting = {each.section for each in experiment.evaluated_injections}
    left_out = [
        f"note: {each.section} is off in noisy evaluation (inference=False), so it was not audited"
        for each in experiment.injections
        if each.section not in acting
    ]
    scoring = [f"note: {sentence}" for sentence in experiment.describe_scoring()]
    if experiment.test_data.name in imagenet_sets.NAMES:
        scoring += _name_stored_order(experiment.test_data)
    return {
        "split": config.data.test_split,
        "steps": [run.step for run in audited],
        "weights": audited[0].weights,
        "notes": [*audited[0].notes, *scoring, *left_out],
        "config": config.to_dict(),
    }


def _name_stored_order(dataset: data.Dataset) -> list[str]:
    """Explains the order "as given" if records are hashed: in class folders it is class order."""
    if dataset.stored_order != "hashed":
        return []
    return [
        "note: the order as given is the order of the records, which TFDS shuffles by a hash of "
        "the files' names; the published folders are in class order"
    ]


def _restore_each(
    config: ml_collections.ConfigDict, runs: Mapping[int, Path], console: Console
) -> Iterator[tuple[int, Run]]:
    """Yields the seed and the run of each seed; restores each run only when it is needed."""
    mesh = parallel.data_mesh()
    for seed, path in runs.items():
        yield seed, restore(path, with_seed(config, seed), mesh=mesh, report=console.print)


def _import(
    experiment: training.Experiment, imported: weights.Weights, console: Console
) -> Iterator[tuple[int, Run]]:
    """Yields the weights without training, with the config's seed."""
    run = import_weights(experiment, imported, mesh=parallel.data_mesh())
    for sentence in (run.weights, *run.notes):
        console.print(sentence, soft_wrap=True)
    yield experiment.config.seed, run


def _subjects(
    runs: Iterable[tuple[int, Run]],
    noises: tuple[AuditedNoise, ...],
    scratch: Path,
    console: Console,
    audited: list[Run],
) -> Iterator[AuditedModel]:
    """Yields the subjects, and appends each run to ``audited``, without its arrays."""
    mesh = parallel.data_mesh()
    for seed, run in runs:
        audited.append(dataclasses.replace(run, variables={}))
        yield AuditedModel(
            run.experiment.model,
            run.variables,
            run.experiment.evaluated_data,
            noises=noises,
            seed=seed,
            mesh=mesh,
            mean=run.experiment.mean,
            std=run.experiment.std,
            scratch=scratch,
            report=functools.partial(console.print, soft_wrap=True),
        )
        del run  # before the next one is restored


def _noises(
    experiment: training.Experiment,
    presets: Sequence[str],
    strengths: Sequence[float],
    settings: AuditSettings,
) -> tuple[AuditedNoise, ...]:
    """Returns the config's noise, whose injections act together, and the noise of each preset.

    Each is returned at each strength, and checked against the model.
    """
    model = experiment.model
    under_audit = [experiment.injections] if experiment.injections else []
    under_audit += [(noise.Injection.preset(name),) for name in presets]
    if not under_audit:
        raise ValueError(
            "there is no noise to audit: set noise.preset or noise.name in the config, or give "
            "--presets"
        )
    audited = []
    for injections in under_audit:
        acting = [each for each in noise.switch_for_evaluation(injections) if each.inference]
        for injection in acting:
            injection.validate(num_layers=model.num_layers, points=model.points)
            _require_group_size(injection, settings.batch_sizes or ())
        for scaled in _at_strengths(injections, strengths):
            audited.append(AuditedNoise.of(scaled, model.num_layers))
    names = [n.name for n in audited]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"the noise {name!r} comes twice; leave out the preset or strength that repeats it"
            )
    return tuple(audited)


def _require_one_view(config: ml_collections.ConfigDict) -> None:
    if config.evaluation.views != 1:
        raise ValueError(
            f"evaluation.views={config.evaluation.views}: an audit evaluates one view of each "
            "image, so its accuracies would not be those of this evaluation; set evaluation.views=1"
        )


def _require_group_size(injection: noise.Injection, batch_sizes: Iterable[int]) -> None:
    for size in batch_sizes:
        try:
            injection.in_batches_of(size)
        except ValueError as error:
            raise ValueError(f"batch_sizes={size}: {error}") from None


def _at_strengths(
    injections: tuple[noise.Injection, ...], strengths: Sequence[float]
) -> Iterator[noise.Injection | tuple[noise.Injection, ...]]:
    """Yields the noise at each strength, or unchanged if there are no strengths."""
    if len(injections) == 1:
        injection = injections[0]
        for strength in strengths or (injection.noise.strength,):
            try:
                yield injection.with_strength(strength)
            except ValueError as error:
                raise ValueError(f"strengths={strength} for {injection.noise}: {error}") from None
    elif strengths:
        raise ValueError(
            f"strengths={tuple(strengths)}: the config has {len(injections)} injections "
            f"({', '.join(each.section for each in injections)}), each with its own strength; "
            "leave --strengths out, and set their strengths in the config"
        )
    else:
        yield injections


def _train_missing(
    config: ml_collections.ConfigDict,
    workdir: Path,
    existing: dict[int, Path],
    seeds: Sequence[int],
    console: Console,
) -> dict[int, Path]:
    """Trains missing runs, resumes unfinished ones, and returns each seed's run directory."""
    runs = {}
    if existing:  # train like the existing runs, whatever noise is to be audited
        config = training.read_config(next(iter(existing.values())))
    missing = [seed for seed in seeds if seed not in existing]
    try:
        experiment = training.build(config)
        total = experiment.total_steps
        if existing and missing:  # new runs must number classes as the existing ones do
            data_version.require_same(next(iter(existing.values())), experiment)
    except (ValueError, OSError) as error:
        if not missing:
            raise
        fix = "; leave --seeds out to audit the weights as they are" if config.weights else ""
        kind = OSError if isinstance(error, OSError) else training.ConfigError
        raise kind(
            f"{error} (an audit would train a run of seed {tables.series(missing)}{fix})"
        ) from error
    for seed in seeds:
        runs[seed] = existing.get(seed, workdir / f"seed_{seed}")
        if max(RunDirectory(runs[seed]).steps(), default=0) < total:
            console.rule(f"training seed {seed}")
            training.train(with_seed(config, seed), runs[seed])
    return runs
