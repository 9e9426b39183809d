"""Rejects unfair comparisons and unknown or misspelt names before any training."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from pnoise_jax import data, writing
from pnoise_jax.registry import did_you_mean
from pnoise_jax.studies.regularisers.plan import NOTHING, Arm, Setting

# Sections and fields that must be the same for all arms, and where to set them.
_COMMON = {
    **dict.fromkeys(("data.train_split", "data.test_split"), "a Setting's splits"),
    **dict.fromkeys(("data", "duration", "steps"), "get_config() or a Setting's fields"),
    **dict.fromkeys(
        ("batch_size", "accumulate", "fsdp", "tensor_parallel", "task"),
        "get_config() or a Setting's fields",
    ),
    **dict.fromkeys(
        ("weights", "weights_head", "weights_required"), "get_config() or a Setting's fields"
    ),
    "seed": "Seeds",
    "evaluation.views": "Arm(views=...)",
    "evaluation": "get_config() or a Setting's fields",
}
_FREE = "data.train_transform"  # the one field of the data that regularises
_OF_SETTINGS = {
    "data.train_split": "train and tune_on",
    "data.test_split": "test and held_out",
    "seed": "Seeds",
}


def check_settings(settings: Any) -> None:
    """Raises ValueError unless these are settings whose names are valid directory names."""
    _require_mapping("settings()", settings, "Setting(train=..., held_out=..., test=...)")
    for name, setting in settings.items():
        named = f"settings()[{name!r}]"
        plain = isinstance(name, str) and "." not in name and writing.file_name(name) == name
        if not plain:
            raise ValueError(
                f"{named}: the name becomes a directory: use letters, digits and underscores"
            )
        if not isinstance(setting, Setting):
            raise ValueError(f"{named} is {setting!r}: give a Setting(train=..., ...)")
        for field in ("train", "test", "held_out", "tune_on"):
            split = getattr(setting, field)
            if not isinstance(split, str) and (split is not None or field != "tune_on"):
                raise ValueError(f"{named}: {field}={split!r}: give a split, such as 'train[:300]'")
        _require_fields(f"{named}: fields", setting.fields)
        for field, where in _OF_SETTINGS.items():
            if field in setting.fields:
                raise ValueError(
                    f"{named} sets {field}={setting.fields[field]!r} in its fields, where it "
                    f"would be ignored: set {where} instead"
                )


def check_arms(arms: Any) -> None:
    """Raises ValueError unless all arms have the same budget and data, and existing partners."""
    _require_mapping("arms()", arms, "Arm([{'optimizer.learning_rate': 1e-3}])")
    for name, arm in arms.items():
        _require_arm_types(name, arm)
    if NOTHING not in arms:
        raise ValueError(
            f"arms() has no {NOTHING!r}: add the arm without a regulariser, with which all others "
            "are compared"
        )
    budgets = {name: len(arm.candidates) for name, arm in arms.items()}
    for name, arm in arms.items():
        if not budgets[name] or budgets[name] != budgets[NOTHING]:
            raise ValueError(
                f"arm {name!r} has {budgets[name]} candidates and {NOTHING!r} has "
                f"{budgets[NOTHING]}: give all arms the same number, since a larger budget alone "
                "raises the accuracy"
            )
        for fields in arm.candidates:
            _require_common(name, fields)
        if arm.on_top_of is not None:
            partner = _require_arm(arms, arm.on_top_of, f"arm {name!r} is on top of")
            if partner.on_top_of is not None:
                raise ValueError(
                    f"arm {name!r} is on top of {arm.on_top_of!r}, which is itself on top of "
                    f"{partner.on_top_of!r}: name an arm that is on top of none"
                )


def check_contrasts(contrasts: Any, arms: Mapping[str, Arm]) -> None:
    """Raises ValueError unless these are pairs of different arms, without duplicates."""
    if not _is_list(contrasts):
        raise ValueError(
            f"contrasts() returns {contrasts!r}: give a list of pairs, such as [('noise', 'none')]"
        )
    seen: list[set[str]] = []
    for pair in contrasts:
        if not _is_list(pair) or len(pair) != 2 or not all(isinstance(n, str) for n in pair):
            raise ValueError(
                f"contrasts() has {pair!r}: give the names of two arms, such as ('noise', 'none')"
            )
        for name in pair:
            _require_arm(arms, name, "contrasts() names")
        if pair[0] == pair[1]:
            raise ValueError(
                f"contrasts() compares arm {pair[0]!r} with itself: name two different arms"
            )
        if set(pair) in seen:
            raise ValueError(
                f"contrasts() has {tuple(pair)!r} twice, in this order or the other, so the "
                "correction would count the difference twice: give each pair once"
            )
        seen.append(set(pair))


def check_splits(config: ml_collections.ConfigDict, name: str, setting: Setting) -> None:
    """Raises ValueError if tuning would see a test image, or score images that it trained on.

    Args:
      config: the config of the setting, with the location of the data.
      name: the name of the setting.
      setting: the splits of the setting.
    """
    section = config.data
    splits = {
        "train": setting.train,
        "test": setting.test,
        "tune_on": setting.tune_on or setting.train,
        "held_out": setting.held_out,
    }
    loaded = {}
    for field, split in splits.items():
        try:
            loaded[field] = data.load(section.name, split=split, data_dir=section.data_dir)
        except ValueError as error:
            raise ValueError(f"settings()[{name!r}]: {field}={split!r}: {error}") from None
    apart = (("tune_on", "held_out"), ("train", "test"), ("tune_on", "test"), ("held_out", "test"))
    for one, other in apart:
        if data.count_shared(loaded[one], loaded[other]):
            raise ValueError(
                f"settings()[{name!r}]: {one} and {other} have examples in common "
                f"({splits[one]!r}, {splits[other]!r}): name splits without common examples, such "
                "as 'train[:300]', 'train[597:]' and 'test'"
            )


def _require_arm_types(name: Any, arm: Any) -> None:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"arms() has the name {name!r}: give a string, such as 'noise'")
    if not isinstance(arm, Arm):
        raise ValueError(f"arm {name!r} is {arm!r}: give an Arm(candidates)")
    if not _is_list(arm.candidates):
        raise ValueError(
            f"arm {name!r}: candidates={arm.candidates!r}: give a list of dicts, as from product()"
        )
    for number, fields in enumerate(arm.candidates, 1):
        _require_fields(f"arm {name!r}: candidate {number}", fields)
    if arm.on_top_of is not None and not isinstance(arm.on_top_of, str):
        raise ValueError(f"arm {name!r}: on_top_of={arm.on_top_of!r}: give the name of an arm")
    if type(arm.views) is not int or arm.views < 1:
        raise ValueError(f"arm {name!r}: views={arm.views!r}: give a whole number of at least 1")


def _require_common(name: str, fields: Mapping[str, Any]) -> None:
    """Raises ValueError if a candidate changes a field that must be the same for all arms."""
    for field, value in fields.items():
        for common, where in _COMMON.items():
            if field != _FREE and f"{field}.".startswith(f"{common}."):
                raise ValueError(
                    f"arm {name!r} sets {field}={value!r}, which must be the same for all arms, or "
                    "their difference would not be due to the regulariser: leave it out; "
                    f"{where} may set it, for all arms"
                )


def _require_fields(named: str, fields: Any) -> None:
    if not isinstance(fields, Mapping) or not all(isinstance(field, str) for field in fields):
        raise ValueError(
            f"{named} is {fields!r}: give a dict of dotted fields, such as "
            "{'noise.strength': 0.3}"
        )


def _require_mapping(named: str, value: Any, example: str) -> None:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"{named} returns {value!r}: give a dict by name, such as {{'a': {example}}}"
        )


def _require_arm(arms: Mapping[str, Arm], name: str, where: str) -> Arm:
    if name not in arms:
        raise ValueError(f"{where} {name!r}, which is not an arm{did_you_mean(name, arms)}")
    return arms[name]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
