"""Mutants of the package: which mistakes are made, and whether the tests notice a few of them."""

import ast
import collections
import json
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("cosmic_ray", reason='pip install "pnoise_jax[mutants]" to make mutants')
from tests.mutants import __main__ as program
from tests.mutants import mutations, table

SOURCE = '''
import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


@functools.cache
def add(first: int | None, *, second: "int | float" = 0) -> int | None:
    """1 + 1."""
    total: int | None = first + second
    if total is None:
        raise ValueError(f"{first + 1} and {second}")
    return tuple(zip(first, second, strict=True))
'''


def test_mistakes_that_nobody_can_notice_are_left_out(tmp_path):
    (tmp_path / "add.py").write_text(SOURCE)
    places = mutations._places(tmp_path / "add.py")
    # the default, the sum, and the condition and its comparison
    assert [SOURCE.splitlines()[line - 1].strip()[:5] for line, _ in places] == [
        "def a",
        "total",
        "if to",
        "if to",
    ]


@pytest.mark.parametrize("package", ["step", "evaluation"])
def test_mutants_are_drawn_by_seed_and_differ_at_one_place(package):
    drawn = mutations.sample(package, 6, seed=3)
    assert drawn == mutations.sample(package, 6, seed=3)
    assert drawn != mutations.sample(package, 6, seed=4)
    for mutant in drawn:
        source = (table.ROOT / mutant.file).read_text()
        assert ast.dump(ast.parse(mutant.code)) != ast.dump(ast.parse(source))
        assert mutant.diff.count("@@ ") == 1
        assert table.tests_of(package, mutant.file)


def test_the_table_names_files_that_exist():
    for package, row in table.PACKAGES.items():
        for path in row.by_path:
            source = pathlib.Path(row.source, path)
            assert (table.ROOT / source).exists(), source
            for test in table.tests_of(package, source):
                assert (table.ROOT / test.partition("::")[0]).exists(), test


def test_each_listed_survivor_is_a_line_of_the_package():
    """If a line has changed since, its mutant must be tried again."""
    file, listed = None, 0
    for line in program.LISTED.read_text().splitlines():
        if line.startswith("### "):
            file = table.ROOT / line.removeprefix("### ").strip("`")
        elif line.startswith("-"):
            assert line[1:] in file.read_text().splitlines()
            listed += 1
    assert listed


@pytest.mark.slow
def test_the_tests_notice_most_of_a_small_sample(tmp_path):
    command = [sys.executable, "-m", "tests.mutants", "image", "--sample=10", "--seed=0"]
    done = subprocess.run(
        [*command, f"--out={tmp_path}"], cwd=table.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    mutants = json.loads((tmp_path / "mutants.json").read_text())["mutants"]
    outcomes = collections.Counter(mutant["outcome"] for mutant in mutants)
    assert outcomes.total() == 10
    assert outcomes["survived"] <= 2, done.stdout
