"""study.json: records which comparison a work directory belongs to, so that none are mixed."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from pnoise_jax import writing
from pnoise_jax.runs import STUDY
from pnoise_jax.studies.regularisers.plan import Arm, Seeds, Setting
from pnoise_jax.studies.sweep import override
from pnoise_jax.studies.sweep import results as sweep_results
from pnoise_jax.studies.training_runs import require_no_run
from pnoise_jax.training import FIELDS, NOT_OF_RESULTS, flatten, starting_weights

SETTING_FILE = "setting.json"  # in the directory of a finished setting
STAGES = ("tuning", "tuning_on_top", "test")  # the sweeps of a setting
_SHOWN = 5  # the most differences that an error lists


def describe(
    config: ml_collections.ConfigDict,
    arms: Mapping[str, Arm],
    settings: Mapping[str, Setting],
    seeds: Seeds,
    contrasts: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Describes a comparison as plain JSON."""
    return as_json(
        {
            "config": dict(flatten(config)),
            "arms": {name: _shallow(arm) for name, arm in arms.items()},
            "settings": {name: _shallow(setting) for name, setting in settings.items()},
            "seeds": _shallow(seeds),
            "contrasts": contrasts,
            "weights_content": config.weights and starting_weights.find_fingerprint(config.weights),
        }
    )


def as_json(content: Any) -> Any:
    """Returns the content as it would be after writing it as JSON and reading it."""
    return json.loads(json.dumps(content, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, ml_collections.ConfigDict):
        return value.to_dict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _shallow(thing: Any) -> dict[str, Any]:
    return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}


def claim(
    path: Path,
    described: Mapping[str, Any],
    config: ml_collections.ConfigDict,
    settings: Mapping[str, Setting],
) -> None:
    """Claims a work directory for a comparison, or checks that it already belongs to it.

    A directory of an older version, without the file, is claimed if its finished settings and
    started sweeps belong to the same comparison.

    Args:
      path: the work directory.
      described: the comparison, from `describe`.
      config: the config of all runs.
      settings: all settings of the comparison.

    Raises:
      ValueError: the directory contains a run, or belongs to another comparison; the message lists
        the differences.
      OSError: the directory cannot be read or written.
    """
    writing.require_places(path, named=f"--workdir={str(path)!r}", files=(STUDY,))
    require_no_run(path)
    if not (path / STUDY).exists():
        differing = [
            each for name in described["settings"] for each in _other(path, name, described)
        ]
        if differing:
            raise _another_study(path, differing)
        _require_same_sweeps(path, config, settings)
    try:
        writing.create_file(path / STUDY, json.dumps(described, indent=1) + "\n")
    except FileExistsError:  # by an earlier call, or by a process that started at the same time
        _require_same(path, _read(path / STUDY), described)


def _require_same(path: Path, stored: Any, described: Mapping[str, Any]) -> None:
    ours, theirs = (_comparable(each) for each in (stored, described))
    content = ours.pop("weights_content", None)
    if theirs.pop("weights_content") in (content, None) and content is not None:
        # As in the sweeps, the path can differ if the weights are the same or no longer exist.
        ours["config"].pop("weights", None)
        theirs["config"].pop("weights", None)
    differing = list(differences(ours, theirs))
    if differing:
        raise _another_study(path, differing)


def _another_study(path: Path, differing: Sequence[str]) -> ValueError:
    more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    return ValueError(
        f"--workdir={str(path)!r} contains another comparison ({'; '.join(differing[:_SHOWN])}"
        f"{more}): choose another directory, or set these back"
    )


def _other(path: Path, name: str, described: Mapping[str, Any]) -> list[str]:
    """Returns how a finished setting differs from the described one."""
    file = path / name / SETTING_FILE
    if not file.exists():
        return []
    content, setting = read_setting(file), Setting(**described["settings"][name])
    seeds, arms = described["seeds"], described["arms"]
    there: dict[str, Any] = {stage: content[stage] for stage in ("tuning", "test")}
    now: dict[str, Any] = {
        stage: {**setting.splits(tuning=stage == "tuning"), "seeds": seeds[stage]}
        for stage in ("tuning", "test")
    }
    there["arms"] = {
        arm: {
            "candidates": [tried["fields"] for tried in of_arm.get("tuning", ())],
            "on_top_of": of_arm["on_top_of"],
            "views": of_arm.get("views", 1),
        }
        for arm, of_arm in content["arms"].items()
    }
    chosen = {arm: of_arm["fields"] for arm, of_arm in content["arms"].items()}
    now["arms"] = {
        arm: {
            **of_arm,
            "candidates": [
                {**chosen.get(of_arm["on_top_of"], {}), **fields} for fields in of_arm["candidates"]
            ],
        }
        for arm, of_arm in arms.items()
    }
    return list(differences(there, now, name))


def read_setting(file: Path) -> dict[str, Any]:
    """Reads the measurements of a finished setting.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        content = json.loads(file.read_text())
        parts = [
            content["data"],
            content["floors"],
            content["tuning"]["seeds"],
            content["test"]["seeds"],
        ]
        for arm in content["arms"].values():  # a KeyError names the missing part
            parts += [arm["fields"], arm["top1"], arm["on_top_of"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({error!r}): restore it from a copy, or delete it and rerun the "
            "command, which rewrites it from the sweeps next to it"
        ) from None
    return content


def _require_same_sweeps(
    path: Path, config: ml_collections.ConfigDict, settings: Mapping[str, Setting]
) -> None:
    """Raises ValueError, naming the sweep, if a started sweep has another base config."""
    for name, setting in settings.items():
        for stage in STAGES:
            directory = path / name / stage
            if sweep_results.has_results(directory):  # claiming one with results writes nothing
                splits = setting.splits(tuning=stage != "test")
                sweep_results.claim(directory, override(config, {**setting.fields, **splits}))


def _comparable(described: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts that results depend on; fields newer than the file get their defaults."""
    defaults = as_json({name: field.default for name, field in FIELDS.items()})
    config = {k: v for k, v in (defaults | described["config"]).items() if v is not None}
    return {
        **described,
        "config": {k: v for k, v in config.items() if not k.startswith(NOT_OF_RESULTS)},
    }


def differences(there: Any, now: Any, place: str = "") -> Iterator[str]:
    """Yields a description of each difference between two pieces of JSON."""
    if _are(list, there, now) and len(there) == len(now) and _are(dict, *there, *now):
        there, now = ({str(i): x for i, x in enumerate(each, 1)} for each in (there, now))
    if _are(dict, there, now):
        for key in dict.fromkeys((*there, *now)):
            within = f"{place} / {key}" if place else key
            if key in there and key in now:
                yield from differences(there[key], now[key], within)
            else:
                side, value = ("there", there[key]) if key in there else ("now", now[key])
                yield f"{within}: {value!r} only {side}"
    elif there != now:
        yield f"{place}: {there!r} there, {now!r} now"


def _are(kind: type, *values: Any) -> bool:
    return all(isinstance(value, kind) for value in values)


def _read(file: Path) -> dict[str, Any]:
    """Reads the content of study.json."""
    try:
        stored = json.loads(file.read_text())
        if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
            raise ValueError("no config in it")
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}), so its comparison is unknown: restore it from "
            "a copy, or choose another --workdir"
        ) from None
    return stored
