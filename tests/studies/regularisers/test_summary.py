"""Differences are paired by seed, and corrected in two families."""

import json

import pytest
from scipy import stats

from pnoise_jax.studies.regularisers import report, summary

TOP1 = {
    "none": [70.0, 74.0, 72.0],
    "noise": [80.0, 83.0, 84.0],
    "twin": [81.0, 82.0, 86.0],
    "mixup": [88.0, 90.0, 91.0],
    "mixup + noise": [87.0, 90.5, 91.0],
}
CONTRASTS = [("noise", "twin"), ("mixup + noise", "mixup")]


def setting():
    arms = {
        name: {
            "fields": {"optimizer.learning_rate": 0.001, "noise.train": True},
            "on_top_of": "mixup" if " + " in name else None,
            "top1": top1,
        }
        for name, top1 in TOP1.items()
    }
    arms["mixup"] |= {"views": 5, "top1_views": [89.0, 90.0, 91.0]}
    floors = {"1-NN": {"chosen": {"metric": "cosine"}, "top1": 97.0, "low": 95.7, "high": 98.0}}
    stage = {"data.train_split": "train[:30]", "data.test_split": "train[40:]", "seeds": [1]}
    test = stage | {"data.test_split": "test", "seeds": [5, 6, 7]}
    return {"data": "digits", "tuning": stage, "test": test, "arms": arms, "floors": floors}


@pytest.fixture
def content(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        summary.write_setting(tmp_path / name, setting())
    return summary.collect(tmp_path, ["first", "missing", "second"], CONTRASTS, None)


def test_a_contrast_is_a_paired_t_test(content):
    contrast = content["contrasts"][0]
    expected = stats.ttest_rel(TOP1["noise"], TOP1["twin"])
    assert contrast["value"] == pytest.approx(-2 / 3)
    assert contrast["p_value"] == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (contrast["low"], contrast["high"]) == pytest.approx((low, high))


def test_named_contrasts_are_one_family_and_a_settings_other_differences_another(content):
    named = content["contrasts"]
    assert [each["setting"] for each in named] == ["first", "first", "second", "second"]
    smallest = min(named, key=lambda each: each["p_value"])
    assert smallest["p_adjusted"] == pytest.approx(min(1, 4 * smallest["p_value"]))
    arms = content["settings"]["first"]["arms"]
    secondary = [arm[key] for arm in arms.values() for key in arm if key.startswith("over_")]
    assert len(secondary) == 4  # noise, twin, mixup and mixup + noise, each over none
    smallest = min(secondary, key=lambda each: each["p_value"])
    assert smallest["p_adjusted"] == pytest.approx(min(1, 4 * smallest["p_value"]))
    assert "over_partner" not in arms["mixup + noise"]  # a contrast has it


def test_the_files_hold_all_that_was_measured(content, tmp_path):
    report.write(tmp_path, content)
    assert {file.name for file in tmp_path.glob("regularisers.*")} == set(report.FILES)
    assert json.loads((tmp_path / "regularisers.json").read_text()) == content
    rows = (tmp_path / "regularisers.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 5 * 3
    table = (tmp_path / "regularisers.md").read_text()
    assert "| first | noise − twin | −0.7 ±" in table
    assert "| mixup | 89.7 ±" in table
    assert "| 90.0 ± 2.5 (5) |" in table
    assert "| 1-NN, on pixels | 97.0 (95.7 to 98.0) |" in table
    assert "missing" not in table
