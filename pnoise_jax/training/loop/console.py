"""The console output of a run: its header, its progress and its warnings."""

import contextlib
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import traverse_util
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pnoise_jax import noise, weights
from pnoise_jax.evaluation import Measure
from pnoise_jax.training.configuration.fields import flatten
from pnoise_jax.training.configuration.strength_schedule import StrengthSchedule
from pnoise_jax.training.evaluating.imported import warn_of_preprocessing
from pnoise_jax.training.experiment import Experiment
from pnoise_jax.training.task import Task
from pnoise_jax.training.unused_fields import describe_unused

_LOSS = Measure("loss", "loss", 4, "")


def print_header(
    console: Console, experiment: Experiment, imported: weights.Weights | None = None
) -> None:
    """Prints the config, the parameters, the devices, and the k examples that the noise mixes.

    Args:
      console: the console to print on.
      experiment: the run.
      imported: the weights that the run starts from; None if there are none, or it is resumed.
    """
    config = experiment.config
    console.rule("configuration")
    for field, value in flatten(config):
        if value is not None:
            console.print(f"{field} = {value!r}", soft_wrap=True)
    console.rule("parameters")
    params = jax.eval_shape(experiment.initial_state, jax.random.key(0)).params
    console.print(_parameter_table(params))
    console.rule("run")
    steps, data = experiment.total_steps, experiment.train_data
    epochs = steps * config.batch_size / len(data)
    console.print(
        f"{steps} steps of {config.batch_size} examples ({epochs:.1f} epochs of {len(data)}) on "
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)"
        + (
            ""
            if (hosts := jax.process_count()) == 1
            else f", {jax.local_device_count()} of them on this host, one of {hosts}"
        )
        + ("" if config.fsdp == 1 else f"; {config.fsdp} share one copy of the parameters")
        + ("" if (shared := config.tensor_parallel) == 1 else f"; {shared} share matrix products")
        + ("" if (sums := config.reduce_dtype) is None else f"; gradients are summed in {sums}")
    )
    for sentence in [*describe_fine_tuning(experiment, imported), describe_noise(experiment)]:
        console.print(sentence, soft_wrap=True)
    warnings = [] if imported is None else warn_of_preprocessing(experiment, imported)
    warnings = [*warnings, *experiment.task.warn_of_data(), *warn_of_noise(experiment)]
    for warning in [*warnings, *describe_unused(experiment)]:
        console.print(f"note: {warning}", style="yellow")


def _parameter_table(params: Mapping[str, Any]) -> Table:
    """A table of the parameters' names, shapes, dtypes and sizes, and of their total size."""
    flat: Mapping[str, Any] = dict(traverse_util.flatten_dict(params, sep="/"))
    table = Table("name", "shape", "dtype", box=box.SIMPLE)
    table.add_column("size", justify="right")
    for name, x in flat.items():
        table.add_row(name, str(x.shape), str(x.dtype), f"{x.size:,}")
    total = sum(x.size for x in flat.values())
    table.add_section()
    table.add_row("all", "", "", f"{total:,}")
    return table


def describe_fine_tuning(experiment: Experiment, imported: weights.Weights | None) -> list[str]:
    """Sentences about the weights that the run starts from, and the parameters it freezes."""
    sentences = []
    if imported is not None:
        described = (imported.describe(), imported.describe_assumed())
        sentences = [*filter(None, described), imported.describe_preprocessing()]
    if experiment.frozen is not None:
        params = experiment.variables["params"]
        frozen = experiment.frozen(params)
        sizes = jax.tree.leaves(jax.tree.map(lambda still, x: still * x.size, frozen, params))
        total = sum(x.size for x in jax.tree.leaves(params))
        text = (
            f"frozen: {sum(size > 0 for size in sizes)} of {len(sizes)} parameter arrays, "
            f"{sum(sizes)} of {total} numbers"
        )
        if "batch_stats" in experiment.variables:
            text += (
                "; batch norms whose scale is frozen keep their statistics, though in training "
                "they normalise by the batch's"
            )
        sentences.append(text)
    return sentences


def describe_noise(experiment: Experiment) -> str:
    """A line for each noise: what it is, where and when it acts, and how many examples it mixes."""
    injections = noise.switch_for_evaluation(experiment.model.injection)
    lines = [
        _describe_injection(experiment, each) + _describe_schedule(schedule)
        for each, schedule in zip(injections, experiment.noise_schedules, strict=True)
    ]
    lines += experiment.task.describe_noise()
    if std := experiment.config.optimizer.gradient_noise_std:
        decay = experiment.config.optimizer.gradient_noise_decay
        lines.append(
            f"gradients, in training: Gaussian with std {std:g} after clipping, whose variance is "
            f"divided by (1 + step)^{decay:g}"
        )
        if text := experiment.config.optimizer.gradient_noise_schedule:
            lines[-1] += f"; its standard deviation times {text}"
    return "\n".join(lines) or "no noise"


