"""The style of all figures: a colour for each protocol, plain axes, reproducible bytes.

There is no global state: the settings apply only while a figure is drawn, and pyplot is not used.
Matplotlib is imported in the functions that draw, because most commands draw no figure.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "clean"
SHUFFLED = "noisy, shuffled"
CLASS_SORTED = "noisy, class-sorted"
PARTLY_SORTED = "noisy, partly sorted"
BATCH_VOTE = "batch vote"
RANDOM_ORDERS = "random orders"
CLASS_ORDER = "class order"
FILES_PERMUTED = "files permuted"
OWN_PREDICTIONS = "own predictions"
AS_GIVEN = "data set’s order"
MATES_CLASS = "called the class of its mates"
OTHER_CLASS = "called the other class"

# Blue and vermilion, after Okabe and Ito, stay distinct with every kind of colour blindness; the
# shapes stay distinct when printed in grey. The batch vote averages clean outputs, so it has their
# colour but is hollow. A legend lists names in this order.
COLORS = {
    CLEAN: "#26303b",
    SHUFFLED: "#0072b2",
    CLASS_SORTED: "#c25400",
    PARTLY_SORTED: "#8a5a9e",
    BATCH_VOTE: "#26303b",
    RANDOM_ORDERS: "#0072b2",
    CLASS_ORDER: "#c25400",
    FILES_PERMUTED: "#c25400",
    OWN_PREDICTIONS: "#00785a",
    AS_GIVEN: "#26303b",
    MATES_CLASS: "#c25400",
    OTHER_CLASS: "#59636f",
}
MARKERS = {
    SHUFFLED: "o",
    CLASS_SORTED: "s",
    PARTLY_SORTED: "o",
    BATCH_VOTE: "D",
    RANDOM_ORDERS: "o",
    CLASS_ORDER: "s",
    FILES_PERMUTED: "s",
    OWN_PREDICTIONS: "^",
    AS_GIVEN: "X",
    MATES_CLASS: "s",
    OTHER_CLASS: "o",
}
INK, MUTED, RULE, PAPER = "#1b232c", "#59636f", "#d8dde3", "#ffffff"

WIDTH = 6.0  # inches; 10-point letters are then still legible on a phone

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "figure.facecolor": PAPER,
    "figure.dpi": 72,
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same figure on every machine
    "font.size": 11,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.fontsize": 10.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",  # letters as shapes: they fit wherever the file is opened
    "svg.hashsalt": "pnoise_jax",
    "text.color": INK,
    "text.parse_math": False,  # names come from data; a $ in them is a $
    "xtick.color": MUTED,
    "xtick.labelsize": 10,
    "ytick.color": MUTED,
    "ytick.labelsize": 10,
    "ytick.major.size": 0,
}

_Arguments = ParamSpec("_Arguments")
_Drawn = TypeVar("_Drawn")


def styled(draw: Callable[_Arguments, _Drawn]) -> Callable[_Arguments, _Drawn]:
    """Decorates a function to draw in this style, whatever the user's own settings are."""

    @functools.wraps(draw)
    def draw_styled(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Drawn:
        import matplotlib.style

        with matplotlib.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return draw_styled


def new_figure(width: float, height: float, **spacing: Any) -> Figure:
    """Creates a figure that arranges its axes itself.

    Args:
      width: width in inches.
      height: height in inches.
      spacing: options of matplotlib's ``ConstrainedLayoutEngine``, such as the space between axes.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**spacing))


def svg(figure: Figure) -> bytes:
    """Returns the figure as SVG; the same figure gives the same bytes, as it contains no date."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    return _save(figure, format="svg", metadata=nothing)


def png(figure: Figure) -> bytes:
    """Returns the figure as PNG, 200 pixels an inch; the same figure gives the same bytes."""
    return _save(figure, format="png", dpi=200, metadata={"Software": None})


@styled
def _save(figure: Figure, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()
