"""Embeds figures in a page, in the colours of the page."""

import re

from markupsafe import Markup

from pnoise_jax.studies.reporting import style

# The CSS variables that replace the colours of the figures, as a page may be dark.
VARIABLES = {
    style.COLORS[style.CLEAN]: "--clean",
    style.COLORS[style.SHUFFLED]: "--shuffled",
    style.COLORS[style.CLASS_SORTED]: "--class-sorted",
    style.COLORS[style.PARTLY_SORTED]: "--partly-sorted",
    style.COLORS[style.OWN_PREDICTIONS]: "--own-predictions",
    style.INK: "--ink",
    style.MUTED: "--muted",
    style.RULE: "--rule",
    style.PAPER: "--paper",
}


def inline_svg(svg: bytes, *, name: str, alternative: str) -> Markup:
    """Converts an SVG file to markup for a page.

    Args:
      svg: the file, as returned by `style.svg`.
      name: a prefix for every id, so that no two figures on a page share one.
      alternative: the alternative text; it is escaped here.

    Raises:
      ValueError: the SVG has no viewBox.
    """
    drawing = svg.decode()
    match = re.search(r'viewBox="([\d. ]+)"', drawing)
    if match is None:
        raise ValueError(f"the figure {name!r} has no viewBox")
    box = match[1]
    inner = drawing[drawing.index(">", drawing.index("<svg")) + 1 : drawing.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inner, flags=re.S)
    # The page is the background; matplotlib's would hide the shadow of a scrolling figure.
    inner = re.sub(r'<g id="patch_1">.*?</g>', "", inner, count=1, flags=re.S)
    inner = re.sub(r'<g id="[^"]*">', "<g>", inner)  # nothing refers to groups
    inner = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", inner)
    inner = re.sub(r"\s*\n\s*", "\n", inner)
    for color, variable in VARIABLES.items():
        inner = inner.replace(color, f"var({variable})")
    start = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(box, alternative)
    return start + Markup(inner) + Markup("</svg>")
