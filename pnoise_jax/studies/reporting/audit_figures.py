"""Figures of an audit's accuracies: by protocol, by how far batches are sorted, and by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pnoise_jax.studies.reporting import style, tables
from pnoise_jax.studies.reporting.figures import (
    Line,
    Panel,
    add_legend,
    show_percents,
    sweep_figure,
    wrapped,
)
from pnoise_jax.studies.reporting.style import (
    BATCH_VOTE,
    CLASS_SORTED,
    CLEAN,
    COLORS,
    MARKERS,
    PARTLY_SORTED,
    SHUFFLED,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAMED_CLASSES = 40  # more classes are drawn as curves instead
MAX_NAME = 16  # most letters of a class name in a figure


@style.styled
def protocols(audit: Mapping[str, Any]) -> Figure:
    """Draws clean, noisy shuffled and noisy class-sorted for each noise and batch size.

    The vertical line is clean accuracy. Dots and bars are noisy top-1 and its interval, and a
    hollow marker is batch voting in class order. The numbers on the right are the noisy top-1.
    """
    groups = tables.by_noise(audit)
    placed = _place(groups)
    height = 1.0 + 0.36 * (placed[-1][0] + 1.2)
    figure = style.new_figure(style.WIDTH, height)
    ax = figure.subplots()
    _draw_clean(ax, placed)
    _draw_dots(ax, placed)
    for y, siblings in placed:
        if siblings is groups[siblings.noise_id][0]:
            heading = ax.text(0, y - 0.65, wrapped(siblings.noise_id), weight="bold", size=10)
            heading.set_in_layout(False)  # a long one must not narrow the axes
        if siblings is groups[siblings.noise_id][-1]:
            _write_clean(ax, y, siblings)
    ax.set_yticks(
        [y for y, _ in placed], [f"batch {siblings.batch_size}" for _, siblings in placed]
    )
    ax.set_ylim(placed[-1][0] + 1.2, 0)
    ax.set_xlim(-3, 103)
    ax.set_xticks(range(0, 101, 20))
    ax.set_xlabel("top-1, %")
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    add_legend(figure, [ax])
    return figure


@style.styled
def purity(audit: Mapping[str, Any]) -> Figure:
    """Draws accuracy against the share of mates with the same label: the effect of sorting."""
    figure = sweep_figure(purity_panels(audit))
    for ax in figure.axes:
        ax.set_xlim(-3, 103)
        ax.set_xticks(range(0, 101, 20))
    return figure


@style.styled
def per_class(audit: Mapping[str, Any]) -> Figure:
    """Draws accuracy by class: one by one if there are few, as sorted curves if there are many."""
    figure = style.new_figure(style.WIDTH, 3.5)
    ax = figure.subplots()
    few = len(audit["per_class"]) <= MAX_NAMED_CLASSES
    (_draw_classes if few else _draw_class_curves)(ax, audit["per_class"])
    ax.set_ylabel("top-1, %")
    show_percents(ax)
    add_legend(figure, [ax])
    return figure


def purity_panels(audit: Mapping[str, Any]) -> list[Panel]:
    """Returns panels of the purity sweep, one per noise and batch size, from mixed to sorted."""
    sweep = [point for point in audit["purity"] if point["purity"] is not None]
    panels = []
    for (noise_id, size), points in tables.by_cell(sweep).items():
        points = sorted(points, key=lambda point: point["purity"])
        group = tables.by_noise(audit)[noise_id]
        clean = next((f.clean for f in group if f.batch_size == size), group[0].clean)
        lines = {CLEAN: _line([clean] * len(points)), PARTLY_SORTED: _line(points)}
        lines[BATCH_VOTE] = Line([point["batch_vote_top1"] for point in points])
        x = [100 * point["purity"] for point in points]
        label = "batch mates of the same label, %"
        name, _, where = noise_id.partition(" at ")  # the site goes on a second line
        panels.append(Panel(f"{name}, batch {size}\n{where}".strip(), label, x, lines))
    return panels


def _line(rows: Sequence[Mapping[str, Any]]) -> Line:
    low, high = zip(*(row["interval"] for row in rows), strict=True)
    return Line([row["top1"] for row in rows], low, high)


def _place(groups: Mapping[str, Sequence[tables.Siblings]]) -> list[tuple[float, tables.Siblings]]:
    """Assigns a y to every noise and batch size, leaving room for a heading above each noise."""
    placed, y = [], 0.0
    for name, group in groups.items():
        y += 0.9 + 0.6 * (1 + wrapped(name).count("\n"))
        placed += [(y + i, siblings) for i, siblings in enumerate(group)]
        y += len(group)
    return placed


def _draw_clean(ax: Axes, placed: Sequence[tuple[float, tables.Siblings]]) -> None:
    """Draws a vertical line at each row, and a band as wide as its interval."""
    xs, ys = [], []
    for y, siblings in placed:
        low, high = siblings.clean["interval"]
        ax.barh(y, high - low, height=1, left=low, color=COLORS[CLEAN], alpha=0.13, linewidth=0)
        xs += [siblings.clean["top1"]] * 2 + [np.nan]
        ys += [y - 0.5, y + 0.5, np.nan]
    ax.plot(xs, ys, color=COLORS[CLEAN], label=CLEAN)


def _draw_dots(ax: Axes, placed: Sequence[tuple[float, tables.Siblings]]) -> None:
    """Draws shuffled slightly above class-sorted, so equal accuracies do not hide each other."""
    for name, field, shift in ((SHUFFLED, "shuffled", -0.13), (CLASS_SORTED, "class_sorted", 0.13)):
        rows = [getattr(siblings, field) for _, siblings in placed]
        ys = [y + shift for y, _ in placed]
        low, high = zip(*(row["interval"] for row in rows), strict=True)
        ax.hlines(ys, low, high, color=COLORS[name], linewidth=2.2, alpha=0.55)
        ax.plot([row["top1"] for row in rows], ys, MARKERS[name], color=COLORS[name], label=name)
    votes = [siblings.class_sorted["batch_vote_top1"] for _, siblings in placed]
    look = {"markerfacecolor": "none", "markersize": 8, "markeredgewidth": 1.2}
    look |= {"color": COLORS[BATCH_VOTE], "label": BATCH_VOTE}
    ax.plot(votes, [y + 0.13 for y, _ in placed], MARKERS[BATCH_VOTE], **look)
    for y, siblings in placed:
        _write_numbers(ax, y, siblings)


def _write_numbers(ax: Axes, y: float, siblings: tables.Siblings) -> None:
    """Writes both noisy numbers in two columns to the right of the axes."""
    for name, row, points in (
        (SHUFFLED, siblings.shuffled, 44),
        (CLASS_SORTED, siblings.class_sorted, 86),
    ):
        ax.annotate(
            tables.number(row["top1"]),
            (1, y),
            (points, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            color=COLORS[name],
            size=10.5,
            ha="right",
            va="center_baseline",
        )


def _write_clean(ax: Axes, y: float, siblings: tables.Siblings) -> None:
    """Writes the clean number below the end of its line."""
    text = tables.number(siblings.clean["top1"])
    look = {"color": COLORS[CLEAN], "size": 10.5, "ha": "center", "va": "top"}
    ax.text(siblings.clean["top1"], y + 0.6, text, **look)


def _draw_classes(ax: Axes, classes: Sequence[Mapping[str, Any]]) -> None:
    """Draws one column per class, the highest clean accuracy first."""
    ordered = sorted(classes, key=lambda c: -c["clean"])
    x = np.arange(len(ordered))
    shuffled = [c["shuffled"] for c in ordered]
    class_sorted = [c["class_sorted"] for c in ordered]
    ax.vlines(x, shuffled, class_sorted, color=style.RULE, linewidth=3, zorder=1)
    clean = [c["clean"] for c in ordered]
    look: dict[str, Any] = {"markersize": min(14, 300 / len(ordered)), "markeredgewidth": 2.2}
    ax.plot(x, clean, "_", color=COLORS[CLEAN], label=CLEAN, **look)
    for name, values in ((SHUFFLED, shuffled), (CLASS_SORTED, class_sorted)):
        ax.plot(x, values, MARKERS[name], color=COLORS[name], label=name)
    names = [c["name"] for c in ordered]
    names = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in names]
    ax.set_xticks(x, names)
    ax.set_xlim(-0.5, len(ordered) - 0.5)  # a column for each class, with room for its name
    if not _fit(names):
        ax.tick_params(axis="x", rotation=90)
    ax.set_xlabel("class, ordered by clean accuracy")
    ax.grid(visible=False, axis="x")


def _fit(names: Sequence[str]) -> bool:
    """Returns whether horizontal names fit into columns of the figure's width."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=style.STYLE["font.family"], size=style.STYLE["xtick.labelsize"])
    column = 72 * 0.85 * style.WIDTH / len(names)  # points; the rest is left of the axes
    widths = [text_to_path.get_text_width_height_descent(n, font, ismath=False)[0] for n in names]
    return max(widths) + 4 <= column


def _draw_class_curves(ax: Axes, classes: Sequence[Mapping[str, Any]]) -> None:
    """Draws how many classes reach which accuracy; each protocol has its own order of classes."""
    x = 100 * (np.arange(len(classes)) + 0.5) / len(classes)
    for name, field in ((CLEAN, "clean"), (SHUFFLED, "shuffled"), (CLASS_SORTED, "class_sorted")):
        values = np.sort([c[field] for c in classes])
        ax.plot(x, values, color=COLORS[name], label=name, drawstyle="steps-mid")
    ax.set_xlim(0, 100)
    ax.set_xlabel(f"share of the {len(classes)} classes, each line in its own order, %")
