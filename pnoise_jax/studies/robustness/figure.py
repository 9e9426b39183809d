"""The figure: a panel for each kind of perturbation, and a line with an interval for each arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pnoise_jax.robustness import KINDS
from pnoise_jax.studies.reporting import style
from pnoise_jax.studies.robustness.summary import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "gaussian": "Gaussian",
    "salt_and_pepper": "salt-and-pepper",
    "fgsm": "FGSM",
    "pgd": "PGD",
}
AXES = {
    "gaussian": "standard deviation",
    "salt_and_pepper": "probability",
    "fgsm": "epsilon",
    "pgd": "epsilon",
}
_COLORS = ("#26303b", "#0072b2", "#00785a", "#c25400", "#8a5a9e", "#59636f")
_MARKERS = "os^DvP"


@style.styled
def curves_figure(points: Sequence[Point], title: str) -> Figure:
    """Draws accuracy against strength, dashed beyond the strength in an arm's training.

    Args:
      points: the points of all arms and kinds.
      title: title of the figure.
    """
    arms = list(dict.fromkeys(point.arm for point in points))
    figure = style.new_figure(style.WIDTH * 1.25, 6.4)
    axes = figure.subplots(2, 2, sharey=True).ravel()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    for ax, kind in zip(axes, KINDS, strict=True):
        ax.set_title(TITLES[kind])
        of_pixels = "" if kind == "salt_and_pepper" else ", pixels from 0 to 1"
        ax.set_xlabel(f"{AXES[kind]}{of_pixels}")
        ax.set_ylim(0, 100)
        for number, arm in enumerate(arms):
            curve = [p for p in points if (p.arm, p.kind) == (arm, kind)]
            _draw(ax, curve, _COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)])
    for ax in axes[::2]:
        ax.set_ylabel("accuracy, %")
    handles = [
        axes[0].plot([], [], f"{_MARKERS[n % len(_MARKERS)]}-", color=_COLORS[n % len(_COLORS)])[0]
        for n in range(len(arms))
    ]
    names = [arm.replace("_", " ") for arm in arms]
    figure.legend(handles, names, loc="outside lower left", ncols=min(3, len(arms)))
    return figure


def _draw(ax: Axes, curve: Sequence[Point], color: str, marker: str) -> None:
    x = [p.strength for p in curve]
    ax.fill_between(
        x, [p.low for p in curve], [p.high for p in curve], color=color, alpha=0.15, linewidth=0
    )
    known = sum(not p.beyond for p in curve)
    y = [p.accuracy for p in curve]
    ax.plot(x[:known], y[:known], "-", color=color)
    ax.plot(x[known - 1 :], y[known - 1 :], "--", color=color)
    ax.plot(x, y, marker, color=color, markersize=5)
