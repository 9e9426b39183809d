"""The figure of noisy representations at one site: norms, cosines, spectra."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pnoise_jax.studies.reporting import style
from pnoise_jax.studies.showing.measuring import NoisyRepresentation, Quartiles
from pnoise_jax.studies.showing.study import Shown, ShownSite
from pnoise_jax.studies.showing.wording import shorten

_WIDTH = 1.25 * style.WIDTH
_LEFT, _RIGHT = 1.62, 0.2  # inches, like all sizes here
_HEAD, _LEGEND, _ROW, _AXIS = 0.98, 0.34, 0.46, 0.8
_MARGIN, _SCALE = 0.15, 0.62
_COLUMNS, _PANEL, _BETWEEN = 4, 1.15, 0.42
_MARKERS = "osD^vP*X"
_FLOOR = 1e-3  # relative to the largest clean singular value; anything below is rounding error

_Group = Sequence[NoisyRepresentation]  # of one noise, by strength


@style.styled
def latent_figure(shown: Shown, site: ShownSite) -> Figure:
    """Draws norms and cosines above, singular values below."""
    strengths = shown.settings.strengths
    starts = range(0, len(site.noisy), len(strengths))
    by_noise = [site.noisy[i : i + len(strengths)] for i in starts]
    columns = min(_COLUMNS, math.ceil(len(by_noise) / 2))
    top = _HEAD + _LEGEND + 0.1
    middle = top + _ROW * len(by_noise) + _AXIS
    height = middle + math.ceil(len(by_noise) / columns) * (_PANEL + _BETWEEN) + 0.72
    figure = Figure(figsize=(_WIDTH, height))
    _write(figure, 0.12, f"What noise does at the {site.site.title}", 12)
    _write(figure, 0.38, _explanation(shown, site), 9, color=style.MUTED)
    _add_legend(figure, strengths, 1 - _HEAD / height)
    width = (_WIDTH - _LEFT - _RIGHT - 0.3) / 2
    for column, measure in enumerate(("norm", "cosine")):
        left = _LEFT + column * (width + 0.3)
        ax = _add_axes(figure, left, top, width, _ROW * len(by_noise))
        _draw_dots(ax, by_noise, measure, named=column == 0)
    _write(figure, middle - 0.1, _SPECTRA.format(k=site.k), 10)
    _add_spectra(figure, site, by_noise, middle + 0.45, columns)
    return figure


def _add_spectra(
    figure: Figure, site: ShownSite, by_noise: Sequence[_Group], top: float, columns: int
) -> None:
    """Draws a panel for each noise."""
    width = (_WIDTH - _SCALE - _RIGHT - 0.16 * (columns - 1)) / columns
    for number, group in enumerate(by_noise):
        row, column = divmod(number, columns)
        left = _SCALE + column * (width + 0.16)
        ax = _add_axes(figure, left, top + row * (_PANEL + _BETWEEN), width, _PANEL)
        _draw_spectra(ax, site, group)
        ax.set_title(shorten(group[0].shown.title, 26 if columns < _COLUMNS else 20), pad=3)
        if column:
            ax.tick_params(labelleft=False)
        if number + columns < len(by_noise):
            ax.tick_params(labelbottom=False)
        else:
            ax.set_xlabel("number", fontsize=9)


def _write(figure: Figure, top: float, text: str, size: float, **options) -> None:
    """Writes text at the left margin, ``top`` inches below the upper edge of the figure."""
    height = figure.get_size_inches()[1]
    figure.text(_MARGIN / _WIDTH, 1 - top / height, text, fontsize=size, va="top", **options)


def _add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes at a position in inches from the upper left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


_SPECTRA = "Singular values of a batch of k = {k} images by features, in descending order"


def _explanation(shown: Shown, site: ShownSite) -> str:
    shape = " × ".join(map(str, site.shape))
    batches = site.examples // site.k
    sections = ", ".join(f"config.{name}" for name in site.site.sections)
    where = f"where {sections} enters" if sections else "no noise in this config: the last block"
    lines = (
        f"{site.examples} images of {shorten(shown.data, 50)} in {batches} "
        f"batch{'es' * (batches > 1)} of k = {site.k}; {shorten(where, 60)}.",
        shorten(shown.weights[0].upper() + shown.weights[1:], 95) + ".",
        f"{shape} numbers an image, median norm {site.norm:.3g}. Markers: medians over the images; "
        "bars: quartiles.",
    )
    return "\n".join(lines)


def _color(number: int, count: int):
    """Returns a colour, darker for stronger noise; distinct for all kinds of colour blindness."""
    share = 0.5 if count == 1 else number / (count - 1)
    return mpl.colormaps["viridis"](0.72 * (1 - share))


def _add_legend(figure: Figure, strengths: Sequence[float], top: float) -> None:
    count = len(strengths)
    title = Line2D([], [], linestyle="", label="strength")
    handles = [Line2D([], [], color=style.INK, linestyle="--", linewidth=1.2, label="clean"), title]
    for number, strength in enumerate(strengths):
        look = {"color": _color(number, count), "marker": _MARKERS[number]}
        handles.append(Line2D([], [], **look, linewidth=1.4, label=f"{strength:g}"))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.15 / _WIDTH, top),
        ncols=len(handles),
        fontsize=10 if count < 6 else 9,
        columnspacing=1.0,
        handlelength=1.8,
        borderpad=0,
        borderaxespad=0,
    )


def _draw_dots(
    ax: Axes,
    by_noise: Sequence[_Group],
    measure: str,
    *,
    named: bool,
) -> None:
    """Draws a row for each noise, with a marker and a bar for each strength."""
    for row, group in enumerate(by_noise):
        _draw_row(ax, row, group, measure)
    ax.axvline(1, color=style.INK, linewidth=1.2, linestyle="--", zorder=0.5)
    ax.set_ylim(len(by_noise) - 0.5, -0.5)
    names = [_name(group) if named else "" for group in by_noise]
    ax.set_yticks(range(len(by_noise)), names)
    for boundary in range(1, len(by_noise)):
        ax.axhline(boundary - 0.5, color=style.RULE, linewidth=0.7)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", labelcolor=style.INK)
    if measure == "norm":
        _scale_norms(ax, by_noise)
        ax.set_xlabel("norm, relative to clean")
    else:
        low = min((n.cosine.low for g in by_noise for n in g if n.cosine), default=0.0)
        ax.set_xlim(min(-0.05, 1.1 * low), 1.06)
        ax.set_xlabel("cosine to clean")


def _draw_row(ax: Axes, row: int, group: _Group, measure: str) -> None:
    """Draws the row of one noise, with a note on strengths that have no value."""
    for number, noisy in enumerate(group):
        y = row + 0.7 * ((number + 0.5) / len(group) - 0.5)
        quartiles: Quartiles | None = getattr(noisy, measure)
        if quartiles is not None:
            color = _color(number, len(group))
            ax.plot((quartiles.low, quartiles.high), (y, y), color=color, linewidth=1.6)
            marker = _MARKERS[number]
            ax.plot(quartiles.median, y, marker, color=color, markersize=5.5, clip_on=False)
    zero = [f"{n.strength:g}" for n in group if n.missing is None and getattr(n, measure) is None]
    if zero:
        where = {"transform": ax.get_yaxis_transform(), "va": "center", "zorder": 1}
        text = f"strength {', '.join(zero)}: zero, so no direction"
        ax.text(0.03, row + 0.28, text, fontsize=8, color=style.MUTED, **where)


def _name(group: _Group) -> str:
    """Returns the name of a noise, and below it the strengths that it cannot have."""
    missing = ", ".join(f"{noisy.strength:g}" for noisy in group if noisy.missing is not None)
    name = shorten(group[0].shown.title, 20)
    return name + (f"\n(not at {shorten(missing, 10)})" if missing else "")


def _scale_norms(ax: Axes, by_noise: Sequence[_Group]) -> None:
    """Scales the axis linearly from 0, or logarithmically if a norm is much larger than clean."""
    highest = max((n.norm.high for g in by_noise for n in g if n.norm), default=1.0)
    if highest <= 6:
        ax.set_xlim(-0.04 * highest, 1.08 * max(1.0, highest))
    else:
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(-0.06, 1.6 * highest)
        ticks = [0, 1, *(10**n for n in range(1, math.ceil(math.log10(highest)) + 1))]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()


def _floor(site: ShownSite) -> float:
    """Returns the lower end of the scale: below all singular values but above rounding errors."""
    spectra = [site.spectrum, *(noisy.spectrum for noisy in site.noisy)]
    rounding = _FLOOR * site.spectrum[0]
    lowest = min((v for values in spectra for v in values if v > rounding), default=rounding)
    return max(rounding, lowest / 3)


def _draw_spectra(ax: Axes, site: ShownSite, group: _Group) -> None:
    """Draws the clean spectrum and that of each strength, on a logarithmic scale."""
    clean = np.asarray(site.spectrum)
    floor = _floor(site)
    x = np.arange(1, len(clean) + 1)
    ax.set_yscale("log")
    few = len(clean) <= 20
    for number, noisy in enumerate(group):
        values = np.asarray(noisy.spectrum)
        if len(values) and values[0] > floor:
            color = _color(number, len(group))
            marker = {"marker": _MARKERS[number], "markersize": 3.2} if few else {}
            ax.plot(x, np.maximum(values, floor / 10), color=color, linewidth=1.4, **marker)
    ax.plot(x, np.maximum(clean, floor / 10), color=style.INK, linestyle="--", linewidth=1.2)
    everything = [clean[0], *(n.spectrum[0] for n in site.noisy if n.spectrum)]
    ax.set_ylim(floor, 2 * max(everything))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    zero = [n.strength for n in group if n.spectrum and n.spectrum[0] <= floor]
    if zero:
        text = f"strength {', '.join(f'{s:g}' for s in zero)}: all zero"
        ax.text(0.04, 0.05, text, fontsize=8, color=style.MUTED, transform=ax.transAxes)
    ax.set_xticks(sorted({1, len(clean)} | ({(len(clean) + 1) // 2} if len(clean) > 4 else set())))
