"""The files and the console table: all numbers in them, nothing broken, nothing from outside."""

import collections
import csv
import html.parser
import io
import json
import os
import re

import pytest
from rich.console import Console

from pnoise_jax.studies.reporting import figures, markup, report, style
from tests.studies.example_audit import bare_audit, digits_audit, glyphs_audit

EXAMPLES = {"digits": digits_audit, "glyphs": glyphs_audit, "bare": bare_audit}
EMPTY = {"meta", "link", "br", "hr", "img", "input"}  # elements that have no end


class Page(html.parser.HTMLParser):
    """The text, the elements and the attributes of a page; fails where tags do not match."""

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


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The directory of each example, by name."""
    directories = {name: tmp_path_factory.mktemp(name) for name in EXAMPLES}
    for name, directory in directories.items():
        report.write_audit(directory, EXAMPLES[name]())
    return directories


def page_of(directory) -> Page:
    return Page((directory / "audit.html").read_text("utf-8"))


def test_writes_all_files_and_returns_them(tmp_path):
    paths = report.write_audit(tmp_path / "new", digits_audit())
    names = {"audit.json", "audit.csv", "audit.html"}
    names |= {f"{f}.{e}" for f in ("protocols", "purity", "per_class") for e in ("svg", "png")}
    assert {path.name for path in paths} == names
    assert set(paths) == set((tmp_path / "new").iterdir())


def test_figures_of_an_earlier_audit_do_not_stay(tmp_path):
    report.write_audit(tmp_path, digits_audit())
    paths = report.write_audit(tmp_path, bare_audit())
    assert set(tmp_path.iterdir()) == set(paths)
    assert {path.stem for path in paths} == {"audit", "protocols"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_reads_what_it_wrote(written, name):
    assert report.read_audit(written[name] / "audit.json") == EXAMPLES[name]()


def test_the_same_audit_gives_the_same_bytes(written, tmp_path):
    for path in report.write_audit(tmp_path, digits_audit()):
        assert path.read_bytes() == (written["digits"] / path.name).read_bytes(), path.name


def test_csv_holds_the_rows(written):
    read = list(csv.DictReader(io.StringIO((written["digits"] / "audit.csv").read_text())))
    rows = digits_audit()["rows"]
    assert len(read) == len(rows)
    for line, row in zip(read, rows, strict=True):
        low, high = row.pop("interval")
        assert (float(line.pop("interval_low")), float(line.pop("interval_high"))) == (low, high)
        for field in ("seeds", "top1_by_seed"):
            assert [float(value) for value in line.pop(field).split()] == row.pop(field)
        assert line == {k: "" if v is None else str(v) for k, v in row.items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_says_the_verdict_and_every_number(written, name):
    audit, page = EXAMPLES[name](), page_of(written[name])
    assert audit["question"] in page.text
    assert audit["verdict"] in page.text
    for row in audit["rows"]:
        low, high = row["interval"]
        assert f"{row['top1']:.1f} ({low:.1f}–{high:.1f})" in page.text
        for field in ("top5", "batch_vote_top1", "agreement", "label_bits_per_batch"):
            assert row[field] is None or f" {row[field]:.1f} " in page.text, field
        assert f" {row['nll']:.2f} " in page.text
        assert f" {100 * row['purity']:.1f} " in page.text
    for comparison in audit["comparisons"]:
        ends = [comparison["difference"], *comparison["interval"]]
        value, low, high = (f"{end:+.1f}".replace("-", "−") for end in ends)
        assert f"{value} ({low} to {high})" in page.text
        assert ("p < 0.001" if comparison["p_value"] < 0.001 else "p = 0.214") in page.text
    for finding in audit["findings"]:
        shown = finding["noise_id"] == audit["headline"]["noise_id"]
        assert shown or finding["sentence"] in page.text


def test_page_keeps_the_siblings_together_under_their_names(written):
    source = (written["digits"] / "audit.html").read_text("utf-8")
    found = re.findall(r'"key ([\w-]+)".*?<td[^>]*>([\d.]+) ', source)
    rows = digits_audit()["rows"]
    shuffled, in_order = (
        [row["top1"] for row in rows if row["noise"] and row["order"] == order]
        for order in ("shuffled", "class_sorted")
    )
    expected = [
        (name, f"{value:.1f}")
        for siblings in zip(9 * [76.1], shuffled, in_order, strict=True)
        for name, value in zip(("clean", "shuffled", "class-sorted"), siblings, strict=True)
    ]
    assert found == expected
    tiles = re.findall(r'<div class="([\w-]+)">.*?class="value">([\d.]+) %', source)
    assert tiles == expected[:3]


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_needs_nothing_from_outside(written, name):
    source = (written[name] / "audit.html").read_text("utf-8")
    page = page_of(written[name])
    ids = [a["id"] for found in page.elements.values() for a in found if "id" in a]
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', source)
    references += [(a,) for a in re.findall(r'aria-labelledby="([^"]+)"', source)]
    assert {"".join(found) for found in references} <= set(ids)
    assert not re.findall(
        r"(?:src|href|action|data)=[\"'](?!#)|url\((?!#)|@import|https?://", source
    )
    assert "script" not in page.elements


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_can_be_read_without_seeing_it(written, name):
    audit, page = EXAMPLES[name](), page_of(written[name])
    assert len(page.elements["h1"]) == 1
    assert all("scope" in head for head in page.elements["th"])
    drawings = page.elements["svg"]
    assert len(drawings) == len(page.elements["figure"]) == len(page.elements["figcaption"])
    assert len(drawings) == 1 + bool(audit["purity"]) + bool(audit["per_class"])
    for row in audit["rows"]:
        assert f"{row['top1']:.1f}" in drawings[0]["aria-label"]
    for point in audit["purity"]:
        assert f"{point['top1']:.1f}" in drawings[1]["aria-label"]


def test_page_lists_the_most_changed_of_many_classes(written):
    page = page_of(written["glyphs"])
    assert "The 8 of 1000 classes" in page.text
    classes = glyphs_audit()["per_class"]
    change = max(abs(c["class_sorted"] - c["clean"]) for c in classes)
    assert re.search(rf"[+−]{change:.1f}", page.text)
    assert len(page.elements["tr"]) < 40


def test_page_collapses_the_configuration(written):
    page = page_of(written["digits"])
    assert page.elements["details"] == [{}]
    for field in ("model.depth 4", "noise.layer None", "betas [0.9, 0.999]"):
        assert field in page.text
    assert "details" not in page_of(written["bare"]).elements


@pytest.mark.parametrize("field", ["dataset", "model", "verdict", "question", "command", "device"])
def test_page_escapes_what_comes_from_data(field):
    hostile = '"><script>alert(1)</script>$title'
    page = Page(report.page.render(digits_audit() | {field: hostile}, {}))
    assert "script" not in page.elements
    assert hostile in page.text


def test_page_escapes_the_names_of_noises(tmp_path):
    hostile = json.dumps(bare_audit()).replace("gaussian 1 at", "<i>&--></svg> ${x} at")
    report.write_audit(tmp_path, json.loads(hostile))
    page = page_of(tmp_path)
    assert "i" not in page.elements
    assert "<i>&--></svg> ${x} at" in page.text


def test_page_has_the_colours_of_the_figures():
    css = report.page.stylesheet()
    for color, variable in markup.VARIABLES.items():
        assert f"{variable}: {color};" in css
    assert set(style.COLORS.values()) <= markup.VARIABLES.keys()


def test_failing_to_write_leaves_the_old_file(tmp_path, monkeypatch):
    report.write_audit(tmp_path, bare_audit())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        report.write_audit(tmp_path, bare_audit() | {"verdict": "another"})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("broken", [{"version": 2}, {"n": float("nan")}])
def test_an_audit_that_cannot_be_written_leaves_the_old_files(tmp_path, broken):
    report.write_audit(tmp_path, bare_audit())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"version=2 of the audit|not JSON compliant"):
        report.write_audit(tmp_path, bare_audit() | broken)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(digits_audit() | {"version": 0}), "is of version 0, 1 was expected"),
        (json.dumps(digits_audit() | {"version": 2}), "is of version 2, 1 was expected"),
        ('{"rows": []}', "has no comparisons, verdict, version"),
        ("[1, 2]", "is no audit"),
        ("{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
    ],
)
def test_reading_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "audit.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as refused:
        report.read_audit(path)
    assert str(path) in str(refused.value)
    assert "run the audit again" in str(refused.value)


def test_reading_nothing_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match=r"audit\.json"):
        report.read_audit(tmp_path / "audit.json")


def printed(audit: dict, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO())
    report.print_audit(console, audit)
    return console.file.getvalue()


@pytest.mark.parametrize("name", EXAMPLES)
def test_prints_the_verdict_and_the_siblings(name):
    audit = EXAMPLES[name]()
    lines = printed(audit).splitlines()
    assert max(map(len, lines)) <= 100
    assert audit["verdict"] in " ".join(line.strip() for line in lines)
    cells = [re.split(r"\s*│\s*", line)[1:-1] for line in lines if line.startswith("│")]
    noisy = [row for row in audit["rows"] if row["noise"]]
    expected = [
        (str(row["batch_size"]), row["order"], f"{row['top1']:.1f} (", row) for row in noisy
    ]
    assert len(cells) == len(expected) / 2
    for size, order, start, row in expected:
        column = {"shuffled": 2, "class_sorted": 3}[order]
        assert any(c[0] == size and c[column].startswith(start) for c in cells)
        vote = "–" if row["batch_vote_top1"] is None else f"{row['batch_vote_top1']:.1f}"
        assert order == "shuffled" or any(c[4] == vote for c in cells)
    assert "…" not in "".join(lines)


def test_prints_names_as_they_are():
    renamed = json.dumps(digits_audit()).replace("optimal 1 at", "[red]optimal[/] 1 at")
    assert "[red]optimal[/] 1 at" in printed(json.loads(renamed))


def test_figures_are_those_of_the_module():
    assert all(getattr(figures, name) is draw for name, draw in report.FIGURES.items())
