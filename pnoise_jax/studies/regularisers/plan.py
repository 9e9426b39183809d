"""What a comparison of regularisers trains: its arms, their candidates, and the data they see."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Fields = Mapping[str, Any]  # of a config, by dotted name
NOTHING = "none"  # the arm without a regulariser, against which all others are compared


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to regularise, and the settings to try for it.

    Attributes:
      candidates: the fields that each changes; `product` makes them.
      on_top_of: an arm that is tuned first, whose chosen fields this one keeps.
      views: the number of views of each test image whose logits another evaluation averages; more
        than one only for arms trained with shifts.
    """

    candidates: Sequence[Fields]
    on_top_of: str | None = None
    views: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The data of a comparison, and what it changes in the config of all arms.

    Attributes:
      train: the split that the tested models are trained on.
      test: the split that they are tested on, once.
      tune_on: the split that candidates are trained on; by default `train`.
      held_out: the split of training examples that candidates are chosen by.
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


_HIGHEST = 2**32 - 1  # of config.seed


def _require_seeds(stage: str, seeds: Any) -> None:
    """Raises ValueError unless these are different seeds."""
    if not isinstance(seeds, Sequence) or isinstance(seeds, str):
        raise ValueError(f"Seeds({stage}={seeds!r}): give a tuple of seeds, such as (0, 1)")
    for seed in seeds:
        if type(seed) is not int or not 0 <= seed <= _HIGHEST:
            raise ValueError(
                f"Seeds({stage}={seeds!r}): {seed!r} is not a seed: give whole numbers from 0 to "
                f"{_HIGHEST}"
            )
        if seeds.count(seed) > 1:
            raise ValueError(
                f"Seeds({stage}={seeds!r}): {seed} appears twice, which would count one training "
                "as two: give each seed once"
            )


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
        for stage, seeds in dataclasses.asdict(self).items():
            _require_seeds(stage, seeds)
        common = sorted({*self.tuning} & {*self.test})
        if common:
            raise ValueError(
                f"seed {common[0]} is in both tuning and test: choose others, so that the chosen "
                "settings are tested with fresh seeds"
            )
        if not self.tuning or len(self.test) < 2:
            raise ValueError(
                f"{len(self.tuning)} seed(s) to tune and {len(self.test)} to test: give at least "
                "one and two"
            )
