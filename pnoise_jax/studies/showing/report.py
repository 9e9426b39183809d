"""The numbers that are shown: tables for the terminal, rows for CSV, and everything for JSON."""

import dataclasses
from typing import Any

from rich.table import Table

from pnoise_jax.studies.reporting.tables import MISSING, number
from pnoise_jax.studies.showing.measuring import NoisyImages, NoisyRepresentation, Quartiles
from pnoise_jax.studies.showing.study import Shown, ShownSite
from pnoise_jax.studies.showing.wording import in_config

COLUMNS = ("place", "noise", "config", "strength", "k", "missing")
COLUMNS += ("change", "clipped")
COLUMNS += tuple(f"{m}_{q}" for m in ("norm", "cosine") for q in ("low", "median", "high"))


def rows(shown: Shown) -> list[dict[str, Any]]:
    """Returns a row for each place, noise and strength, with the keys of `COLUMNS`.

    ``change`` is the root mean square of the pixels' differences in grey levels of 255. ``clipped``
    is the share of values that were clipped. Norms are relative to the clean ones.
    """
    head = lambda each: {  # noqa: E731
        "noise": each.shown.name,
        "config": in_config(each.shown),
        "strength": each.strength,
        "k": each.k,
        "missing": each.missing,
    }
    table = [
        {"place": "pixels", **head(each), "change": each.change, "clipped": each.clipped}
        for each in shown.noisy_images
    ]
    for site in shown.sites:
        for each in site.noisy:
            measures = {"norm": each.norm, "cosine": each.cosine}
            flat = {
                f"{name}_{key}": value
                for name, quartiles in measures.items()
                for key, value in _as_dict(quartiles).items()
            }
            table.append({"place": site.site.name, **head(each), **flat})
    return [dict.fromkeys(COLUMNS) | row for row in table]


def _as_dict(quartiles: Quartiles | None) -> dict[str, float]:
    return {} if quartiles is None else dataclasses.asdict(quartiles)


def content(shown: Shown) -> dict[str, Any]:
    """Returns everything that is drawn except the pixels, for JSON."""
    spectra = [
        {"noise": each.shown.name, "strength": each.strength, "singular_values": each.spectrum}
        for site in shown.sites
        for each in site.noisy
    ]
    count = len(shown.noises) * len(shown.settings.strengths)
    return {
        "data": shown.data,
        "weights": shown.weights,
        "strengths": shown.settings.strengths,
        "seed": shown.settings.seed,
        "images": [
            {"index": index, "label": label}
            for index, label in zip(shown.indices, shown.labels, strict=True)
        ],
        "noises": [
            {"name": each.name, "noise": str(each.noise), "config": in_config(each)}
            for each in shown.noises
        ],
        "not_shown": shown.not_shown,
        "sites": [
            {
                "name": site.site.name,
                "title": site.site.title,
                "config": [f"config.{name}" for name in site.site.sections],
                "shape": site.shape,
                "examples": site.examples,
                "k": site.k,
                "clean_norm": site.norm,
                "clean_singular_values": site.spectrum,
                "noisy_singular_values": spectra[number * count : (number + 1) * count],
            }
            for number, site in enumerate(shown.sites)
        ],
        "rows": rows(shown),
    }


def tables(shown: Shown) -> list[Table]:
    """Returns a table of the pixels of the images drawn, and one of the latent at each site."""
    return [_pixels(shown), *map(_latent, shown.sites)]


def _pixels(shown: Shown) -> Table:
    title = f"pixels of the {shown.settings.images} images drawn"
    table = _table(title, "change, levels", "clipped, %")
    for each in shown.noisy_images:
        clipped = None if each.clipped is None else 100 * each.clipped
        _add_row(table, each, number(each.change), number(clipped))
    return table


def _latent(site: ShownSite) -> Table:
    title = f"{site.site.title}: {site.examples} images, in batches of {site.k}"
    table = _table(title, "norm / clean", "cosine to clean")
    for each in site.noisy:
        _add_row(table, each, _shown(each.norm), _shown(each.cosine))
    return table


def _table(title: str, *measures: str) -> Table:
    """Returns a table without rows; k is the number of images that a noise mixes."""
    table = Table(title=title, title_justify="left")
    table.add_column("noise")
    for head in ("strength", "k", *measures):
        table.add_column(head, justify="right")
    table.add_column("config")
    return table


def _add_row(table: Table, each: NoisyImages | NoisyRepresentation, *measures: str) -> None:
    k = MISSING if each.k is None else str(each.k)
    head = (each.shown.title, f"{each.strength:g}", k)
    table.add_row(*head, *measures, in_config(each.shown))


def sentences(shown: Shown) -> list[str]:
    """Returns what the tables leave out: the data, the weights, and what could not be shown."""
    texts = [f"{shown.data}; {shown.weights}"]
    texts += [f"not shown: {name}: {why}" for name, why in shown.not_shown.items()]
    missing = {(e.shown.title, e.strength): e.missing for e in shown.noisy_images if e.missing}
    texts += [f"not shown: {t} of strength {s:g}: {why}" for (t, s), why in missing.items()]
    return texts


def _shown(quartiles: Quartiles | None) -> str:
    """Formats the median and the quartiles: 0.91 (0.90–0.92)."""
    if quartiles is None:
        return MISSING
    low, median, high = (number(v, 2) for v in dataclasses.astuple(quartiles))
    return f"{median} ({low}–{high})"
