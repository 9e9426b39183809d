"""An adaptation study as one HTML page that works offline."""

from collections.abc import Mapping, Sequence
from typing import Any

from pnoise_jax.studies.adaptation import page_tables
from pnoise_jax.studies.adaptation.methods import SOURCE_ONLY, TARGET_LABELS
from pnoise_jax.studies.adaptation.reference import TABLES
from pnoise_jax.studies.adaptation.summary import Row
from pnoise_jax.studies.reporting import page as pages
from pnoise_jax.studies.reporting import tables
from pnoise_jax.studies.reporting.inline_figures import inline_svg
from pnoise_jax.studies.reporting.page_tables import configuration
from pnoise_jax.training import flatten

CAPTIONS = {
    "curves": (
        "Terms of the losses.",
        "The first seed of each method; dashed: with noise. Each point is the mean since the "
        "previous one. A domain accuracy near 50 % means that the discriminator cannot tell the "
        "domains apart.",
    ),
    "embedding": (
        "Features of both domains before and after.",
        "Source only shows the features before adaptation, the others after; the first seed of the "
        "methods without noise, with the same images in every panel. Each panel is a separate "
        "embedding, so compare only how source and target mix, not positions.",
    ),
    "transferability": (
        "Where TVT finds patches transferable.",
        "The entropy of the patch discriminator, averaged over heads: 1 if a patch says nothing "
        "about its domain, 0 if it gives its domain away. The class token's attention is "
        "multiplied by it.",
    ),
    "confusion": (
        "Which classes are confused.",
        "Without noise, over all seeds: source only, and the most accurate method among those "
        "that have seen no target label. That choice uses target labels, so it serves only this "
        "figure.",
    ),
}

LEAK = (
    "Noise that mixes a batch lets a prediction depend on the other images of the batch. Published "
    "lists of targets are sorted by class, and the public code that adds such noise to TVT "
    "evaluates them in order, sixteen at a time, with the noise on. So the mates of an image are "
    "mostly of its class. “Noisy, listed order” uses the order in which the target is stored here; "
    "“noisy, shuffled” is the same model on the same images in random order."
)
PROVEN = {
    "Proven": (
        "The public code of the authors’ later method, built on TVT, keeps the optimal quality "
        "matrix on in every validation, over class-sorted lists, in batches of 16. In these lists "
        "most mates of an image share its class: pnoise neighbours counts them."
    ),
    "Implicated, not proven": (
        "The positive-noise rows of the paper’s tables 5 and 6. Their evaluation code is not "
        "public, so neither their order nor their batch size is known. No public source has the "
        "row of table 5."
    ),
}


def render(content: Mapping[str, Any], table: Sequence[Row], figures: Mapping[str, bytes]) -> str:
    """Renders the page as HTML.

    Args:
      content: the content of adaptation.json.
      table: the rows from `summarise`.
      figures: SVG files, by the name of the figure.
    """
    reference = TABLES.get(content["data"])
    shown = [page_tables.methods(content, table)]
    effects = [page_tables.effects(table)] if any(row.effects for row in table) else []
    published = [] if reference is None else [page_tables.published(reference)]
    return pages.template("adaptation.html").render(
        content=content,
        css=pages.stylesheet(),
        answers=content["sentences"],
        tiles=_tiles(content, table),
        methods=shown,
        effects=effects,
        published=published,
        figures={name: _figure(name, svg) for name, svg in figures.items()},
        leak=[LEAK, *_purity(content)],
        proven=PROVEN,
        configuration=configuration(flatten(content["config"])),
    )


def _purity(content: Mapping[str, Any]) -> list[str]:
    """Describes what share of an image's batch mates are of its class; empty without noise."""
    purity = {row["protocol"]: row["purity"] for row in content["rows"] if row["purity"]}
    if len(purity) < 2:
        return []
    listed, shuffled = (
        tables.number(100 * purity[name]) for name in ("noisy_listed", "noisy_shuffled")
    )
    return [
        f"Here, in batches of {content['evaluation_batch_size']}, {listed} % of an image’s mates "
        f"are of its class in the stored order, and {shuffled} % in the shuffled one."
    ]


def _tiles(content: Mapping[str, Any], table: Sequence[Row]) -> list[dict[str, str]]:
    """Returns tiles: source only, the config's method or else the first, and the upper bound."""
    task = content["config"]["task"]["name"]
    plain = {row.method.name: row for row in table if not row.method.noise}
    others = [row for name, row in plain.items() if name not in (SOURCE_ONLY, TARGET_LABELS)]
    configured = plain.get(task) if task in {row.method.name for row in others} else None
    middle = configured or (others[0] if others else None)
    rows = [plain[SOURCE_ONLY], *([middle] if middle else []), plain[TARGET_LABELS]]
    return [
        {
            "name": f"{row.method.label}, clean",
            "value": tables.number(row.values["clean"].value),
            "interval": _interval(row),
        }
        for row in rows
    ]


def _interval(row: Row) -> str:
    interval = row.values["clean"].interval
    if interval is None:
        return ""
    return f"({tables.number(interval[0])} to {tables.number(interval[1])})"


def _figure(name: str, svg: bytes) -> dict[str, Any]:
    title, caption = CAPTIONS[name]
    drawing = inline_svg(svg, name=name, alternative=f"{title} {caption}")
    return {"drawing": drawing, "title": title, "caption": caption}
