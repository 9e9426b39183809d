"""The results of a comparison of regularisers: means, and differences paired by seed.

Intervals and p-values are from Student's t over seeds, as in the summary of a sweep: they describe
the uncertainty of a mean over training runs, on one test set. The contrasts chosen beforehand are
one family for Holm's correction, over all settings of the plan; the other differences of each
setting are a separate family. A contrast without a p-value, because its setting is not finished or
the difference is the same for all seeds, counts as p = 1. So while settings are missing, the
p-values are upper bounds: those of the finished study are the same or smaller.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pnoise_jax import evaluation
from pnoise_jax.studies.regularisers.plan import NOTHING
from pnoise_jax.studies.regularisers.study_file import SETTING_FILE, as_json, read_setting
from pnoise_jax.studies.sweep import Mean, mean_of
from pnoise_jax.writing import replace_file

VERSION = 2  # of regularisers.json


def write_setting(directory: Path, content: Mapping[str, Any]) -> None:
    """Writes all the measurements of a setting."""
    replace_file(directory / SETTING_FILE, json.dumps(as_json(content), indent=1) + "\n")


def collect(
    path: Path,
    names: Sequence[str] | Mapping[str, Any],
    contrasts: Sequence[Sequence[str]],
    command: str | None,
) -> dict[str, Any]:
    """Returns the content of regularisers.json: all finished settings of a work directory.

    Args:
      path: the work directory.
      names: names of all settings of the plan, in the order of the report.
      contrasts: the pairs of arms chosen beforehand.
      command: the command line.
    """
    files = {name: path / name / SETTING_FILE for name in names}
    settings = {name: read_setting(file) for name, file in files.items() if file.exists()}
    named: list[dict[str, Any]] = []
    for name, setting in settings.items():
        _summarise(setting["arms"], contrasts)
        for arm, other in contrasts:
            top1 = (setting["arms"][each]["top1"] for each in (arm, other))
            named.append({"setting": name, "arm": arm, "against": other} | _difference(*top1))
    size = len(contrasts) * len(names)
    _correct(named, size)
    return {
        "version": VERSION,
        "command": command,
        "contrasts": named,
        "corrected_over": size,
        "settings": settings,
    }


def _summarise(arms: dict[str, Any], contrasts: Sequence[Sequence[str]]) -> None:
    """Adds to each arm its mean, and its differences that are not contrasts."""
    differences = []
    named = set(map(tuple, contrasts))
    for name, arm in arms.items():
        arm["mean"] = _as_json(mean_of(arm["top1"]))
        if "top1_views" in arm:
            arm["mean_views"] = _as_json(mean_of(arm["top1_views"]))
        for key, other in (("over_none", NOTHING), ("over_partner", arm["on_top_of"])):
            if other not in (None, name) and (name, other) not in named:
                arm[key] = _difference(arm["top1"], arms[other]["top1"])
                differences.append(arm[key])
    _correct(differences, len(differences))


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    changes = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean = mean_of(changes, test=True)
    same = {} if mean.p_value is not None else {"same_in_all_seeds": True}
    return _as_json(mean) | same


def _as_json(mean: Mean) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(mean).items() if v is not None}


def _correct(differences: Sequence[dict[str, Any]], size: int) -> None:
    """Adds p-values corrected over a family of this size, and whether differences are resolved."""
    tested = [each for each in differences if "p_value" in each]
    known = [each["p_value"] for each in tested]
    p_values = evaluation.adjust_p_values([*known, *[1.0] * (size - len(known))])
    for each, p_value in zip(tested, p_values, strict=False):
        each["p_adjusted"] = float(p_value)
        each["resolved"] = Mean(p_adjusted=float(p_value)).resolved
