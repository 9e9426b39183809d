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
    assert content["corrected_over"] == 6  # including the missing setting
    assert smallest["p_adjusted"] == pytest.approx(min(1, 6 * smallest["p_value"]))
    arms = content["settings"]["first"]["arms"]
    secondary = [arm[key] for arm in arms.values() for key in arm if key.startswith("over_")]
    assert len(secondary) == 4  # noise, twin, mixup and mixup + noise, each over none
    smallest = min(secondary, key=lambda each: each["p_value"])
    assert smallest["p_adjusted"] == pytest.approx(min(1, 4 * smallest["p_value"]))
    assert "over_partner" not in arms["mixup + noise"]  # that is a contrast


def test_what_is_missing_can_only_lower_the_corrected_p_values(content, tmp_path):
    (tmp_path / "missing").mkdir()
    better = setting()
    better["arms"]["noise"]["top1"] = [91.0, 92.1, 96.0]  # 10 more than the twin
    summary.write_setting(tmp_path / "missing", better)
    finished = summary.collect(tmp_path, ["first", "missing", "second"], CONTRASTS, None)
    before = {(each["setting"], each["arm"]): each["p_adjusted"] for each in content["contrasts"]}
    after = {(each["setting"], each["arm"]): each["p_adjusted"] for each in finished["contrasts"]}
    assert len(before) == 4
    assert len(after) == 6
    assert all(after[key] <= p for key, p in before.items())
    assert "(provisional: corrected over 4 of 6 finished;" in report.markdown(content)
    assert "(corrected over 6 of 6 finished):" in report.markdown(finished)
    assert "provisional" not in report.markdown(finished)


def test_a_contrast_that_is_the_same_in_all_seeds_stays_in_its_family(tmp_path):
    (tmp_path / "first").mkdir()
    constant = setting()
    constant["arms"]["noise"]["top1"] = [top1 + 1 for top1 in TOP1["twin"]]
    constant["arms"]["twin"]["top1"] = TOP1["twin"]
    constant["arms"]["mixup"]["top1"] = [top1 + 5 for top1 in TOP1["none"]]
    summary.write_setting(tmp_path / "first", constant)
    content = summary.collect(tmp_path, ["first"], CONTRASTS, None)
    same, other = content["contrasts"]
    assert same["same_in_all_seeds"]
    assert "p_adjusted" not in same
    assert other["p_adjusted"] == pytest.approx(min(1, 2 * other["p_value"]))
    table = report.markdown(content)
    assert "| first | noise − twin | +1.0, same in all seeds |  |" in table
    arms = content["settings"]["first"]["arms"]
    assert "| mixup | 77.0 ± 5.0 | +5.0, same in all seeds |" in table
    tested = [arms[arm]["over_none"] for arm in ("noise", "twin", "mixup + noise")]
    smallest = min(tested, key=lambda each: each["p_value"])
    assert smallest["p_adjusted"] == pytest.approx(min(1, 4 * smallest["p_value"]))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"data": "digits"}'])
def test_a_damaged_setting_is_named(text, content, tmp_path):
    (tmp_path / "first" / "setting.json").write_text(text)
    with pytest.raises(ValueError, match=r"first/setting\.json is damaged"):
        summary.collect(tmp_path, ["first"], CONTRASTS, None)


def test_all_chosen_fields_are_shown(tmp_path):
    (tmp_path / "first").mkdir()
    chosen = setting()
    chosen["arms"]["noise"]["fields"] = {
        "noise.name": "linear_transform",
        "noise.train": True,
        "data.train_transform": "none|random_shift(1)",
    }
    summary.write_setting(tmp_path / "first", chosen)
    table = report.markdown(summary.collect(tmp_path, ["first"], [], None))
    assert table.startswith("No contrasts were chosen beforehand.")
    (row,) = (line for line in table.splitlines() if line.startswith("| noise |"))
    assert "noise.name linear_transform, train True, " in row
    assert r"train_transform none\|random_shift(1), learning_rate of the config |" in row
    assert row.replace(r"\|", "").count("|") == 7


def test_the_files_contain_all_measurements(content, tmp_path):
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
    assert "| missing" not in table


def test_an_arm_whose_seeds_agree_is_drawn_without_an_interval(tmp_path):
    (tmp_path / "first").mkdir()
    same = setting()
    same["arms"]["noise"]["top1"] = [80.0, 80.0, 80.0]
    summary.write_setting(tmp_path / "first", same)
    content = summary.collect(tmp_path, ["first"], [], None)
    assert "low" not in content["settings"]["first"]["arms"]["noise"]["mean"]
    report.write(tmp_path, content)
    assert "| noise | 80.0 |" in (tmp_path / "regularisers.md").read_text()
