"""The figures of a study: loss curves by term, embeddings, gate maps, confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pnoise_jax.adaptation import AdaptationTask
from pnoise_jax.studies.adaptation.measuring import Measured, read_metrics
from pnoise_jax.studies.adaptation.methods import SOURCE_ONLY, Method, StudyRun
from pnoise_jax.studies.adaptation.representations import (
    Embedding,
    GateMaps,
    embed,
    map_gate,
    restore_run,
)
from pnoise_jax.studies.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The keys of metrics.jsonl that are not terms of a loss.
_NOT_TERMS = {
    "step",
    "time",
    "learning_rate",
    "grad_norm",
    "steps_per_second",
    "examples_per_second",
    "data_wait",
    "device_memory",
}
_COLORS = ("#0072b2", "#c25400", "#00785a", "#8a5a9e", "#26303b", "#59636f")
_MAX_CLASSES = 30  # more names do not fit on a confusion matrix
# The series of the domains, in colours that a dark page replaces.
_SOURCE_COLOR, _TARGET_COLOR = style.COLORS[style.SHUFFLED], style.COLORS[style.CLASS_SORTED]


def draw(path: Path, runs: Sequence[StudyRun], measured: Sequence[Measured]) -> dict[str, Figure]:
    """Draws the figures, by name; figures with nothing to show are left out.

    Args:
      path: the work directory of the study.
      runs: all runs of the study.
      measured: the predictions of these runs.
    """
    first = {run.method: run for run in reversed(runs)}  # the first seed of each row
    first = {method: first[method] for method in dict.fromkeys(run.method for run in runs)}
    curves = {method: read_metrics(path / "runs" / run.name) for method, run in first.items()}
    unlabelled = {run.method for run in runs if isinstance(run.experiment.task, AdaptationTask)}
    embeddings, maps = _ask_runs(path, {m: run for m, run in first.items() if m in unlabelled})
    measures = [m for run in first.values() for m in run.experiment.task.step_measures]
    figures = {"curves": curves_figure(curves, {m.name: m.heading for m in measures})}
    if embeddings:
        figures["embedding"] = embedding_figure(embeddings)
    if maps:
        figures["transferability"] = maps_figure(maps)
    names = runs[0].experiment.test_data.class_names
    figures["confusion"] = confusion_figure(_confusions(measured, unlabelled), names)
    return figures


def _ask_runs(
    path: Path, first: Mapping[Method, StudyRun]
) -> tuple[dict[Method, Embedding], dict[Method, GateMaps]]:
    """Returns the embeddings and gate maps of the runs without noise, restoring each run once."""
    embeddings, maps = {}, {}
    for method, run in first.items():
        if method.noise:
            continue
        restored = restore_run(run, path / "runs" / run.name)
        embedded = embed(restored)
        if embedded is not None:
            embeddings[method] = embedded
        gate = map_gate(restored)
        if gate is not None:
            maps[method] = gate
    return embeddings, maps


def terms_of(curves: Mapping[Method, Sequence[Mapping[str, float]]]) -> list[str]:
    """Returns the step metrics to draw, in order of first appearance."""
    keys = [key for lines in curves.values() for line in lines for key in line]
    return [k for k in dict.fromkeys(keys) if k not in _NOT_TERMS and "/" not in k]


@style.styled
def curves_figure(
    curves: Mapping[Method, Sequence[Mapping[str, float]]], headings: Mapping[str, str]
) -> Figure:
    """Draws a panel for each loss term, with a line for each method.

    Args:
      curves: the lines of metrics.jsonl by method.
      headings: the titles of the terms; a term without one has its name.
    """
    terms = terms_of(curves)
    rows = max(1, math.ceil(len(terms) / 2))
    figure = style.new_figure(style.WIDTH, 1.9 * rows + 0.6)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for ax, term in zip(axes, terms, strict=False):
        ax.set_title(headings.get(term, term.replace("_", " ")))
        for method, lines in curves.items():
            points = [(line["step"], line[term]) for line in lines if term in line]
            if points:
                ax.plot(*zip(*points, strict=True), **_line(method, curves), linewidth=1.3)
    for ax in axes[len(terms) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(terms) - 2) : len(terms)]:
        ax.set_xlabel("step")
    handles = [axes[0].plot([], [], label=m.label, **_line(m, curves))[0] for m in curves]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def _line(method: Method, methods: Mapping[Method, object]) -> dict[str, str]:
    names = list(dict.fromkeys(each.name for each in methods))
    color = _COLORS[names.index(method.name) % len(_COLORS)]
    return {"color": color, "linestyle": "--" if method.noise else "-"}


@style.styled
def embedding_figure(embeddings: Mapping[Method, Embedding]) -> Figure:
    """Draws a panel for each method: source only is before adaptation, the others are after."""
    rows = math.ceil(len(embeddings) / 2)
    figure = style.new_figure(style.WIDTH, 2.9 * rows + 0.4)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, (method, embedding) in zip(axes, embeddings.items(), strict=False):
        ax.set_title(f"{method.label} ({embedding.kind})")
        _scatter(ax, embedding)
    handles = [
        axes[0].plot([], [], marker, color=color, label=label)[0]
        for marker, color, label in (
            ("o", _SOURCE_COLOR, "source"),
            ("^", _TARGET_COLOR, "target"),
        )
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def _scatter(ax: Axes, embedding: Embedding) -> None:
    for domain, color, marker in ((True, _SOURCE_COLOR, "o"), (False, _TARGET_COLOR, "^")):
        points = embedding.points[embedding.source == domain]
        ax.scatter(*points.T, s=9, color=color, marker=marker, alpha=0.6, linewidth=0)


@style.styled
def maps_figure(maps: Mapping[Method, GateMaps]) -> Figure:
    """Draws images of the target, and below them the gate's entropy, with one model per row."""
    first = next(iter(maps.values()))
    columns = len(first.images)
    figure = style.new_figure(style.WIDTH, 1.15 * (1 + len(maps)) + 0.5)
    axes = figure.subplots(1 + len(maps), columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_xticks([])
        ax.set_yticks([])
    for ax, image in zip(axes[0], first.images, strict=True):
        ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
    axes[0, 0].set_title("images of the target")
    for row, (method, gate) in zip(axes[1:], maps.items(), strict=True):
        row[0].set_title(f"{method.label}: entropy, bits")
        for ax, entropy in zip(row, gate.entropy, strict=True):
            shown = ax.imshow(entropy, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes[1:], fraction=0.03, ticks=[0, 0.5, 1])
    return figure


def _confusions(
    measured: Sequence[Measured], unlabelled: Container[Method]
) -> dict[Method, np.ndarray]:
    """Returns the confusion matrices of source only and the best method without target labels.

    They are (classes, classes), in percent of the true class.

    Args:
      measured: the predictions of all runs.
      unlabelled: the methods that do not learn from target labels.
    """
    means: dict[Method, list[float]] = {}
    for run in measured:
        means.setdefault(run.method, []).append(run.accuracy("clean"))
    adapted = [m for m in means if m in unlabelled and m.name != SOURCE_ONLY]
    shown = [Method(SOURCE_ONLY), *sorted(adapted, key=lambda m: -np.mean(means[m]))[:1]]
    return {method: _confusion([r for r in measured if r.method == method]) for method in shown}


def _confusion(runs: Sequence[Measured]) -> np.ndarray:
    size = 1 + max(max(int(run.labels.max()), int(run.predicted["clean"].max())) for run in runs)
    counts = np.zeros((size, size))
    for run in runs:
        np.add.at(counts, (run.labels, run.predicted["clean"]), 1)
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


@style.styled
def confusion_figure(
    confusions: Mapping[Method, np.ndarray], names: Sequence[str] | None
) -> Figure:
    """Draws the matrices: true classes as rows, predicted ones as columns, in percent of a row."""
    figure = style.new_figure(style.WIDTH, 3.5)
    axes = figure.subplots(1, len(confusions), squeeze=False)[0]
    for ax, (method, matrix) in zip(axes, confusions.items(), strict=True):
        shown = ax.imshow(matrix, cmap="viridis", vmin=0, vmax=100)
        ax.set_title(method.label)
        ax.grid(False)
        ax.set_xlabel("predicted class")
        if names is not None and len(matrix) == len(names) <= _MAX_CLASSES:
            ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
            ax.set_yticks(range(len(names)), names, fontsize=7)
        else:
            ax.set_xticks([])
            ax.set_yticks([])
    axes[0].set_ylabel("true class")
    figure.colorbar(shown, ax=axes, fraction=0.04, label="percent of the true class")
    return figure
