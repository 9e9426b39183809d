"""Summaries: the intervals by hand, the groups, the panels."""

import csv
import io
import math
import types

import pytest
from scipy import stats

from pnoise_jax.studies.sweep import summary as sweep_summary
from pnoise_jax.studies.sweep.summary import mean_of, panels, summarise
from pnoise_jax.terminal import create_console


def test_the_interval_is_students():
    values = [70.0, 72.0, 77.0]
    mean = mean_of(values, test=True)
    half = stats.t.ppf(0.975, 2) * math.sqrt(13 / 3)  # the variance of these is 13
    assert (mean.value, mean.low, mean.high) == pytest.approx((73, 73 - half, 73 + half))
    pairs = stats.ttest_rel([170.0, 172.0, 177.0], [100.0, 100.0, 100.0])
    assert mean.p_value == pytest.approx(pairs.pvalue)


def test_one_seed_and_equal_values_have_no_interval():
    assert mean_of([]) == sweep_summary.Mean()
    assert mean_of([50.0]) == sweep_summary.Mean(50.0)
    assert mean_of([50.0, 50.0]) == sweep_summary.Mean(50.0)


def test_a_difference_that_is_the_same_in_all_seeds_has_no_interval():
    assert mean_of([1.0, 1.0], test=True) == sweep_summary.Mean(1.0)
    assert mean_of([0.0, 0.0], test=True) == sweep_summary.Mean(0.0)


def sweep_of(clean, *, shuffled=None, field="noise.strength"):
    """Cells and results; clean top-1 by {(a field's value, seed): percent}."""
    cells = [types.SimpleNamespace(values={field: value, "seed": seed}) for value, seed in clean]
    rows = {
        key: {
            "clean_top1": str(value),
            "shuffled_top1": "" if shuffled is None else str(shuffled),
            "class_sorted_top1": "",
        }
        for key, value in clean.items()
    }
    results = types.SimpleNamespace(get=lambda cell: rows[tuple(cell.values.values())])
    for cell in cells:
        cell.experiment = types.SimpleNamespace(config=types.SimpleNamespace(seed=0))
    return cells, results


CLEAN = {
    ("0.1", "0"): 70.0,
    ("0.1", "1"): 74.0,
    ("0.3", "0"): 60.0,
    ("0.3", "1"): 65.0,
    ("0.2", "1"): 74.5,  # another order, and a seed that the baseline lacks
    ("0.2", "0"): 69.5,
    ("0.2", "2"): 10.0,
}


def test_differences_are_from_the_first_group_paired_by_seed():
    baseline, worse, same = summarise(*sweep_of(CLEAN))
    assert baseline.difference == sweep_summary.Mean()
    assert worse.difference.value == pytest.approx(-9.5)
    assert worse.difference.p_value == pytest.approx(stats.ttest_rel([60, 65], [70, 74]).pvalue)
    assert worse.difference.high == pytest.approx(-3.1, abs=0.1)  # of -10 and -9
    assert worse.difference.p_adjusted == pytest.approx(2 * worse.difference.p_value)
    assert not worse.difference.resolved  # though its own interval excludes 0
    assert same.means["clean"].value == pytest.approx(154 / 3)
    assert same.difference.value == pytest.approx(0)
    assert same.difference.p_adjusted == pytest.approx(1)
    assert same.difference.resolved is False


def printed(groups, width=160):
    text = io.StringIO()
    console = create_console(file=text, width=width)
    sweep_summary.print_summary(console, groups, title="a title")
    return text.getvalue()


def test_a_difference_says_on_how_many_common_seeds_it_rests(tmp_path):
    clean = {("0", seed): 70.0 + int(seed) for seed in "012"}
    clean |= {("1", seed): 72.0 for seed in "234"}
    clean |= {("2", seed): 60.0 for seed in "34"}
    clean |= {("3", seed): 65.0 for seed in "012"}
    clean |= {("4", seed): 65.0 for seed in "01"}
    groups = summarise(*sweep_of(clean))
    assert [group.common_seeds for group in groups] == [None, 1, 0, 3, 2]
    assert [group.difference.value for group in groups] == [None, 0, None, -6, -5.5]
    lines = [line.rstrip() for line in printed(groups).splitlines() if "strength=" in line]
    assert lines[0].endswith("71.0 ± 2.5")
    assert lines[1].endswith("+0.0 (1 seed)")
    assert lines[2].endswith("no common seed")
    assert lines[3].endswith("-6.0 ± 2.5")
    assert lines[4].endswith("-5.5 ± 6.4 not resolved (2 seeds)")
    sweep_summary.write_summary(tmp_path / "summary.csv", groups)
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["difference_seeds"] for row in rows] == ["", "1", "0", "3", "2"]