def _describe_injection(experiment: Experiment, injection: noise.Injection) -> str:
    layers = ", ".join(map(str, injection.layers(experiment.model.num_layers)))
    drawn = " (one drawn for each step)" if injection.layer == "random" else ""
    where = f"{injection.point}, layer {layers}{drawn}, {injection.tokens} tokens"
    if injection.point == "image":
        where = "image, pixels from 0 to 1"
    when = f"{'on' if injection.train else 'off'} in training"
    if len(experiment.injections) > 1:
        when += f", {'on' if injection.inference else 'off'} in noisy evaluation"
    mixed = _mixed_examples(experiment, injection)
    mixing = "".join(f"; k = {k} in {phase}" for phase, k in mixed.items())
    return f"{injection.section}: {injection.noise} at {where}; {when}{mixing}"


def _describe_schedule(schedule: StrengthSchedule | None) -> str:
    if schedule is None:
        return ""
    return f"; its strength times {schedule} in training, full strength in evaluations"


def warn_of_noise(experiment: Experiment) -> list[str]:
    """Warnings of the constraints of eq. 14 that quality matrices violate at the k of this run."""
    warnings = []
    for injection in noise.switch_for_evaluation(experiment.model.injection):
        quality = getattr(injection.noise, "quality", None)
        if quality is None:
            continue
        named = f"{injection.section}: " if len(experiment.injections) > 1 else ""
        warnings += [
            f"{named}with k = {k} in {phase}, {violation} (eq. 14)"
            for phase, k in _mixed_examples(experiment, injection).items()
            if k <= 4096  # the check forms the k x k matrix
            for violation in quality.violations(k)
        ]
    return warnings


def _mixed_examples(experiment: Experiment, injection: noise.Injection) -> dict[str, int]:
    """k, the number of examples that an injection mixes, by phase; empty if it mixes none."""
    config = experiment.config
    if not injection.noise.mixes_batch:
        return {}
    batches = {}
    if injection.inference:
        batches["noisy evaluation"] = config.evaluation.batch_size
    if injection.train:
        batches["training"] = config.batch_size // config.accumulate
    return {phase: injection.noise.group_size or size for phase, size in batches.items()}


class ProgressReport:
    """Shows progress: a bar on a terminal, otherwise a line per report."""

    def __init__(self, console: Console, task: Task, total: int, bar: Progress | None = None):
        """Reports the progress of a run.

        Args:
          console: the console to print on.
          task: decides which metrics to show.
          total: the number of steps of the run.
          bar: a live progress bar with a single entry; None to print lines.
        """
        self._console, self._task, self._total, self._bar = console, task, total, bar

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the metrics of the steps since the last report."""
        parts = [m.text(metrics[m.name]) for m in (_LOSS, *self._task.step_measures)]
        parts += [
            f"{metrics['steps_per_second']:.3g} steps/s",
            f"{metrics['examples_per_second']:.0f} examples/s",
            f"{metrics['data_wait']:.0f} % of the time waiting for data",
        ]
        if "device_memory" in metrics:
            parts.append(f"{metrics['device_memory'] / 2**30:.1f} GiB of device memory at most")
        text = "  ".join(parts)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, status=text)
        else:
            seconds = (self._total - step) / metrics["steps_per_second"]
            left = datetime.timedelta(seconds=round(seconds))
            line = f"step {step}/{self._total}  {text}  {left} left"
            self._console.print(line, soft_wrap=True)

    def compiled(self, seconds: float) -> None:
        """Prints how long the first step took, which includes compilation."""
        self._console.print(f"compiled; the first step took {seconds:.1f} s", soft_wrap=True)

    def evaluated(self, step: int, row: Mapping[str, float]) -> None:
        """Shows a row of an evaluation during training."""
        shown = ", ".join(m.text(row[m.name]) for m in self._task.row_measures)
        self._console.print(
            f"step {step}/{self._total}  clean evaluation: {shown}, {row['n']} examples",
            soft_wrap=True,
        )


@contextlib.contextmanager
def progress_report(
    console: Console, task: Task, *, start: int, total: int
) -> Iterator[ProgressReport]:
    """A `ProgressReport` for the steps from ``start`` to ``total``."""
    if not console.is_terminal:
        yield ProgressReport(console, task, total)
        return
    columns = (
        TextColumn("step", markup=False),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        bar.add_task("training", total=total, completed=start, status="compiling")
        yield ProgressReport(console, task, total, bar)
