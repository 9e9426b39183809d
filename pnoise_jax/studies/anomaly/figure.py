"""The ROC curves of anomaly detection: a panel for each held-out class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pnoise_jax.studies.anomaly.study import Detection
from pnoise_jax.studies.reporting import style
from pnoise_jax.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 5
_ERROR, _NEAREST = "#0072b2", "#c25400"


@style.styled
def roc_figure(detections: Sequence[Detection]) -> Figure:
    """Draws the curves of the reconstruction error and of the nearest training image.

    Args:
      detections: at least one.
    """
    columns = min(_COLUMNS, len(detections))
    rows = math.ceil(len(detections) / columns)
    width = style.WIDTH if columns > 1 else style.WIDTH / 2
    figure = style.new_figure(width, 1.1 + rows * width / columns, wspace=0.04, hspace=0.04)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(detections) :]:
        ax.set_axis_off()
    for ax, each in zip(axes.flat, detections, strict=False):
        _draw(ax, each)
    figure.supxlabel("false positives, share", fontsize=10.5, color=style.MUTED)
    figure.supylabel("true positives, share", fontsize=10.5, color=style.MUTED)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=1)
    return figure


def _draw(ax: Axes, detection: Detection) -> None:
    ax.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8)
    if (nearest := detection.nearest) is not None:
        ax.plot(
            nearest.false_positive_rate,
            nearest.true_positive_rate,
            "--",
            color=_NEAREST,
            label="distance to the nearest training image",
        )
    curve = detection.curve
    ax.plot(
        curve.false_positive_rate,
        curve.true_positive_rate,
        color=_ERROR,
        label="reconstruction error",
    )
    ax.set_aspect("equal")
    ax.set_xticks([0, 1])
    ax.set_yticks([0, 1])
    names = printable(", ".join(detection.held_out))
    ax.set_title(f"{names[:12]}{'…' * (len(names) > 12)}: {curve.auroc:.3f}")
