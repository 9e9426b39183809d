"""Figures of accuracies against swept values, and helpers that all figures share."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pnoise_jax.studies.reporting import style
from pnoise_jax.studies.reporting.style import BATCH_VOTE, COLORS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Line:
    """Accuracies at a panel's x values.

    Attributes:
      mean: top-1 in percent, one per x value.
      low: lower end of the interval in percent; None draws no band.
      high: upper end of the interval in percent.
    """

    mean: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes of `sweep_figure`.

    Attributes:
      title: the title above the axes.
      x_label: what was swept, with its unit.
      x: the values swept.
      lines: the lines by name. A name is a key of `style.COLORS`, such as "clean", "noisy,
        shuffled", "noisy, class-sorted", "noisy, partly sorted" or "batch vote", and has the same
        colour in all figures.
    """

    title: str
    x_label: str
    x: Sequence[float]
    lines: Mapping[str, Line]

    def __post_init__(self):
        for name, line in self.lines.items():
            if name not in COLORS:
                raise ValueError(
                    f"line {name!r} of panel {self.title!r}: use one of the names {[*COLORS]}"
                )
            for values in (line.mean, line.low, line.high):
                if values is not None and len(values) != len(self.x):
                    raise ValueError(
                        f"line {name!r} of panel {self.title!r} has {len(values)} values for "
                        f"{len(self.x)} x values: give one for each"
                    )


@style.styled
def sweep_figure(panels: Sequence[Panel]) -> Figure:
    """Draws accuracy against swept numbers, like figure 2 of the paper but with bands.

    Args:
      panels: the panels, drawn two to a row; all have the same y axis.

    Raises:
      ValueError: there are no panels.
    """
    if not panels:
        raise ValueError("panels=[]: give at least one panel")
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = style.new_figure(style.WIDTH, 0.5 + 2.9 * rows, wspace=0.06, hspace=0.06)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax, panel in zip(axes.flat, panels, strict=False):
        _draw_panel(ax, panel)
        wrapped = (textwrap.fill(line, 68 // columns) for line in panel.title.splitlines())
        ax.set_title("\n".join(wrapped))
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax in axes[:, 0]:
        ax.set_ylabel("top-1, %")
    add_legend(figure, axes.flat[: len(panels)])
    return figure


def show_percents(ax: Axes) -> None:
    ax.set_ylim(-4, 104)  # room for the marks at 0 and 100
    ax.set_yticks(range(0, 101, 20))


def wrapped(noise_id: str) -> str:
    """Wraps the name of a noise into lines that fit above its rows."""
    return textwrap.fill(noise_id, 52)


def add_legend(figure: Figure, axes: Iterable[Axes], columns: int = 4) -> None:
    """Adds one legend above all axes, with each name once, in the order of `COLORS`."""
    handles = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    names = [name for name in COLORS if name in handles]
    figure.legend(
        [handles[name] for name in names],
        names,
        loc="outside upper left",
        ncols=min(len(names), columns),
        handletextpad=0.5,
        columnspacing=1.4,
        handlelength=1.6,
    )


def _draw_panel(ax: Axes, panel: Panel) -> None:
    for name, line in panel.lines.items():
        look = {"marker": MARKERS.get(name), "markersize": 5}
        if name == BATCH_VOTE:
            look = {"linestyle": (0, (3, 2)), "linewidth": 1.4}
        ax.plot(panel.x, line.mean, color=COLORS[name], label=name, **look)
        if line.low is not None and line.high is not None:
            ax.fill_between(
                panel.x, line.low, line.high, color=COLORS[name], alpha=0.16, linewidth=0
            )
    ax.set_xlabel(panel.x_label)
    show_percents(ax)
    if all(float(x).is_integer() for x in panel.x):  # there is no layer 2.5
        from matplotlib.ticker import FixedLocator, MaxNLocator

        few = len(panel.x) <= 8
        ax.xaxis.set_major_locator(
            FixedLocator(panel.x) if few else MaxNLocator(nbins=6, integer=True)
        )
