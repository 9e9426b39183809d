"""The layout of a run's work directory."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TypeGuard, cast

from pnoise_jax import buckets, writing
from pnoise_jax.buckets import BucketPath

_STEP = re.compile("[0-9]{1,18}")
BASE_CONFIG = "base_config.json"  # of a sweep or a study: the config that all of its runs share
STUDY = "study.json"  # of a comparison of regularisers: what it compares
_OF_STUDIES = (BASE_CONFIG, STUDY, "results.csv", "pairs.csv")
COMMITTED = "commit_success.txt"  # the last file that Orbax writes for a checkpoint in a bucket


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The paths in the work directory of a run; the path properties access no files.

    Attributes:
      path: the directory's path, as given; use `RunDirectory.at` for one from a flag.
    """

    path: Path

    @classmethod
    def at(cls, workdir: str | os.PathLike) -> "RunDirectory":
        """The directory that a flag names: absolute, with ``~`` expanded."""
        return cls(locate(workdir).absolute())

    @property
    def config(self) -> Path:
        """The config of the run."""
        return self.path / "config.json"

    @property
    def data(self) -> Path:
        """The data that the run used: the version, the classes and the number of examples."""
        return self.path / "data.json"

    @property
    def modules(self) -> Path:
        """The modules that define the user's model, noise, data set and task, if any."""
        return self.path / "modules.json"

    @property
    def weights(self) -> Path:
        """The pretrained weights that the run started from; absent if there were none."""
        return self.path / "weights.json"

    @property
    def metrics(self) -> Path:
        """The metrics, one line of JSON per report."""
        return self.path / "metrics.jsonl"

    @property
    def evaluation_settings(self) -> Path:
        """The settings of evaluations after a resume that changed them; absent otherwise."""
        return self.path / "evaluation_settings.jsonl"

    @property
    def evaluation(self) -> Path:
        """The report of this run at its end, with the settings of its config."""
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
        """The directory to which broken checkpoints are moved."""
        return self.path / "unreadable"

    @property
    def lock(self) -> Path:
        """The file that a process locks while it trains here."""
        return self.path / ".lock"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of a run."""
        notes = (self.config, self.data, self.modules, self.weights)
        return (*notes, self.metrics, self.evaluation_settings, self.evaluation, self.lock)

    @property
    def directories(self) -> tuple[Path, ...]:
        """All directories of a run."""
        return self.checkpoints, self.evaluations, self.unreadable

    def has_run(self) -> bool:
        """Whether a run was started here."""
        return self.config.exists()

    def study_file(self) -> Path | None:
        """A file that shows that a sweep or a study has its runs in here; None if none does.

        A report about a single run may be in that run's directory. An audit of several seeds has
        runs in ``seed_*``, next to which the directory may itself be the run of one seed.
        """
        if is_in_bucket(self.path):  # studies write to local directories only
            return None
        files = [self.path / name for name in _OF_STUDIES]
        if not self.has_run():
            files += sorted(self.path.glob(f"seed_*/{self.config.name}"))
        return next(filter(Path.exists, files), None)

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
    """The complete checkpoints in a directory, by step.

    Raises:
      OSError: one was copied into a bucket, and Orbax would delete it as incomplete.
    """
    named = [path for path in directory.glob("[0-9]*") if _STEP.fullmatch(path.name)]
    if is_in_bucket(directory):  # on a file system, Orbax renames a checkpoint when it is complete
        named = [path for path in named if _is_committed(path)]
    return {int(path.name): path for path in named}


def _is_committed(checkpoint: Path) -> bool:
    """Whether a checkpoint in a bucket has the file `COMMITTED`."""
    if (checkpoint / COMMITTED).is_file():
        return True
    try:
        written = json.loads((checkpoint / "_CHECKPOINT_METADATA").read_text())
        is_whole = bool(written.get("commit_timestamp_nsecs"))
    except (FileNotFoundError, ValueError, AttributeError):  # an interrupted save
        return False
    if is_whole and not (checkpoint / "state" / COMMITTED).is_file():
        raise OSError(
            f"{checkpoint} was copied here from a file system and has no {COMMITTED}, without "
            "which it would be treated as incomplete and deleted. If the copy is complete, mark it "
            f"with `echo | gcloud storage cp - {checkpoint}/{COMMITTED}`; otherwise delete it"
        )
    return False


def move_checkpoint(checkpoint: Path, target: Path) -> None:
    """Moves a checkpoint to a directory that does not exist yet."""
    if is_in_bucket(checkpoint):
        # If the move is interrupted, Orbax deletes what is left, since `COMMITTED` is gone.
        cast(BucketPath, checkpoint).move_directory(cast(BucketPath, target), first=COMMITTED)
    else:
        os.rename(checkpoint, target)


def locate(path: str | os.PathLike, *, flag: str = "workdir") -> Path:
    """The path that a flag names, with ``~`` expanded; a `BucketPath` if it is a URL.

    Raises:
      ValueError: it is a URL, but not of a folder in a bucket, or the packages for buckets are not
        installed.
    """
    if is_in_bucket(path):
        return path
    if not writing.is_url(path):
        return Path(path).expanduser()
    try:
        buckets.prepare_libraries()
    except ImportError as error:
        raise ValueError(
            f"--{flag}={str(path)!r} is in Google Cloud Storage, but a package that it needs is "
            f"not installed ({error}): {buckets.INSTALL}"
        ) from error
    return cast(Path, BucketPath(path, named=f"--{flag}={str(path)!r}"))


def is_in_bucket(path: str | os.PathLike) -> TypeGuard[Path]:
    """Whether this is a path in a bucket; to the type checker it is a `Path` like any other."""
    return isinstance(path, BucketPath)
