"""Where everything lies in the directory of a run."""

import dataclasses
import os
import re
from pathlib import Path

_STEP = re.compile("[0-9]{1,18}")


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The paths in the directory of a run; nothing is touched by asking for them.

    Attributes:
      path: of the directory, as given; see `RunDirectory.at` for one from a flag.
    """

    path: Path

    @classmethod
    def at(cls, workdir: str | os.PathLike) -> "RunDirectory":
        """The directory that a flag names: absolute, with ``~`` expanded."""
        return cls(Path(workdir).expanduser().absolute())

    @property
    def config(self) -> Path:
        """The config of the run."""
        return self.path / "config.json"

    @property
    def data(self) -> Path:
        """Which data it has used: the version, the classes and how many examples."""
        return self.path / "data.json"

    @property
    def modules(self) -> Path:
        """In which modules its own model, noise, data set and task are defined."""
        return self.path / "modules.json"

    @property
    def weights(self) -> Path:
        """Which pretrained weights it started from; absent where it started from none."""
        return self.path / "weights.json"

    @property
    def metrics(self) -> Path:
        """The metrics by step, a line of JSON each."""
        return self.path / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        """The report of this run under its own settings."""
        return self.path / "evaluation.json"

    @property
    def evaluations(self) -> Path:
        """The directory of the reports of every other measurement."""
        return self.path / "evaluations"

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints, each in a directory named by its step."""
        return self.path / "checkpoints"

    @property
    def unreadable(self) -> Path:
        """Where checkpoints are moved that turned out to be broken."""
        return self.path / "unreadable"

    @property
    def lock(self) -> Path:
        """The file that a process holds while it trains here."""
        return self.path / ".lock"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of a run."""
        notes = (self.config, self.data, self.modules, self.weights)
        return (*notes, self.metrics, self.evaluation, self.lock)

    @property
    def directories(self) -> tuple[Path, ...]:
        """All directories of a run."""
        return self.checkpoints, self.evaluations, self.unreadable

    def has_run(self) -> bool:
        """Whether a run was ever started here."""
        return self.config.exists()

    def steps(self) -> list[int]:
        """The steps of the checkpoints here, in order; not of one that is half written."""
        return sorted(checkpoint_steps(self.checkpoints))

    def has_checkpoint(self) -> bool:
        """Whether a run here would go on, rather than start."""
        return bool(self.steps())

    def checkpoint(self, step: int) -> Path:
        """The directory of one checkpoint."""
        return self.checkpoints / str(step)


def checkpoint_steps(directory: Path) -> dict[int, Path]:
    """The checkpoints that lie in a directory, by their steps."""
    named = (path for path in directory.glob("[0-9]*") if _STEP.fullmatch(path.name))
    return {int(path.name): path for path in named}
