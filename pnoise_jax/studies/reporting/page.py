"""Renders the audit as one HTML page that needs no network: the answer first, the method last."""

import functools
import importlib.resources
from collections.abc import Mapping
from typing import Any

import jinja2

from pnoise_jax.studies.reporting import figure_captions as captions
from pnoise_jax.studies.reporting import page_tables, prose, tables
from pnoise_jax.studies.reporting import verdict_labels as kinds
from pnoise_jax.studies.reporting.alt_text import alternative
from pnoise_jax.studies.reporting.inline_figures import inline_svg
from pnoise_jax.training import flatten

TABLES = {
    "protocols": page_tables.protocols,
    "differences": page_tables.comparisons,
    "orders": page_tables.orders,
    "interventions": page_tables.interventions,
    "check": page_tables.exact_check,
    "meter": page_tables.meter,
    "classes": page_tables.classes,
}

_PACKAGE = "pnoise_jax.studies.reporting"


def render(audit: Mapping[str, Any], figures: Mapping[str, bytes]) -> str:
    """Renders the page.

    Args:
      audit: the content of audit.json.
      figures: the content of SVG files by name of the figure.
    """
    answer, colon, rest = audit["verdict"]["text"].partition(": ")
    finding = kinds.headline_finding(audit)
    return template("page.html").render(
        audit=audit,
        css=stylesheet(),
        kinds=kinds,
        prose=prose,
        answer=answer + ("." if colon else ""),
        rest=rest[:1].upper() + rest[1:],
        tiles=_tiles(audit),
        others=[other for other in audit["findings"] if other is not finding],
        notes=[note for note in audit.get("notes", ()) if note.startswith("note: ")],
        tables={name: make(audit) for name, make in TABLES.items()},
        figures={name: _figure(audit, name, svg) for name, svg in figures.items()},
        configuration=None
        if audit["config"] is None
        else page_tables.configuration(flatten(audit["config"])),
        number=tables.number,
    )


def stylesheet() -> str:
    """Returns the CSS of the page."""
    folder = importlib.resources.files(_PACKAGE) / "templates"
    return folder.joinpath("page.css").read_text("utf-8").strip()


@functools.cache
def template(name: str) -> jinja2.Template:
    """Loads a template of the folder ``templates``; it escapes the values filled in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE, "templates"),
        autoescape=True,  # values from data are text, not markup
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # So that no line begins with a percent sign.
    environment.filters["together"] = lambda words: words.replace(" %", "\N{NO-BREAK SPACE}%")
    return environment.get_template(name)


def _tiles(audit: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the three accuracies that the verdict is about."""
    siblings = tables.headline(audit)
    tiles = []
    for (name, look), row in zip(page_tables.PROTOCOLS, siblings.protocols, strict=True):
        low, high = map(tables.number, row["interval"])
        tile = {"name": name, "look": look, "value": tables.number(row["top1"])}
        tile["interval"] = f"({low} to {high})"
        tile["balanced"] = tables.number(row["balanced"]) if tables.unbalanced(audit) else ""
        tiles.append(tile)
    return tiles


def _figure(audit: Mapping[str, Any], name: str, svg: bytes) -> dict[str, Any]:
    return {
        "drawing": inline_svg(svg, name=name, alternative=alternative(audit, name)),
        "title": captions.figure_title(audit, name),
        "caption": captions.figure_caption(audit, name),
    }
