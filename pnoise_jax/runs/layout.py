"""The layout of a run's directory."""

import dataclasses
import os
import re
from pathlib import Path

_STEP = re.compile("[0-9]{1,18}")


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The paths in the directory of a run; reading them touches no file.

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
        """The data it used: the version, the classes and the number of examples."""
        return self.path / "data.json"

    @property
    def modules(self) -> Path:
        """The modules that define its own model, noise, data set and task."""
        return self.path / "modules.json"

    @property
    def weights(self) -> Path:
        """The pretrained weights it started from; absent if it started from none."""
        return self.path / "weights.json"

    @property
    def metrics(self) -> Path:
        """The metrics, one line of JSON per report."""
        return self.path / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        """The report of this run with its own settings."""
        return self.path / "evaluation.json"

    @property
    def evaluations(self) -> Path:
        """The directory for the reports of all other measurements."""
        return self.path / "evaluations"

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints, each in a directory named by its step."""
        return self.path / "checkpoints"

    @property
    def unreadable(self) -> Path:
        """Where broken checkpoints are moved."""
        return self.path / "unreadable"

    @property
    def lock(self) -> Path:
        """The file that a process locks while it trains here."""
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
        """The steps of the complete checkpoints here, in order."""
        return sorted(checkpoint_steps(self.checkpoints))

    def has_checkpoint(self) -> bool:
        """Whether a run here would resume instead of starting."""
        return bool(self.steps())

    def checkpoint(self, step: int) -> Path:
        """The directory of one checkpoint."""
        return self.checkpoints / str(step)


def checkpoint_steps(directory: Path) -> dict[int, Path]:
    """The checkpoints in a directory, by step."""
    named = (path for path in directory.glob("[0-9]*") if _STEP.fullmatch(path.name))
    return {int(path.name): path for path in named}
