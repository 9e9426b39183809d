"""The bridge: models from pairs of cells, correlations, the table and the figure."""

import csv
import dataclasses
import math

import numpy as np
import pytest

from pnoise_jax import runs
from pnoise_jax.studies import bridge, bridge_figure
from pnoise_jax.studies.reporting import style
from pnoise_jax.training import default_config

FIELDS = ("duration", "model.dim", "model.depth", "model.pooling", "noise.name", "seed")
FIELDS += ("clean_top1", "shuffled_top1", "class_sorted_top1")


def model(drop, leak, *, depth=2, seed=0, pooling="token"):
    return bridge.Model(depth, 64, pooling, 30, seed, 80.0, 80.0 - drop, 60.0, 80.0 + leak)


def write_sweep(path, rows, *, name="digits", more=()):
    """A work directory as pnoise sweep leaves it; ``more`` are further columns of the rows."""
    path.mkdir()
    with (path / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([(*FIELDS, *more), *rows])
    config = default_config()
    config.data.name = name
    runs.write_config(path / "base_config.json", config)
    return path


ROWS = [
    ("30 epochs", 64, 2, "token", "", 0, 80.0, 70.0, 90.5),
    ("30 epochs", 64, 2, "token", "erase", 0, 80.0, 50.0, 50.0),
    ("30 epochs", 64, 2, "mean", "", 0, 85.0, 70.0, 86.0),  # not finished: its pair is missing
]


def test_the_two_cells_of_a_training_become_one_model(tmp_path):
    (result,) = bridge.read_models(write_sweep(tmp_path / "sweep", ROWS))
    assert result == bridge.Model(2, 64, "token", 30, 0, 80.0, 50.0, 70.0, 90.5)
    assert (result.drop, result.over_clean, result.over_shuffled) == (30.0, 10.5, 20.5)


def test_a_directory_without_a_readable_table_is_refused_with_a_fix(tmp_path):
    with pytest.raises(
        OSError, match=r"results\.csv cannot be read \(.*\): give the work directory"
    ):
        bridge.read_models(tmp_path)
    (tmp_path / "results.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"results\.csv is not a table in CSV \(.*: give the work"):
        bridge.read_models(tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no row: give the work directory"),
        (ROWS[:1], "has no model that is evaluated both with noise and with noise.name=erase"),
        ([*ROWS[:2], (*ROWS[2], "1")], "a row with more or fewer cells than there are columns"),
        ([*ROWS[:2], ROWS[2][:4]], "a row with more or fewer cells than there are columns"),
        ([("300 steps", *row[1:]) for row in ROWS], "duration='300 steps': .* such as '30 epochs'"),
    ],
)
def test_an_unsuitable_sweep_is_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        bridge.read_models(write_sweep(tmp_path / "sweep", rows))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "noise.strength",
            ("1.0", "", "0.1"),
            r"noise\.strength varies \('1\.0', '0\.1'\), but mod",
        ),
        ("optimizer.learning_rate", ("0.1", "0.1", "0.2"), r"rate varies .* a separate sweep for"),
        ("optimizer.learning_rate", ("0.1", "0.2", "0.1"), "optimizer.learning_rate varies"),
        ("data.name", ("digits", "digits", "glyphs"), r"data\.name varies \('digits', 'glyphs'\)"),
        ("noise.layer", ("2", "1", "2"), r"noise\.layer varies \('2', '1'\), but models are"),
        ("run", ("runs/a", "runs/b", "runs/c"), "seed=0 come from two trainings .run='runs/a' and"),
    ],
)
def test_cells_that_a_model_does_not_tell_apart_are_refused(tmp_path, column, values, message):
    rows = [(*row, value) for row, value in zip(ROWS, values, strict=True)]
    with pytest.raises(ValueError, match=message):
        bridge.read_models(write_sweep(tmp_path / "sweep", rows, more=(column,)))


def test_the_two_cells_may_differ_in_their_noise(tmp_path):
    rows = [(*row, value) for row, value in zip(ROWS, ("1.0", "", "1.0"), strict=True)]
    assert len(bridge.read_models(write_sweep(tmp_path / "sweep", rows, more=("noise.x",)))) == 1


def test_a_model_that_comes_twice_is_refused(tmp_path):
    rows = [*ROWS, (*ROWS[0][:6], 20.0, 10.0, 30.0)]
    with pytest.raises(ValueError, match=r"two rows with noise\.name='' of one model \(model\.dep"):
        bridge.read_models(write_sweep(tmp_path / "sweep", rows))
    gaussian = (*ROWS[0][:4], "gaussian", *ROWS[0][5:])
    with pytest.raises(ValueError, match=r"noise\.name varies \('', 'gaussian'\)"):
        bridge.read_models(write_sweep(tmp_path / "other", [*ROWS, gaussian]))


