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
_LEFT, _RIGHT = 1.62, 0.2  # inches, as all sizes here
_HEAD, _LEGEND, _ROW, _AXIS = 0.86, 0.34, 0.44, 0.75
_COLUMNS, _PANEL = 4, 1.15
_MARKERS = "osD^vP*X"
_FLOOR = 1e-3  # of the largest clean singular value; below is rounding


@style.styled
def latent_figure(shown: Shown, site: ShownSite) -> Figure:
    """Norms and cosines above, singular values below."""
    strengths, names = shown.settings.strengths, [each.title for each in shown.noises]
    rows = math.ceil(len(names) / _COLUMNS)
    dots = _ROW * len(names)
    spectra = rows * (_PANEL + 0.42) + 0.65
    height = _HEAD + _LEGEND + 0.3 + dots + _AXIS + spectra
    figure = Figure(figsize=(_WIDTH, height))
    y = lambda inches: 1 - inches / height  # noqa: E731
    figure.text(0.15 / _WIDTH, y(0.12), _title(site), fontsize=12, va="top")
    text = _explanation(shown, site)
    figure.text(0.15 / _WIDTH, y(0.38), text, fontsize=9, va="top", color=style.MUTED)
    _add_legend(figure, strengths, y(_HEAD))
    top = _HEAD + _LEGEND + 0.3
    panel = (_WIDTH - _LEFT - _RIGHT - 0.3) / 2
    by_noise = [site.noisy[i : i + len(strengths)] for i in range(0, len(site.noisy), len(strengths))]
    for column, measure in enumerate(("norm", "cosine")):
        left = _LEFT + column * (panel + 0.3)
        place = (left / _WIDTH, y(top + dots), panel / _WIDTH, dots / height)
        _draw_dots(figure.add_axes(place), by_noise, measure, names if column == 0 else None)
    top += dots + _AXIS
    figure.text(0.15 / _WIDTH, y(top - 0.1), _SPECTRA.format(k=site.k), fontsize=10, va="top")
    width = (_WIDTH - 0.62 - _RIGHT - 0.16 * (_COLUMNS - 1)) / _COLUMNS
    for number, (name, group) in enumerate(zip(names, by_noise, strict=True)):
        row, column = divmod(number, _COLUMNS)
        left = 0.62 + column * (width + 0.16)
        bottom = top + 0.45 + row * (_PANEL + 0.42) + _PANEL
        place = (left / _WIDTH, y(bottom), width / _WIDTH, _PANEL / height)
        ax = figure.add_axes(place)
        _draw_spectra(ax, site, group)
        ax.set_title(shorten(name, 22), fontsize=9.5, pad=3)
        if column:
            ax.tick_params(labelleft=False)
        if number + _COLUMNS < len(names):
            ax.tick_params(labelbottom=False)
    return figure


_SPECTRA = "Singular values of a batch of k = {k} images by features, in descending order"


def _title(site: ShownSite) -> str:
    return f"What noise does at the {site.site.title}"


def _explanation(shown: Shown, site: ShownSite) -> str:
    shape = " × ".join(map(str, site.shape))
    batches = site.examples // site.k
    sections = ", ".join(f"config.{name}" for name in site.site.sections)
    where = f"where {sections} enters" if sections else "no noise in this config: the last block"
    lines = (
        f"{site.examples} images of {shown.data} in {batches} batch{'es' * (batches > 1)} of "
        f"k = {site.k}; {shape} numbers each, median norm {site.norm:.3g}; {where}.",
        shorten(shown.weights[0].upper() + shown.weights[1:], 100)
        + ". Bars: quartiles over the images.",
    )
    return "\n".join(lines)


def _color(number: int, count: int):
    """From light to dark with the strength; distinct with every kind of colour blindness."""
    share = 0.5 if count == 1 else number / (count - 1)
    return mpl.colormaps["viridis"](0.72 * (1 - share))


def _add_legend(figure: Figure, strengths: Sequence[float], top: float) -> None:
    count = len(strengths)
    handles = [Line2D([], [], color=style.INK, linestyle="--", linewidth=1.2, label="clean")]
    for number, strength in enumerate(strengths):
        look = {"color": _color(number, count), "marker": _MARKERS[number]}
        handles.append(Line2D([], [], **look, linewidth=1.4, label=f"{strength:g}"))
    figure.legend(
        handles=handles,
        title="strength:",
        title_fontsize=10,
        alignment="left",
        loc="upper left",
        bbox_to_anchor=(0.0, top + 0.004),
        ncols=count + 1,
        fontsize=10,
        columnspacing=1.2,
        handlelength=2.2,
        borderpad=0.2,
        borderaxespad=0.4,
    )


def _draw_dots(
    ax: Axes,
    by_noise: Sequence[Sequence[NoisyRepresentation]],
    measure: str,
    names: Sequence[str] | None,
) -> None:
    """A line for each noise; on it a dot and a bar for each strength."""
    for row, group in enumerate(by_noise):
        for number, noisy in enumerate(group):
            y = row + 0.5 * ((number + 0.5) / len(group) - 0.5)
            quartiles: Quartiles | None = getattr(noisy, measure)
            look = {"color": _color(number, len(group)), "marker": _MARKERS[number]}
            if quartiles is None:
                continue
            ax.plot((quartiles.low, quartiles.high), (y, y), color=look["color"], linewidth=1.6)
            ax.plot(quartiles.median, y, **look, markersize=5.5, clip_on=False)
        absent = _say_absent(group, measure)
        if absent:
            ax.text(
                0.03, row, absent, fontsize=8, color=style.MUTED, va="center",
                transform=ax.get_yaxis_transform(),
            )  # fmt: skip
    ax.axvline(1, color=style.INK, linewidth=1.2, linestyle="--", zorder=0.5)
    ax.set_ylim(len(by_noise) - 0.5, -0.5)
    ax.set_yticks(range(len(by_noise)), [shorten(n, 20) for n in names] if names else [])
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


def _scale_norms(ax: Axes, by_noise: Sequence[Sequence[NoisyRepresentation]]) -> None:
    """Linear from 0; logarithmic where something is much larger than clean."""
    highest = max((n.norm.high for g in by_noise for n in g if n.norm), default=1.0)
    if highest <= 6:
        ax.set_xlim(-0.04 * highest, 1.08 * max(1.0, highest))
    else:
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(-0.06, 1.6 * highest)
        ticks = [0, 1, *(10**n for n in range(1, math.ceil(math.log10(highest)) + 1))]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def _say_absent(group: Sequence[NoisyRepresentation], measure: str) -> str:
    texts = []
    for noisy in group:
        if noisy.missing is not None and measure == "norm":
            texts.append(f"no strength {noisy.strength:g}")
        elif noisy.missing is None and getattr(noisy, measure) is None:
            texts.append(f"strength {noisy.strength:g}: no direction, all zero")
    return "; ".join(texts)


def _draw_spectra(ax: Axes, site: ShownSite, group: Sequence[NoisyRepresentation]) -> None:
    """Clean, and at each strength, on a logarithmic scale that begins where rounding ends."""
    clean = np.asarray(site.spectrum)
    floor = _FLOOR * clean[0]
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
    ax.minorticks_off()
    ax.set_xticks(sorted({1, len(clean)} | ({(len(clean) + 1) // 2} if len(clean) > 4 else set())))
