"""The console: the verdict, its kinds and all numbers, uncut in 80 columns."""

import io
import json
import re

import pytest
from rich.console import Console

from pnoise_jax.studies.reporting import console
from pnoise_jax.studies.reporting import verdict_labels as kinds
from tests.studies.example_audit import bare_audit, digits_audit, glyphs_audit

EXAMPLES = {"digits": digits_audit, "glyphs": glyphs_audit, "bare": bare_audit}


def printed(audit: dict, width: int = 80) -> str:
    output = Console(width=width, file=io.StringIO())
    console.print_audit(output, audit)
    return output.file.getvalue()


@pytest.mark.parametrize("name", EXAMPLES)
def test_prints_the_kinds_the_verdicts_and_every_row(name):
    audit = EXAMPLES[name]()
    lines = printed(audit).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    text = " ".join(" ".join(lines).split())
    for finding in audit["findings"]:
        labels = ", ".join(kinds.KINDS[kind].label for kind in finding["verdict"]["kinds"])
        assert f"{finding['noise_id']} Verdict: {labels} {finding['verdict']['text']}" in text
    for row in audit["rows"]:
        low, high = row["interval"]
        cells = [f"{row['top1']:.1f} ({low:.1f} to {high:.1f})"]
        cells += [f"{row[key]:.1f}" for key in ("balanced", "printed", "batch_vote_top1")]
        order = "shuffled" if row["order"] == "shuffled" else "class-sorted"
        protocol = order if row["noise"] else "clean"
        shown = row["noise"] or order == "shuffled"
        assert not shown or f" {protocol} {' '.join(cells)} " in text
    assert "95 % interval" in text
    assert "agree" not in text


def test_nothing_is_cut_whatever_the_names_and_numbers():
    audit = digits_audit()
    for row in audit["rows"]:
        row.update(top1=100.0, interval=[100.0, 100.0], balanced=100.0, printed=100.0)
        row.update(batch_size=10 * row["batch_size"] + 10_000, batch_vote_top1=100.0)
    long = " at " + " and ".join(f"block_input, layer {i}, all tokens" for i in range(9)) + ","
    audit = json.loads(json.dumps(audit).replace(" at block_input", long))
    lines = printed(audit).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    rows = [line for line in lines if "100.0 (100.0 to 100.0)" in line]
    assert len(rows) == 18
    assert all(re.search(r"\) +100\.0 +100\.0 +100\.0 *$", row) for row in rows)
    assert long.strip() in " ".join(" ".join(lines).split())


def test_prints_names_as_they_are():
    renamed = json.dumps(digits_audit()).replace("optimal 1 at", "[red]optimal[/] 1 at")
    assert "[red]optimal[/] 1 at" in printed(json.loads(renamed))
