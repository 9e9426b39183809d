"""What a comparison of regularisers trains: its arms, their candidates, and the data they see."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Fields = Mapping[str, Any]  # of a config, by dotted name
NOTHING = "none"  # the arm without a regulariser, the baseline of all others


@dataclasses.dataclass(frozen=True)
class Arm:
    """A regulariser, and the settings to try for it.

    Attributes:
      candidates: the fields that each candidate changes; `product` can create them.
      on_top_of: an arm that is tuned first, whose chosen fields this arm keeps.
      views: if above 1, a second evaluation averages the logits of this many views of each test
        image. Only arms trained with shifts should have more than one.
    """

    candidates: Sequence[Fields]
    on_top_of: str | None = None
    views: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The splits of a comparison, and the fields that it changes in the config of all arms.

    Attributes:
      train: the split on which the tested models are trained.
      test: the split on which they are tested, once.
      tune_on: the split on which candidates are trained; by default `train`.
      held_out: the split of training examples on which candidates are chosen.
      fields: other fields that this setting changes, such as the data set.
    """

    train: str
    test: str
    held_out: str
    tune_on: str | None = None
    fields: Fields = dataclasses.field(default_factory=dict)

    def splits(self, *, tuning: bool) -> Fields:
        """Returns the data fields of the tuning or of the test stage."""
        if tuning:
            return {
                "data.train_split": self.tune_on or self.train,
                "data.test_split": self.held_out,
            }
        return {"data.train_split": self.train, "data.test_split": self.test}


_HIGHEST = 2**32 - 1  # of config.seed


def _require_seeds(stage: str, seeds: Any) -> None:
    """Raises ValueError unless these are valid, distinct seeds."""
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
    """The seeds of both stages, which must have none in common.

    Attributes:
      tuning: the seeds of every candidate.
      test: the seeds of every chosen candidate.
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
                f"{len(self.tuning)} seed(s) for tuning and {len(self.test)} for the test: give at "
                "least one and two"
            )
