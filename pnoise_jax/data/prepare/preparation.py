"""Preparing a data set: scanned, then written shard by shard, then renamed into place."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pnoise_jax.data import imagenet_sets
from pnoise_jax.data.builtin import embedded
from pnoise_jax.data.data_dir import make_staging, resolve_local
from pnoise_jax.data.datasets import PREPARED_BY_COMMAND, load, suggest
from pnoise_jax.data.directory import newest_version
from pnoise_jax.data.prepare import (
    domainnet,
    folder,
    imagenet,
    office_home,
    publish,
    staging,
    tiny_imagenet,
    visda,
)
from pnoise_jax.data.prepare.imagenet_tests import corrupted, folder_sets, real
from pnoise_jax.data.prepare.job import Job
from pnoise_jax.data.prepare.layout import LAYOUTS, Layout
from pnoise_jax.data.prepare.missing import existing_directory
from pnoise_jax.data.prepare.plan import Plan, shorten
from pnoise_jax.data.prepare.progress import Progress
from pnoise_jax.data.prepare.sources import require_readable_size
from pnoise_jax.data.shared_examples import describe_copies


@dataclasses.dataclass(frozen=True)
class _Official:
    """A data set of official archives.

    Attributes:
      plan: what it is made of.
      version: of what is made.
      splits: all that there can be, where archives may be missing.
      new_in_version: what an older version has not.
      other_version: what to know of a directory of another version, where somebody else makes it.
    """

    plan: Callable[..., Plan]
    version: str
    splits: Sequence[str] = ()
    new_in_version: str | None = None
    other_version: str | None = None

    @classmethod
    def of_module(cls, module: Any) -> "_Official":
        """As a module of this package has it."""
        return cls(
            module.plan,
            module.VERSION,
            getattr(module, "SPLITS", ()),
            getattr(module, "NEW_IN_VERSION", None),
        )


_OFFICIAL: dict[str, _Official] = {
    "domainnet": _Official.of_module(domainnet),
    "imagenet2012": _Official.of_module(imagenet),
    "office_home": _Official.of_module(office_home),
    "tiny_imagenet": _Official.of_module(tiny_imagenet),
    "visda2017": _Official.of_module(visda),
    real.NAME: _Official.of_module(real),
    **{
        name: _Official(functools.partial(folder_sets.plan, name=name), published.version)
        for name, published in folder_sets.SETS.items()
    },
    **{
        name: _Official(
            functools.partial(corrupted.plan, name=name),
            corrupted.VERSION,
            other_version=corrupted.OTHER_VERSION,
        )
        for name in imagenet_sets.CORRUPTED_NAMES
    },
}
_FIELD = "--data_dir"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set that can be loaded.

    Attributes:
      name: `data.name` of a config.
      path: of the directory with the records.
      splits: their numbers of examples.
      is_new: whether it was prepared now; else it stood there before.
      changes: how many images were changed, by what was done to them.
      notes: what the user should know.
      class_names: by label; [] where classes have none.
    """

    name: str
    path: Path
    splits: Mapping[str, int]
    is_new: bool
    changes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    class_names: Sequence[str] = ()


def list_preparable() -> list[str]:
    """The names that `prepare` knows."""
    return [*sorted([*PREPARED_BY_COMMAND, *embedded.BUILDERS]), "folder/<name>"]


def expand(name: str, manual_dir: str | os.PathLike | None = None) -> list[str]:
    """The data sets that a name stands for: itself, or all of ImageNet-C's that can be made.

    Those of one tar come one after the other, so that one process reads what it holds once.

    Args:
      name: one that `prepare` takes, or "imagenet2012_corrupted".
      manual_dir: where the downloads are.
    """
    return corrupted.names_in(manual_dir) if name == imagenet_sets.CORRUPTED else [name]


