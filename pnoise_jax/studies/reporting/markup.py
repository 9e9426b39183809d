"""Pieces of HTML. Whatever is given as text is escaped here, and nowhere else."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from pnoise_jax.studies.reporting import style

# The colours of the figures, by the CSS variable that replaces them: a page may be dark.
VARIABLES = {
    style.COLORS[style.CLEAN]: "--clean",
    style.COLORS[style.SHUFFLED]: "--shuffled",
    style.COLORS[style.CLASS_SORTED]: "--class-sorted",
    style.COLORS[style.PARTLY_SORTED]: "--partly-sorted",
    style.INK: "--ink",
    style.MUTED: "--muted",
    style.RULE: "--rule",
    style.PAPER: "--paper",
}


def text(value: object) -> str:
    """Text that comes from data, escaped."""
    return html.escape(str(value))


def element(name: str, content: str = "", **attributes: object) -> str:
    """An element around HTML; attributes are escaped. ``class_`` is class, ``a_b`` is a-b."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>"


def row(cells: Iterable[str], **attributes: object) -> str:
    """A table row of cells."""
    return element("tr", "".join(cells), **attributes)


def cells(values: Iterable[str], class_: str = "number") -> list[str]:
    """Cells of numbers, or of another class."""
    return [element("td", text(value), class_=class_) for value in values]


def column_heads(names: Sequence[str], *, words: int = 1) -> str:
    """The head of a table; all but the first ``words`` columns hold numbers."""
    heads = [
        element("th", text(name), scope="col", class_=None if i < words else "number")
        for i, name in enumerate(names)
    ]
    return element("thead", row(heads))


def group_head(title: str, detail: str, columns: int) -> str:
    """A row that names the rows below it."""
    content = text(title) + (" " + element("span", text(detail)) if detail else "")
    head = element("th", element("div", content), scope="rowgroup", colspan=columns)
    return row([head], class_="group")


def table(name: str, caption: str, head: str, bodies: Iterable[str]) -> str:
    """A table which scrolls sideways in its own frame; the caption above it stays where it is."""
    body = "\n".join(element("tbody", f"\n{rows}\n") for rows in bodies)
    label = f"{name}-caption"
    inner = element("table", f"\n{head}\n{body}\n", aria_labelledby=label)
    frame = {"class_": "scroll", "role": "region", "aria_labelledby": label, "tabindex": 0}
    note = element("p", text(caption), class_="note", id=label)
    return note + "\n" + element("div", f"\n{inner}\n", **frame)


def definitions(pairs: Mapping[str, str]) -> str:
    """A list of terms and what they are; both are text."""
    items = (element("dt", text(k)) + element("dd", text(v)) for k, v in pairs.items())
    return element("dl", "\n" + "\n".join(items) + "\n")


def inline_svg(svg: bytes, *, name: str, alternative: str) -> str:
    """An SVG file as a part of a page.

    Args:
      svg: the file, as `style.svg` gives it.
      name: goes before every id, so that figures on one page do not share any.
      alternative: what the figure says, for those who do not see it.
    """
    drawing = svg.decode()
    box = re.search(r'viewBox="([\d. ]+)"', drawing)[1]
    inner = drawing[drawing.index(">", drawing.index("<svg")) + 1 : drawing.rindex("</svg>")]
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inner, flags=re.S)
    inner = re.sub(r'<g id="[^"]*">', "<g>", inner)  # nothing refers to groups
    inner = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", inner)
    inner = re.sub(r"\s*\n\s*", "\n", inner)
    for color, variable in VARIABLES.items():
        inner = inner.replace(color, f"var({variable})")
    return element("svg", inner, viewBox=box, role="img", aria_label=alternative)
