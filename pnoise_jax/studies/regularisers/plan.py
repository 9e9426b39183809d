"""What a comparison of regularisers trains: its arms, their candidates, and the data they see."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from pnoise_jax import data
from pnoise_jax.registry import did_you_mean

Fields = Mapping[str, Any]  # of a config, by dotted name
NOTHING = "none"  # the arm without a regulariser, against which all others are compared


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to regularise, and the settings that are tried for it.

    Attributes:
      candidates: the fields that each changes; `product` makes them.
      on_top_of: an arm that is tuned first, whose chosen fields this one keeps.
      views: of each test image, whose logits are averaged in a further evaluation; only arms that
        are trained with shifts have more than one.
    """

    candidates: Sequence[Fields]
    on_top_of: str | None = None
    views: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The data of a comparison, and what it changes in the config of all arms.

    Attributes:
      train: the split whose models are tested.
      test: the split that they are tested on, once.
      tune_on: the split that candidates are trained on; by default `train`.
      held_out: the split of training examples by which a candidate is chosen.
      fields: what else this setting changes, such as the data set.
    """

    train: str
    test: str
    held_out: str
    tune_on: str | None = None
    fields: Fields = dataclasses.field(default_factory=dict)

    def splits(self, *, tuning: bool) -> Fields:
        """The data fields of one of the two stages."""
        if tuning:
            return {
                "data.train_split": self.tune_on or self.train,
                "data.test_split": self.held_out,
            }
        return {"data.train_split": self.train, "data.test_split": self.test}


@dataclasses.dataclass(frozen=True)
class Seeds:
    """The seeds of both stages, which have none in common.

    Attributes:
      tuning: of every candidate.
      test: of every chosen candidate.
    """

    tuning: tuple[int, ...] = (500, 501)
    test: tuple[int, ...] = tuple(range(1000, 1010))

    def __post_init__(self):
        common = sorted({*self.tuning} & {*self.test})
        if common:
            raise ValueError(
                f"seed {common[0]} is one of the tuning and one of the test: choose others, so "
                "that the chosen settings meet fresh seeds"
            )
        if not self.tuning or len(self.test) < 2:
            raise ValueError(
                f"{len(self.tuning)} seed(s) to tune and {len(self.test)} to test: give at least "
                "one and two"
            )


def check_arms(arms: Mapping[str, Arm], contrasts: Sequence[tuple[str, str]]) -> None:
    """Raises ValueError unless all arms have one budget, and what they refer to exists."""
    if NOTHING not in arms:
        raise ValueError(
            f"arms() has no {NOTHING!r}: give the arm without a regulariser, with which all others "
            "are compared"
        )
    budgets = {name: len(arm.candidates) for name, arm in arms.items()}
    for name, arm in arms.items():
        if not budgets[name] or budgets[name] != budgets[NOTHING]:
            raise ValueError(
                f"arm {name!r} has {budgets[name]} candidates and {NOTHING!r} has "
                f"{budgets[NOTHING]}: give all arms the same number, as a larger budget alone "
                "raises the accuracy"
            )
        if arm.on_top_of is not None:
            partner = _require_arm(arms, arm.on_top_of, f"arm {name!r} is on top of")
            if partner.on_top_of is not None:
                raise ValueError(
                    f"arm {name!r} is on top of {arm.on_top_of!r}, which is itself on top of "
                    f"{partner.on_top_of!r}: name an arm of its own"
                )
    for pair in contrasts:
        for name in pair:
            _require_arm(arms, name, "contrasts() names")


def _require_arm(arms: Mapping[str, Arm], name: str, where: str) -> Arm:
    if name not in arms:
        raise ValueError(f"{where} {name!r}, which is not an arm{did_you_mean(name, arms)}")
    return arms[name]


def check_splits(config: ml_collections.ConfigDict, name: str, setting: Setting) -> None:
    """Raises ValueError where tuning would see a test image, or be scored on its own training.

    Args:
      config: of the setting, as it says where the data are.
      name: of the setting.
      setting: its splits.
    """
    section = config.data
    parts = {
        field: data.load(section.name, split=split, data_dir=section.data_dir).parts
        for field, split in {
            "train": setting.train,
            "test": setting.test,
            "tune_on": setting.tune_on or setting.train,
            "held_out": setting.held_out,
        }.items()
    }
    for one, other in (("tune_on", "held_out"), ("train", "test"), ("held_out", "test")):
        if data.count_shared(parts[one], parts[other]):
            raise ValueError(
                f"settings()[{name!r}]: {one} and {other} have examples in common "
                f"({getattr(setting, one)!r}, {getattr(setting, other)!r}): name splits that "
                "have none, such as 'train[:300]', 'train[597:]' and 'test'"
            )
