"""Figures of the evidence for a verdict: accuracies by order, and effects of interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pnoise_jax.counting import counted
from pnoise_jax.studies.reporting import prose, style, tables
from pnoise_jax.studies.reporting.figures import add_legend, wrapped
from pnoise_jax.studies.reporting.style import (
    AS_GIVEN,
    CLASS_ORDER,
    CLEAN,
    COLORS,
    FILES_PERMUTED,
    MARKERS,
    MATES_CLASS,
    OTHER_CLASS,
    OWN_PREDICTIONS,
    RANDOM_ORDERS,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

ORDERS = {  # by their names in audit.json
    "shuffled": RANDOM_ORDERS,
    "class_sorted": CLASS_ORDER,
    "class_sorted, files permuted": FILES_PERMUTED,
    "sorted by own clean predictions": OWN_PREDICTIONS,
    "as given": AS_GIVEN,
}
LEAST_WIDTH = 4.0  # points of top-1 that an axis spans at least, so rounding does not look large


@style.styled
def orders(audit: Mapping[str, Any]) -> Figure:
    """Draws accuracies in random orders as dots, and those of other orders for comparison.

    Each noise has its own axes and range; each batch size has one strip in them.
    """
    by_noise: dict[str, dict[int, Rows]] = {}
    for (noise_id, size), rows in tables.by_cell(audit["orders"]).items():
        by_noise.setdefault(noise_id, {})[size] = rows
    clean = {noise_id: group[0].clean for noise_id, group in tables.by_noise(audit).items()}
    strips = [len(sizes) for sizes in by_noise.values()]
    height = 1.1 + sum(0.85 + 0.52 * count for count in strips)
    figure = style.new_figure(style.WIDTH, height, h_pad=0.08, hspace=0.06)
    axes = figure.subplots(len(strips), squeeze=False, height_ratios=[0.6 + c for c in strips])
    for ax, (noise_id, sizes) in zip(axes[:, 0], by_noise.items(), strict=True):
        ax.axvline(clean[noise_id]["top1"], color=COLORS[CLEAN], label=CLEAN)
        for y, rows in enumerate(sizes.values()):
            _draw_strip(ax, y, rows)
        _show_range(ax, [clean[noise_id]["top1"], *_values(sizes.values())])
        ax.set_yticks(range(len(sizes)), [f"batch {size}" for size in sizes])
        ax.set_ylim(len(sizes) - 0.45, -0.55)
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
        ax.set_title(wrapped(noise_id), weight="bold")
    axes[-1, 0].set_xlabel("top-1, %")
    add_legend(figure, axes[:, 0], columns=3)
    return figure


@style.styled
def interventions(audit: Mapping[str, Any]) -> Figure:
    """Draws how often targets are called the class of their mates, and the pair's other class."""
    groups = tables.by_cell(audit["interventions"])
    shown = [(f["noise_id"], f["batch_size"]) for f in audit["findings"]]
    placed, headings, y = [], [], 0.0
    for cell in shown:
        if cell not in groups:
            continue
        mates = counted(groups[cell][0]["mates"], "mate")
        heading = f"{wrapped(cell[0])}\nbatch {cell[1]}, {mates}"
        y += 0.9 + 0.65 * (1 + heading.count("\n"))
        headings.append((y - 0.65, heading))
        placed += [(y + i, row) for i, row in enumerate(groups[cell])]
        y += len(groups[cell])
    figure = style.new_figure(style.WIDTH, 1.1 + 0.31 * (y + 0.3))
    ax = figure.subplots()
    _draw_pulls(ax, placed)
    for at, heading in headings:
        ax.text(0, at, heading, weight="bold", size=10).set_in_layout(False)
    ax.set_yticks([at for at, _ in placed], [prose.target(row) for _, row in placed])
    ax.set_ylim(y, 0)
    ax.set_xlim(-3, 103)
    ax.set_xticks(range(0, 101, 20))
    ax.set_xlabel("batches, %")
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    add_legend(figure, [ax])
    return figure


def _draw_strip(ax: Axes, y: float, rows: Rows) -> None:
    """Draws random orders above the middle, and the other orders below it in separate lanes."""
    lanes = {"class_sorted": 0.1, "class_sorted, files permuted": 0.1, "as given": 0.1}
    for row in rows:
        order: str = row["order"]
        name, values = ORDERS.get(order, order), np.array(row["top1_by_order"])
        color = COLORS.get(name, style.MUTED)
        look = {"color": color, "label": name, "clip_on": False}
        marker = MARKERS.get(name, "d")
        at = np.full(len(values), y + lanes.get(order, 0.26))
        if name == RANDOM_ORDERS:
            at = y - 0.2 + 0.14 * np.resize([-1, 0, 1, -0.5, 0.5], len(values))
            ax.hlines(y - 0.2, row["lowest"], row["highest"], color=color, alpha=0.25, linewidth=9)
            look |= {"markersize": 3.5, "alpha": 0.7}
        elif name == FILES_PERMUTED:
            look |= {"markersize": 6, "markerfacecolor": "none", "markeredgewidth": 0.9}
        elif name == OWN_PREDICTIONS:
            look |= {"markersize": 5, "alpha": 0.8}
        ax.plot(values, at, marker, **look)


def _values(groups) -> list[float]:
    return [value for rows in groups for row in rows for value in row["top1_by_order"]]


def _show_range(ax: Axes, values: Sequence[float]) -> None:
    """Limits the x axis to the part of 0 to 100 % that is needed."""
    low, high = min(values), max(values)
    width = max(1.12 * (high - low), LEAST_WIDTH)
    start = np.clip((low + high - width) / 2, -0.5, 100.5 - width) if width < 101 else -0.5
    ax.set_xlim(start, min(start + width, 100.5))


def _draw_pulls(ax: Axes, placed: Sequence[tuple[float, Mapping[str, Any]]]) -> None:
    ys = [y for y, _ in placed]
    ends = {key: [row[key] for _, row in placed] for key in ("called", "called_other")}
    ax.hlines(ys, ends["called_other"], ends["called"], color=style.RULE, linewidth=3, zorder=1)
    hollow = {"markerfacecolor": "none", "markersize": 10, "markeredgewidth": 1.4}
    for name, key, look in ((OTHER_CLASS, "called_other", hollow), (MATES_CLASS, "called", {})):
        ax.plot(ends[key], ys, MARKERS[name], color=COLORS[name], label=name, **look)
    for y, row in placed:
        ax.annotate(
            f"{tables.signed(row['logit'], 2)} sd",
            (1, y),
            (62, 0),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            size=10.5,
            ha="right",
            va="center_baseline",
        )