def test_p_values_are_corrected_over_both_kinds_of_difference():
    rows = summarise(*sweep_of(CLEAN, shuffled=50))
    p = {
        (row, name): getattr(group, name).p_value
        for row, group in enumerate(rows)
        for name in sweep_summary.DIFFERENCES
    }
    smallest = min((p_value, key) for key, p_value in p.items() if p_value is not None)
    assert list(p.values()).count(None) == 1  # the baseline's difference from itself
    p_value, (row, name) = smallest
    assert getattr(rows[row], name).p_adjusted == pytest.approx(5 * p_value)


def test_what_all_seeds_show_clearly_is_resolved():
    drop = {("0", seed): 80.0 for seed in "01234"}
    drop |= {("1", seed): 60 + 0.1 * int(seed) for seed in "01234"}
    _, worse = summarise(*sweep_of(drop))
    assert worse.difference.resolved is True
    assert worse.at_inference.resolved is None
    assert sweep_summary._change(worse.difference) == "-19.8 ± 0.2"


def test_other_data_are_not_compared():
    for field, compared in (("data.test_split", False), ("data.num_threads", True)):
        cells, results = sweep_of(CLEAN, field=field)
        _, second, _ = summarise(cells, results)
        assert (second.difference.value is not None) == compared
        assert (second.common_seeds is not None) == compared


def test_at_inference_is_shuffled_minus_clean_of_the_same_weights():
    baseline, worse, same = summarise(*sweep_of(CLEAN, shuffled=50))
    assert baseline.at_inference.value == pytest.approx(-22)
    assert worse.at_inference.p_value == pytest.approx(stats.ttest_rel([50, 50], [60, 65]).pvalue)
    assert worse.at_inference.resolved is False  # -10, -15: two seeds are few
    assert summarise(*sweep_of(CLEAN))[0].at_inference == sweep_summary.Mean()
    assert same.at_inference.value == pytest.approx(50 - 154 / 3)


def test_numbers_make_a_panel_in_their_order():
    (panel,) = panels(summarise(*sweep_of(CLEAN, shuffled=50)))
    assert panel.x_label == "strength"
    assert panel.x == [0.1, 0.2, 0.3]
    assert list(panel.lines) == ["clean", "noisy, shuffled"]
    assert panel.lines["clean"].mean == pytest.approx([72, 154 / 3, 62.5])
    assert panel.lines["noisy, shuffled"].low is None  # the same in all seeds


def test_one_seed_has_no_band_and_two_values_no_panel():
    one_seed = {key: value for key, value in CLEAN.items() if key[1] == "0"}
    (panel,) = panels(summarise(*sweep_of(one_seed)))
    assert panel.lines["clean"].low is None
    del one_seed["0.3", "0"]
    assert panels(summarise(*sweep_of(one_seed))) == []


def test_the_summary_is_written_and_printed(tmp_path):
    groups = summarise(*sweep_of(CLEAN, shuffled=50))
    sweep_summary.write_summary(tmp_path / "summary.csv", groups)
    with (tmp_path / "summary.csv").open(newline="") as file:
        first, second, _ = csv.DictReader(file)
    assert (first["noise.strength"], first["seeds"], first["difference"]) == ("0.1", "2", "")
    assert float(second["difference"]) == pytest.approx(-9.5)
    assert second["difference_resolved"] == "false"
    assert float(second["difference_p_adjusted"]) == pytest.approx(5 * 0.0335, abs=1e-3)
    assert float(second["difference_p_value"]) == pytest.approx(0.0335, abs=1e-4)
    assert float(second["at_inference"]) == pytest.approx(-12.5)
    text = printed(groups)
    assert "strength=0.3" in text
    assert "-9.5 ± 6.4 not resolved" in text
    assert "72.0 ± 25.4" in text
    assert "mean over 2 to 3 seeds" in text
    assert "Δ clean" in text
    assert "corrected by Holm over the table's 5 differences" in " ".join(text.split())
    assert len(sweep_summary.write_figure(tmp_path, groups)) == 2
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")
    assert sweep_summary.write_figure(tmp_path, groups[:2]) == []
    assert [path.name for path in tmp_path.iterdir()] == ["summary.csv"]


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_console_loses_no_number(width):
    clean = {(f"0.{line}23456789", seed): 9.0 * line for line in (1, 2, 3) for seed in "01"}
    clean["0.323456789", "1"] = 90.0
    groups = summarise(*sweep_of(clean, shuffled=50))
    wide, narrow = (
        printed(groups, columns).partition("Top-1")[0].replace("─", "") for columns in (300, width)
    )
    assert wide.count("±") == 3
    assert wide.count("not resolved") == 2
    assert sorted(narrow.split()) == sorted(wide.split())
    assert "+49.5 ± 400.2" in narrow  # a number and its interval stay on one line
