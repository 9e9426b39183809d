"""The audit as one HTML page that opens without a network: the answer first, the method last."""

import importlib.resources
import string
from collections.abc import Mapping
from typing import Any

from pnoise_jax.studies.reporting import captions, style, tables
from pnoise_jax.studies.reporting.markup import (
    cells,
    column_heads,
    definitions,
    element,
    group_head,
    inline_svg,
    row,
    table,
    text,
)
from pnoise_jax.training.config import flatten

PROTOCOLS = (
    (style.CLEAN, "clean"),
    (style.SHUFFLED, "shuffled"),
    (style.CLASS_SORTED, "class-sorted"),
)
EFFECTS = {  # the three comparisons, by what they say
    (style.SHUFFLED, style.CLEAN): "honest effect: shuffled − clean",
    (style.CLASS_SORTED, style.CLEAN): "claimed effect: class-sorted − clean",
    (style.CLASS_SORTED, style.SHUFFLED): "leak: class-sorted − shuffled",
}


def render(audit: Mapping[str, Any], figures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
      audit: the content of audit.json.
      figures: SVG files by name: "protocols", and "purity" and "per_class" where there are any.
    """
    template = string.Template(_resource("page.html"))
    return template.substitute(
        css=stylesheet(),
        title=text(f"Leak audit: {audit['model']} on {audit['dataset']}"),
        question=text(audit["question"]),
        meta=text(captions.subject(audit)),
        verdict=_verdict(audit["verdict"]["text"]),
        headline=_headline(audit),
        reading=captions.READING,
        protocols=_protocols(audit),
        comparisons=_comparisons(audit),
        figures="\n".join(_figure(audit, name, svg) for name, svg in figures.items()),
        per_class=_per_class(audit),
        findings=_findings(audit),
        method=definitions(captions.method(audit)),
        configuration=_configuration(audit),
        versions=_versions(audit),
    )


def stylesheet() -> str:
    """The CSS of the page."""
    return _resource("page.css").strip()


def _resource(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")


def _verdict(sentence: str) -> str:
    """The sentence; what comes before its colon is larger than its figures."""
    answer, colon, figures = sentence.partition(": ")
    return _sentence(answer + colon) + (element("span", _sentence(figures)) if figures else "")


def _sentence(words: str) -> str:
    """Text in which no line begins with a percent sign."""
    return text(words).replace(" %", "&nbsp;%")


def _headline(audit: Mapping[str, Any]) -> str:
    """The three accuracies that the verdict is about, large."""
    found = tables.headline(audit)
    tiles = []
    for (name, class_), line in zip(PROTOCOLS, found.protocols, strict=True):
        low, high = (tables.number(end) for end in line["interval"])
        label = element("dt", text(name), class_=class_)
        value = element("dd", text(f"{tables.number(line['top1'])} %"), class_="value")
        interval = element("dd", text(f"{low}–{high}"), class_="range")
        tiles.append(element("div", label + value + interval, class_=class_))
    note = f"Top-1 and its {_confidence(audit)} % interval; {found.noise_id}, batch size "
    notes = [f"{note}{found.batch_size}."]
    notes += [sentence for sentence in audit.get("notes", ()) if sentence.startswith("note: ")]
    below = "\n".join(element("p", text(sentence), class_="note") for sentence in notes)
    return element("dl", "".join(tiles), class_="headline") + "\n" + below


def _protocols(audit: Mapping[str, Any]) -> str:
    heads = ("batch size", "protocol", f"top-1, % ({_confidence(audit)} % interval)", "top-5, %")
    heads += ("NLL, nats", "mates of same label, %", "label bits per batch", "batch vote, %")
    bodies = []
    for noise_id, group in tables.by_noise(audit).items():
        first = group[0].class_sorted
        where = first["where"] or ""
        detail = "" if where in noise_id else where
        lines = [group_head(noise_id, detail, len(heads))]
        for found in group:
            lines += _protocol_rows(found)
        bodies.append("\n".join(lines))
    caption = (
        "Every row evaluates the same weights on the same examples. Batch vote is made of clean "
        "predictions and has no noise in it."
    )
    return table("protocols", caption, column_heads(heads, words=2), bodies)


def _protocol_rows(found: tables.Siblings) -> list[str]:
    """Clean, shuffled and class-sorted, under one batch size."""
    lines = []
    for (name, class_), line in zip(PROTOCOLS, found.protocols, strict=True):
        head = element("th", element("span", text(name)), scope="row", class_=f"key {class_}")
        if line is found.clean:
            head = element("th", text(found.batch_size), scope="row", rowspan=3) + head
        values = [
            tables.number(line["top5"]),
            tables.number(line["nll"], 2),
            tables.number(100 * line["purity"]),
            tables.number(line["label_bits_per_batch"]),
            tables.number(line["batch_vote_top1"]),
        ]
        top1 = cells([tables.with_interval(line)], "number strong")
        last = "last" if line is found.class_sorted else None
        lines.append(row([head, *top1, *cells(values)], class_=last))
    return lines


def _comparisons(audit: Mapping[str, Any]) -> str:
    """One line per noise and batch size, with a difference and its p-value per comparison."""
    pairs = list(dict.fromkeys((c["of"], c["against"]) for c in audit["comparisons"]))
    found: dict[str, dict[int, dict]] = {}
    for c in audit["comparisons"]:
        sizes = found.setdefault(c["noise_id"], {})
        sizes.setdefault(c["batch_size"], {})[c["of"], c["against"]] = c
    heads = [element("th", "batch size", scope="col")]
    for pair in pairs:
        name = EFFECTS.get(pair, f"{pair[0]} − {pair[1]}")
        heads.append(element("th", text(name), scope="col", colspan=2, class_="number"))
    bodies = []
    for noise_id, sizes in found.items():
        lines = [group_head(noise_id, "", 1 + 2 * len(pairs))]
        for size, by_pair in sizes.items():
            line = [element("th", text(size), scope="row")]
            for pair in pairs:
                c = by_pair.get(pair)
                line += cells([tables.difference(c) if c else tables.MISSING])
                line += cells([tables.p_value(c["p_adjusted"]) if c else ""], "p")
            lines.append(row(line))
        bodies.append("\n".join(lines))
    caption = f"Points of top-1, with {_confidence(audit)} % intervals and p-values."
    return table("differences", caption, element("thead", row(heads)), bodies)


def _figure(audit: Mapping[str, Any], name: str, svg: bytes) -> str:
    drawing = inline_svg(svg, name=name, alternative=captions.alternative(audit, name))
    title = element("b", text(captions.TITLES[name]))
    caption = element("figcaption", f"{title} {text(captions.caption(audit, name))}")
    return element("figure", f"\n{drawing}\n{caption}\n")


def _per_class(audit: Mapping[str, Any]) -> str:
    """A section with the classes that change most; nothing where there are no classes."""
    chosen = tables.most_changed(audit)
    if not chosen:
        return ""
    lines = [
        row(
            [
                element("th", text(c["class"]), scope="row"),
                *cells(
                    [
                        str(c["n"]),
                        *(tables.number(c[key]) for key in ("clean", "shuffled", "class_sorted")),
                        tables.signed(c["class_sorted"] - c["clean"]),
                    ]
                ),
            ]
        )
        for c in chosen
    ]
    count, wanted = len(audit["per_class"]), audit["headline"]
    caption = (
        f"The {len(chosen)} of {count} classes that change most from clean to class-sorted; "
        f"{wanted['noise_id']}, batch size {wanted['batch_size']}. Top-1 in percent"
        f"{captions.mean_over(audit)}."
    )
    heads = ("class", "examples", *(name for name, _ in PROTOCOLS), "class-sorted − clean")
    content = table("classes", caption, column_heads(heads), ["\n".join(lines)])
    return _section("classes", "Classes", content)


def _findings(audit: Mapping[str, Any]) -> str:
    """A section on the noises that the verdict is not about."""
    shown = audit["headline"]["noise_id"]
    items = [
        element("li", _sentence(finding["verdict"]["text"]))
        for finding in audit["findings"]
        if finding["noise_id"] != shown
    ]
    if not items:
        return ""
    return _section("others", "The other noises", element("ul", "\n".join(items)))


def _configuration(audit: Mapping[str, Any]) -> str:
    if audit["config"] is None:
        return element("p", "None: what was audited is a function that the caller gave.")
    lines = [
        row([element("th", text(name), scope="row"), element("td", text(repr(value)))])
        for name, value in flatten(audit["config"])
    ]
    head = column_heads(("field", "value"), words=2)
    inner = table("configuration", "What the run was told.", head, ["\n".join(lines)])
    return element("details", element("summary", f"{len(lines)} fields") + inner)


def _versions(audit: Mapping[str, Any]) -> str:
    command = audit["command"]
    shown = element("pre", element("code", text(command)), tabindex=0) if command else ""
    return definitions(captions.versions(audit)) + shown


def _section(name: str, heading: str, content: str) -> str:
    head = element("h2", text(heading), id=name)
    return "\n" + element("section", f"\n{head}\n{content}\n", aria_labelledby=name) + "\n"


def _confidence(audit: Mapping[str, Any]) -> str:
    return f"{100 * audit['confidence']:g}"