def test_another_sweep_is_refused_by_the_column_that_it_lacks(tmp_path):
    (tmp_path / "results.csv").write_text("seed,noise.strength\n0,0.3\n")
    with pytest.raises(
        ValueError, match=r"results.csv has no model.depth: give the work directory"
    ):
        bridge.read_models(tmp_path)


def test_a_monotone_relation_correlates_fully_and_a_shuffled_one_does_not():
    drops = np.linspace(0, 40, 24)
    rising = [model(d, d**2 / 100, depth=i // 2, seed=i % 2) for i, d in enumerate(drops)]
    result = bridge.correlate(rising, "over_clean")
    assert (result.value, result.interval) == (
        pytest.approx(1),
        (pytest.approx(1), pytest.approx(1)),
    )
    assert (result.models, result.cells) == (24, 12)
    assert str(result) == "1.00 (1.00 to 1.00; 24 models)"
    leaks = np.random.default_rng(0).permutation(drops)
    mixed = [model(d, leak, depth=i) for i, (d, leak) in enumerate(zip(drops, leaks, strict=True))]
    low, high = bridge.correlate(mixed, "over_clean").interval
    assert low < 0 < high


def test_seeds_of_one_cell_are_not_independent_evidence():
    """The same points give a narrower interval as separate cells than as repeats of a few."""
    generator = np.random.default_rng(1)
    drops = generator.uniform(0, 40, 8)
    leaks = drops + generator.normal(0, 15, 8)
    points = [(i, d, leak) for i, (d, leak) in enumerate(zip(drops, leaks, strict=True))] * 4
    repeats = [model(d, leak, depth=i, seed=n) for n, (i, d, leak) in enumerate(points)]
    apart = [dataclasses.replace(m, depth=n) for n, m in enumerate(repeats)]
    widths = [np.ptp(bridge.correlate(group, "over_clean").interval) for group in (repeats, apart)]
    assert widths[0] > 1.5 * widths[1]


def test_too_few_cells_have_no_interval():
    result = bridge.correlate([model(1, 1, seed=0), model(2, 3, seed=1)], "over_clean")
    assert result.value == pytest.approx(1)
    assert all(map(math.isnan, result.interval))
    assert math.isnan(bridge.correlate([model(1, 1), model(1, 3, seed=1)], "over_clean").value)


def test_cells_that_leak_as_claimed_are_listed_by_their_mean_over_seeds():
    cells = [
        model(30, 8, seed=0),
        model(34, 11, seed=1),
        model(5, 2, depth=4),
        model(9, 9, depth=8),
    ]
    mean = bridge.mean_cells(cells)[0]
    assert (mean["depth"], mean["drop"], mean["over_clean"]) == (2, 32.0, 9.5)
    assert mean["errors_removed"] == pytest.approx(47.5)  # 9.5 of 20 points
    text = bridge.describe("digits", cells)
    assert "2 of 3 cells leak 9 points over clean" in text
    assert text.index("depth=2, width=64") < text.index("depth=8, width=64")
    assert "depth=4" not in text


def test_the_figure_has_every_model_in_both_rows_and_the_claim_in_the_first():
    groups = {"digits": [model(1, 2), model(30, 12, pooling="mean")], "glyphs": [model(3, 4)]}
    figure = bridge_figure.bridge_figure(groups)
    claim, over = figure.axes[0], figure.axes[2]
    drawn = [
        ax.collections + [line for line in ax.lines if line.get_marker() != "None"]
        for ax in figure.axes
    ]
    assert [len(lines) for lines in drawn] == [2, 1, 2, 1]
    assert [tuple(np.ravel(line.get_xydata())) for line in drawn[0]] == [(1, 2), (30, 12)]
    assert [tuple(np.ravel(line.get_xydata())) for line in drawn[2]] == [(1, 22), (30, 32)]
    assert [patch.get_y() for patch in claim.patches] == [bridge_figure.CLAIMED[0]]
    assert not over.patches
    assert style.svg(figure) == style.svg(bridge_figure.bridge_figure(groups))


@pytest.mark.parametrize("pooling", ["token", "mean", "mean_then_norm"])
def test_every_head_of_a_vit_has_a_colour_and_a_name(pooling):
    figure = bridge_figure.bridge_figure({"digits": [model(1, 2, pooling=pooling)]})
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [bridge_figure._HEADS[pooling], "the paper's gain"]
