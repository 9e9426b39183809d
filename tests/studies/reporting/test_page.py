"""The page has all numbers, does not contradict the verdict, and needs nothing from outside."""

import itertools
import json
import re

import pytest

from pnoise_jax.studies.leak import verdict
from pnoise_jax.studies.reporting import inline_figures as drawings
from pnoise_jax.studies.reporting import page, report, style
from pnoise_jax.studies.reporting import verdict_labels as kinds
from tests.studies.example_audit import bare_audit, digits_audit, glyphs_audit
from tests.studies.example_page import Page, with_figures

EXAMPLES = {"digits": digits_audit, "glyphs": glyphs_audit, "bare": bare_audit}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The source of each example's page, by name."""
    html = {}
    for name, make in EXAMPLES.items():
        directory = tmp_path_factory.mktemp(name)
        report.write_audit(directory, make())
        html[name] = (directory / "audit.html").read_text("utf-8")
    return html


def signed(value: float, decimals: int = 1) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_shows_every_verdict_with_its_kinds(sources, name):
    audit, source = EXAMPLES[name](), sources[name]
    text = Page(source).text
    assert audit["question"] in text
    answer, rest = audit["verdict"]["text"].split(": ")
    assert f"{answer}. {rest[0].upper()}{rest[1:]}" in text
    lists = re.findall(r'<ul class="chips">(.*?)</ul>', source, re.S)
    chips = [re.findall(r">([\w ]+)</li>", chip) for chip in lists]
    labels = [[kinds.KINDS[k].label for k in f["verdict"]["kinds"]] for f in audit["findings"]]
    assert chips == labels
    for finding in audit["findings"][1:]:
        assert finding["verdict"]["text"] in text
    legend = re.search(r'<dl class="legend">(.*?)</dl>', source, re.S)[1]
    assert set(re.findall(r">([\w ]+)</span>", legend)) == set(itertools.chain(*labels))


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_has_every_number_of_the_rows(sources, name):
    text = Page(sources[name]).text
    for row in EXAMPLES[name]()["rows"]:
        low, high = row["interval"]
        cells = [f"{row['top1']:.1f} ({low:.1f} to {high:.1f})"]
        cells += [f"{row[key]:.1f}" for key in ("balanced", "top5")]
        cells += [f"{row['nll']:.2f}", f"{100 * row['purity']:.1f}"]
        cells += [f"{row[key]:.1f}" for key in ("label_bits_per_batch", "batch_vote_top1")]
        assert row["order"] == "class_sorted" or f" {' '.join(cells)} " in text
        assert row["noise_id"] is None or f" {' '.join(cells)} " in text
        meter = []
        for true, printed in (("top1", "printed"), ("top5", "printed_top5")):
            difference = signed(row[printed] - row[true]).replace("+0.0", "0.0")
            meter += [f"{row[true]:.1f}", f"{row[printed]:.1f}", difference]
        assert f" {' '.join(meter)} " in text


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_has_every_comparison_order_and_intervention(sources, name):
    audit, text = EXAMPLES[name](), Page(sources[name]).text
    for row in audit["comparisons"]:
        value, low, high = (signed(end) for end in (row["difference"], *row["interval"]))
        cells = f"{value} ({low} to {high}) p = 0.21, not resolved"
        if row["interval"] == [0, 0]:
            cells = "0.0, exactly –"
        elif row["p_adjusted"] < 0.1:
            cells = f"{value} ({low} to {high}) p < 0.001"
        assert f" {cells.replace('+0.0', '0.0').replace('−0.0', '0.0')} " in text
    for row in audit["orders"]:
        deviation = "–" if row["deviation"] is None else f"{row['deviation']:.2f}"
        cells = f" {row['words']} {row['orders']} {row['top1']:.1f} {deviation} "
        cells += f"{row['lowest']:.1f} to {row['highest']:.1f} "
        cells += "–" if row["order"] == "shuffled" else f"{row['random_orders_below']} of 40"
        assert f"{cells} " in text
    for row in audit["interventions"]:
        assert f"{row['mates']} mates, {row['pairs']} pairs" in text
        cells = f" {row['batches']} {row['called']:.1f} {row['called_other']:.1f} "
        assert f"{cells}{signed(row['logit'], 2)} p = 0.012 " in text
        assert row["words"].capitalize() in text
    seeds = "5 × " if len(audit["seeds"]) == 5 else ""
    for finding in audit["findings"]:
        dependence = finding["verdict"]["evidence"]["dependence"]
        result = "independent" if dependence["independent"] else "depends on the batch"
        change = "0" if dependence["independent"] else "4.8"
        assert f" {result} {change} 4.3e−06 6 62 {dependence['changed']} of {seeds}1000 " in text


def test_page_shows_the_verdicts_sizes_and_folds_the_others_away(sources):
    source = sources["digits"]
    first = source[source.index('id="protocols-caption"') :]
    shown, folded = first[: first.index("</section>")].split("<details>")
    assert re.findall(r"batches of (\d+)", shown) == 3 * ["10"]
    assert re.findall(r"batches of (\d+)", folded) == 3 * ["50"]
    assert "3 more at other batch sizes" in folded


