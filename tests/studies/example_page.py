"""Pages of audits, read as a browser reads them."""

import collections
import copy
import html.parser
import re
from typing import Any

from pnoise_jax.studies.reporting import page, report, style

EMPTY = {"meta", "link", "br", "hr", "img", "input"}  # elements that have no end


class Page(html.parser.HTMLParser):
    """The text, the elements and the attributes of a page; fails if tags do not match."""

    def __init__(self, source: str):
        super().__init__()
        self.open, self.words = [], []
        self.elements = collections.defaultdict(list)
        self.feed(source)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.elements[tag].append(dict(attrs))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements[tag].append(dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def with_figures(audit: dict) -> str:
    """The source of an audit's page, with all its figures."""
    return page.render(
        audit, {name: style.svg(draw(audit)) for name, draw in report.FIGURES.items()}
    )


def with_captions(audit: dict) -> Page:
    """The page with empty drawings, which is quick to make."""
    empty = b'<svg viewBox="0 0 1 1"></svg>'
    return Page(page.render(audit, dict.fromkeys(report.FIGURES, empty)))


def with_finding(audit: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A copy in which the evidence of the first verdict is changed."""
    audit = copy.deepcopy(audit)
    audit["findings"][0]["verdict"]["evidence"].update(changed)
    audit["verdict"] = audit["findings"][0]["verdict"]
    return audit
