"""The files of an audit: all of them, unbroken, and readable again."""

import csv
import io
import json
import os

import numpy as np
import pytest

from pnoise_jax import studies
from pnoise_jax.studies.reporting import report
from tests.studies.example_audit import bare_audit, digits_audit, glyphs_audit

EXAMPLES = {"digits": digits_audit, "glyphs": glyphs_audit, "bare": bare_audit}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The directory of each example, by name."""
    directories = {name: tmp_path_factory.mktemp(name) for name in EXAMPLES}
    for name, directory in directories.items():
        report.write_audit(directory, EXAMPLES[name]())
    return directories


def test_writes_all_files_and_returns_them(tmp_path):
    paths = report.write_audit(tmp_path / "new", digits_audit())
    names = {"audit.json", "audit.csv", "audit.html"}
    names |= {f"{figure}.{end}" for figure in report.FIGURES for end in ("svg", "png")}
    assert len(names) == 13
    assert {path.name for path in paths} == names
    assert set(paths) == set((tmp_path / "new").iterdir())


def test_figures_of_an_earlier_audit_are_deleted(tmp_path):
    report.write_audit(tmp_path, digits_audit())
    paths = report.write_audit(tmp_path, bare_audit())
    assert set(tmp_path.iterdir()) == set(paths)
    assert {path.stem for path in paths} == {"audit", "protocols", "orders"}


def test_a_sweep_without_mates_has_no_figure(tmp_path):
    audit = digits_audit()
    audit["purity"] = [point | {"purity": None} for point in audit["purity"]]
    names = {path.name for path in report.write_audit(tmp_path, audit)}
    assert "purity.svg" not in names


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


@pytest.mark.parametrize("mixes", [True, False])
def test_a_real_audit_has_the_form_of_the_examples(tmp_path, mixes):
    labels = np.repeat(np.arange(4), 15)
    scores = np.eye(4)[labels] + np.random.default_rng(0).normal(0, 0.8, (60, 4))

    def apply(batch):
        return batch + batch.mean(axis=0) if mixes else batch

    settings = studies.AuditSettings(orders=20, purity_steps=2, resamples=100)
    audit = studies.audit(apply, (scores, labels), clean=lambda batch: batch, settings=settings)
    example = digits_audit()
    # A function has no weights; its program may know its commit.
    assert example.keys() - audit.content.keys() <= {"weights", "notes"}
    for part in ("rows", "comparisons", "orders", "interventions", "purity", "per_class"):
        assert audit.content[part][0].keys() == example[part][0].keys(), part
    for name, evidence in example["verdict"]["evidence"].items():
        there = audit.content["verdict"]["evidence"][name]
        if isinstance(evidence, dict):
            assert evidence.keys() <= there.keys(), name
    assert ("independent" in audit.verdict.kinds) is not mixes
    assert {path.name for path in audit.write(tmp_path)} > {"audit.html", "orders.svg"}


def test_failing_to_write_leaves_the_old_file(tmp_path, monkeypatch):
    report.write_audit(tmp_path, bare_audit())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        report.write_audit(tmp_path, bare_audit() | {"question": "another"})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("broken", [{"version": 1}, {"n": float("nan")}])
def test_an_audit_that_cannot_be_written_leaves_the_old_files(tmp_path, broken):
    report.write_audit(tmp_path, bare_audit())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"version=1 of the audit|not JSON compliant"):
        report.write_audit(tmp_path, bare_audit() | broken)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(digits_audit() | {"version": 1}), "has version 1, but 2 was expected"),
        (json.dumps(digits_audit() | {"version": 3}), "has version 3, but 2 was expected"),
        ('{"rows": []}', "has no comparisons, orders, verdict, version"),
        ("[1, 2]", "is not an audit"),
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


def test_reading_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match=r"audit\.json"):
        report.read_audit(tmp_path / "audit.json")