def prepare(
    name: str,
    *,
    manual_dir: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    short_side: int | None = None,
    layout: Layout | None = None,
    skip_unreadable: bool = False,
) -> Prepared:
    """Prepares a data set from downloaded files, or goes on where an earlier call was ended.

    It is written in ``<data_dir>/incomplete.<name>``, which is renamed when it is whole. If the
    call ends early, every finished file of records stays there, and is not written again unless
    what it was made from has changed.

    Args:
      name: one of `list_preparable()`.
      manual_dir: where the downloads are; the embedded data sets need none.
      data_dir: where data sets are kept; the directory itself is made, its parents are not.
        None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      short_side: pixels; images with a longer short side are shrunk to it (antialiased, JPEG).
      layout: of folder/<name>, what its folders are: "classes", or "splits" with the classes below
        them; None finds it, or asks where both are possible.
      skip_unreadable: of folder/<name>, leave out files in formats that are not read (HEIC, PSD,
        films and the like) instead of refusing them. Damaged images are always refused.

    Raises:
      ValueError: an unknown name; labels and images that do not agree; images that cannot be
        decoded, by name; or the data set is already there, prepared with another `short_side`.
      FileNotFoundError: the downloads are not there: lists them.
      OSError: an archive is cut off, the disk is full, another process prepares the same.
    """
    if short_side is not None and short_side < 1:
        raise ValueError(f"--short_side={short_side} must be at least 1 pixel")
    data_dir = resolve_local(data_dir, field=_FIELD)
    if name in embedded.BUILDERS:
        return _embedded(name, data_dir, (manual_dir, short_side, layout, skip_unreadable or None))
    plan, version = _planner(name, layout=layout, skip_unreadable=skip_unreadable)
    find = functools.partial(
        publish.find_prepared, data_dir, name, version, short_side=short_side, layout=layout
    )
    directory, target = staging.staging_directory(data_dir, name), data_dir / name / version
    if standing := find():
        if standing == target:  # a run that was killed at the very end may have left something
            staging.remove(directory)
        return _standing(name, standing)
    manual_dir = existing_directory(name, manual_dir)
    make_staging(data_dir, name, field=_FIELD).rmdir()  # it can be written
    with staging.locked(directory), Progress() as progress:
        if standing := find():  # by the process that has just let go of the lock
            return _standing(name, standing)
        progress.scanning(manual_dir)
        planned = plan(manual_dir, scratch=directory)
        if planned.image_shape is not None and short_side is not None:
            height, width, _ = planned.image_shape
            raise ValueError(
                f"--short_side={short_side}: the images of {name} are {height} x {width} pixels "
                "already; leave it out"
            )
        _require_readable_sizes(planned)
        for note in planned.notes:  # before hours are spent on what somebody may not want
            progress.say(f"note: {note}")
        changes, damaged, dark = Job(planned, directory, target, short_side).run(progress)
    notes = list(planned.notes)
    if damaged:
        notes.append(f"{len(damaged)} images are damaged, but can be read: {shorten(damaged)}")
    notes += [_dark_note(number, bits) for bits, number in dark.items()]
    splits = publish.splits_of(target)
    if name.startswith("folder/"):  # the splits of others are published as they are
        loaded = [load(name, split=split, data_dir=data_dir) for split in splits]
        notes += describe_copies(loaded)
    names = list(planned.class_names)
    return Prepared(name, target, splits, True, changes, notes, names)


def _dark_note(number: int, bits: int) -> str:
    return (
        f"images with 16 bits per sample that need only {bits} of them: {number}. The upper 8 bits "
        f"are kept, so these have at most {2 ** (bits - 8)} grey levels. If their samples are "
        f"numbers of {bits} bits, multiply them by {2 ** (16 - bits)} and prepare them again"
    )


def _standing(name: str, directory: Path) -> Prepared:
    splits = publish.splits_of(directory)
    official = _OFFICIAL.get(name)
    wanted = () if official is None else official.splits
    notes = [
        f"it has no split {split!r}: to add it, delete {directory} and run the same command again "
        "with the archives of all splits in --manual_dir"
        for split in wanted
        if split not in splits
    ]
    if official is not None and directory.name != official.version:
        if official.new_in_version is not None:
            notes.append(
                f"it is version {directory.name}; new in {official.version}: "
                f"{official.new_in_version}. To have that, delete {directory} and run the same "
                "command again"
            )
        if official.other_version is not None:
            notes.append(f"it is version {directory.name}: {official.other_version}")
    names = publish.class_names_of(directory)
    return Prepared(name, directory, splits, is_new=False, notes=notes, class_names=names)


def _require_readable_sizes(plan: Plan) -> None:
    for split in plan.splits:
        for entry in split.entries:
            require_readable_size(entry.member, split.source.path)


def _embedded(name: str, data_dir: Path, others: Sequence[object]) -> Prepared:
    if any(other is not None for other in others):
        raise ValueError(f"--dataset={name} ships with the project: leave out all but --data_dir")
    is_new = newest_version(data_dir / name) is None
    path = embedded.prepared(name, data_dir, field=_FIELD)
    return Prepared(name, path, publish.splits_of(path), is_new=is_new)


def _planner(
    name: str, *, layout: Layout | None, skip_unreadable: bool
) -> tuple[Callable[..., Plan], str]:
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"--layout={layout!r}: choose one of {', '.join(LAYOUTS)}")
    if name.partition("/")[0] == "folder":
        folder.check_name(name)
        options = {"layout": layout, "skip_unreadable": skip_unreadable}
        return functools.partial(folder.plan, name=name, **options), folder.VERSION
    if layout is not None or skip_unreadable:
        raise ValueError(
            f"--dataset={name!r} has a layout of its own: --layout and --skip_unreadable are for "
            "folder/<name>; leave them out"
        )
    if name not in _OFFICIAL:
        raise ValueError(f"--dataset={name!r} is unknown{suggest(name, list_preparable())}")
    return _OFFICIAL[name].plan, _OFFICIAL[name].version