def test_page_keeps_the_protocols_of_a_noise_together(sources):
    source = sources["digits"]
    table = source[source.index('id="protocols-caption"') : source.index('id="differences"')]
    shown = re.findall(r'"key ([\w-]+)".*?<td[^>]*>([\d.]+) ', table, re.S)
    rows = digits_audit()["rows"]
    expected = []
    for size, noise_id in itertools.product((10, 50), dict.fromkeys(r["noise_id"] for r in rows)):
        if noise_id is None:
            continue
        top1 = {
            (r["noise_id"], r["order"]): f"{r['top1']:.1f}" for r in rows if r["batch_size"] == size
        }
        expected += [("clean", "76.1"), ("shuffled", top1[noise_id, "shuffled"])]
        expected.append(("class-sorted", top1[noise_id, "class_sorted"]))
    assert shown == expected
    tiles = re.findall(r'<div class="([\w-]+)">.*?class="value">([\d.]+)&nbsp;%', source, re.S)
    assert tiles == expected[:3]


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_needs_nothing_from_outside(sources, name):
    source, parsed = sources[name], Page(sources[name])
    ids = [a["id"] for elements in parsed.elements.values() for a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', source)
    references += [(a,) for a in re.findall(r'aria-labelledby="([^"]+)"', source)]
    assert {"".join(reference) for reference in references} <= set(ids)
    assert not re.findall(
        r"(?:src|href|action|data)=[\"'](?!#)|url\((?!#)|@import|https?://", source
    )
    assert "script" not in parsed.elements


@pytest.mark.parametrize("name", EXAMPLES)
def test_page_can_be_read_by_a_screen_reader(sources, name):
    audit, parsed = EXAMPLES[name](), Page(sources[name])
    assert len(parsed.elements["h1"]) == 1
    assert all("scope" in head for head in parsed.elements["th"])
    labels = [drawing["aria-label"] for drawing in parsed.elements["svg"]]
    assert len(labels) == len(parsed.elements["figure"]) == len(parsed.elements["figcaption"])
    parts = ("interventions", "purity", "per_class")
    assert len(labels) == 2 + sum(bool(audit[part]) for part in parts)
    numbers = [f"{row['top1']:.1f}" for row in audit["rows"] + audit["orders"] + audit["purity"]]
    numbers += [f"{row['called']:.1f}" for row in audit["interventions"]]
    assert all(number in " ".join(labels) for number in numbers)


def test_page_lists_the_most_changed_of_many_classes(sources):
    text = Page(sources["glyphs"]).text
    assert "The 8 of 1000 classes that change most" in text
    most_changed = max(
        glyphs_audit()["per_class"], key=lambda c: abs(c["class_sorted"] - c["clean"])
    )
    change = signed(most_changed["class_sorted"] - most_changed["clean"])
    assert f"{most_changed['name']} 20 {most_changed['clean']:.1f}" in text
    assert change in text


def test_every_kind_of_verdict_has_a_label():
    assert list(kinds.KINDS) == list(verdict.KINDS)


def test_page_collapses_the_configuration(sources):
    text = Page(sources["digits"]).text
    for field in ("model.depth 4", "noise.layer None", "betas [0.9, 0.999]"):
        assert field in text
    bare = Page(sources["bare"])
    assert "details" not in bare.elements
    assert "a function that the caller passed" in bare.text


def test_commands_wrap_and_tables_show_that_they_scroll():
    css = page.stylesheet()
    assert re.search(r"\bpre {[^}]*white-space: pre-wrap; overflow-wrap: anywhere", css)
    assert re.search(r"\.scroll {[^}]*var\(--shadow\)[^}]*scroll;", css)


@pytest.mark.parametrize("field", ["dataset", "model", "question", "command", "device", "project"])
def test_page_escapes_what_comes_from_data(field):
    hostile = '"><script>alert(1)</script>{{ audit }}'
    parsed = Page(page.render(digits_audit() | {field: hostile}, {}))
    assert "script" not in parsed.elements
    assert hostile in parsed.text


def test_page_escapes_names_and_verdicts():
    hostile = json.dumps(digits_audit()).replace("optimal 1 at", "<i>&--></svg> ${x} at")
    audit = json.loads(hostile.replace("noise (strength", "<b>noise</b> (strength"))
    audit["per_class"][0]["name"] = "<u>"
    audit["metric"]["name"] = "<s>"
    parsed = Page(with_figures(audit))
    assert not {"i", "b", "u", "s"} & (parsed.elements.keys() - {"b"})
    assert len(parsed.elements["b"]) == len(parsed.elements["figcaption"])  # their titles
    for words in ("<i>&--></svg> ${x} at", "<b>noise</b>", "<u>", "<s>"):
        assert words in parsed.text


def test_page_has_the_colours_of_the_figures():
    css = page.stylesheet()
    for color, variable in drawings.VARIABLES.items():
        assert f"{variable}: {color};" in css
    assert set(style.COLORS.values()) <= drawings.VARIABLES.keys()
