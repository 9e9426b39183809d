"""Builds everything that a comparison would train in a setting, to find invalid fields early."""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping

import ml_collections

from pnoise_jax import data, training
from pnoise_jax.studies.regularisers.plan import Arm, Fields, Setting
from pnoise_jax.studies.sweep import override
from pnoise_jax.studies.sweep.resolved import resolve

_Load = Callable[..., data.Dataset]


def check_cells(
    config: ml_collections.ConfigDict, name: str, setting: Setting, arms: Mapping[str, Arm]
) -> None:
    """Raises ValueError or OSError, naming the candidate, if one cannot be trained or tested.

    Every candidate is built as for tuning, and the first candidate of each arm also as for the
    test. An arm on top of another is built on its partner's first candidate.

    Args:
      config: the config of the setting.
      name: the name of the setting.
      setting: the splits of the setting.
      arms: the arms, already checked by `check_arms`.
    """
    load = functools.cache(data.load)
    tuning, test = (override(config, setting.splits(tuning=stage)) for stage in (True, False))
    weights = set()
    for arm_name, arm in arms.items():
        named = f"settings()[{name!r}], arm {arm_name!r}"
        if 1 < arm.views == config.evaluation.views:
            raise ValueError(
                f"{named}: views={arm.views!r} equals the config's evaluation.views, which "
                "applies to all arms: set evaluation.views=1 in the config"
            )
        (partner, *_) = arms[arm.on_top_of].candidates if arm.on_top_of else ({},)
        for number, fields in enumerate(arm.candidates):
            fields = {**partner, **fields}
            experiment = _build(tuning, fields, named, load)
            start = (experiment.config.weights, experiment.model)
            if experiment.config.weights is not None and start not in weights:
                experiment.match_weights()
            weights.add(start)
            if number == 0:
                views = {"evaluation.views": arm.views} if arm.views > 1 else {}
                _build(test, {**fields, **views}, named, load)
    for base in (tuning, test):
        _require_different(base, name, arms, load)


def _build(
    base: ml_collections.ConfigDict, fields: Fields, named: str, load: _Load
) -> training.Experiment:
    listed = ", ".join(f"{field}={value}" for field, value in fields.items())
    with training.as_config_errors(f"{named} ({listed})"):
        experiment = training.build(override(base, fields), load=load)
        if not experiment.task.classifies:
            raise ValueError(
                f"task.name={base.task.name!r} does not classify, but the arms are compared by "
                "accuracy: set another task in get_config()"
            )
        training.check_training(experiment)
        experiment.task.check()
    return experiment


def _require_different(
    base: ml_collections.ConfigDict, name: str, arms: Mapping[str, Arm], load: _Load
) -> None:
    """Raises ValueError if two candidates are equal for some choice of the partners' candidates.

    A sweep would refuse them, but perhaps only after the tuning.
    """
    seen: dict[Hashable, str] = {}
    for arm_name, fields in _possible(arms):
        key = resolve(_build(base, fields, f"settings()[{name!r}], arm {arm_name!r}", load))
        listed = f"arm {arm_name!r} ({', '.join(f'{k}={v}' for k, v in fields.items())})"
        if key in seen:
            raise ValueError(
                f"settings()[{name!r}]: {listed} is the same as {seen[key]}: give each candidate "
                "once"
            )
        seen[key] = listed


def _possible(arms: Mapping[str, Arm]) -> Iterator[tuple[str, Fields]]:
    for name, arm in arms.items():
        partners = arms[arm.on_top_of].candidates if arm.on_top_of else ({},)
        for partner in partners:
            for fields in arm.candidates:
                yield name, {**partner, **fields}
