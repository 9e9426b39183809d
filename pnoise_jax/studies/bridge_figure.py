"""The bridge's figure: leak against drop, with a column for each data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pnoise_jax.studies.bridge import Model
from pnoise_jax.studies.reporting import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLAIMED = (9, 11)  # points over clean: the paper's 84 and 86 % to 95 %
_LEAKS = {
    "over_clean": "class-sorted minus clean, points",
    "over_shuffled": "class-sorted minus shuffled, points",
}
_COLORS = {"token": style.INK, "mean": "#8a5a9e", "mean_then_norm": "#00785a"}
_HEADS = {
    "token": "head on the class token",
    "mean": "head on the mean of tokens",
    "mean_then_norm": "head on the norm of their mean",
}
_MARKERS = "osD^vP"


@style.styled
def bridge_figure(models: Mapping[str, Sequence[Model]]) -> Figure:
    """Draws two rows of panels: the leak over clean, with the paper's claim, and over shuffled.

    Args:
      models: the models by data set; at least one data set, with at least one model each.
    """
    figure = style.new_figure(style.WIDTH * 1.25, 6.6, wspace=0.06, hspace=0.06)
    axes = figure.subplots(2, len(models), sharex="col", sharey="row", squeeze=False)
    depths = sorted({model.depth for group in models.values() for model in group})
    markers = {depth: _MARKERS[i % len(_MARKERS)] for i, depth in enumerate(depths)}
    for row, (leak, label) in zip(axes, _LEAKS.items(), strict=True):
        row[0].set_ylabel(label)
        for ax, group in zip(row, models.values(), strict=True):
            _draw_models(ax, group, leak, markers)
    for ax, (name, group) in zip(axes[0], models.items(), strict=True):
        ax.set_title(f"{name}: {len(group)} trainings")
        ax.axhspan(*CLAIMED, color="#c25400", alpha=0.22, linewidth=0)
    for ax in axes[1]:
        ax.set_xlabel("clean minus erased, points")
    there = {model.pooling for group in models.values() for model in group}
    _add_legends(figure, markers, [pooling for pooling in _HEADS if pooling in there])
    return figure


def _draw_models(ax: Axes, models: Sequence[Model], leak: str, markers: Mapping[int, str]) -> None:
    ax.axhline(0, color=style.MUTED, linewidth=0.8)
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    for model in models:
        ax.plot(
            model.drop,
            getattr(model, leak),
            markers[model.depth],
            color=_COLORS[model.pooling],
            markersize=5,
            markeredgewidth=0,
            alpha=0.65,
        )


def _add_legends(figure: Figure, markers: Mapping[int, str], poolings: Sequence[str]) -> None:
    """Explains the colours, the band and the markers of the depths."""
    from matplotlib.lines import Line2D

    claimed = Line2D([], [], color="#c25400", alpha=0.3, linewidth=8)
    heads = [Line2D([], [], color=_COLORS[p], marker="o", linestyle="") for p in poolings]
    names = [*(_HEADS[p] for p in poolings), "the paper's gain"]
    figure.legend([*heads, claimed], names, loc="outside upper left", ncols=3, columnspacing=1.2)
    depths = [Line2D([], [], color=style.MUTED, marker=m, linestyle="") for m in markers.values()]
    names = [f"{depth} block{'' if depth == 1 else 's'}" for depth in markers]
    figure.legend(depths, names, loc="outside lower left", ncols=len(names), columnspacing=1.2)
