"""Prepares a data set: scans its files, writes it shard by shard, and renames it into place."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pnoise_jax.data import imagenet_sets
from pnoise_jax.data.builtin import embedded
from pnoise_jax.data.datasets import load, suggest
from pnoise_jax.data.official import NAMES as OFFICIAL_NAMES
from pnoise_jax.data.prepare.builders import (
    domainnet,
    folder,
    imagenet,
    office_home,
    tiny_imagenet,
    visda,
)
from pnoise_jax.data.prepare.builders.imagenet_tests import corrupted, folder_sets, real
from pnoise_jax.data.prepare.plan import Plan, shorten
from pnoise_jax.data.prepare.sources.layout import LAYOUTS, Layout
from pnoise_jax.data.prepare.sources.missing import existing_directory
from pnoise_jax.data.prepare.sources.sources import require_readable_size
from pnoise_jax.data.prepare.writing import publish, staging
from pnoise_jax.data.prepare.writing.job import Job
from pnoise_jax.data.prepare.writing.progress import Progress
from pnoise_jax.data.shared_examples import describe_copies
from pnoise_jax.data.stored.data_dir import make_staging, resolve_local
from pnoise_jax.data.stored.directory import newest_version


@dataclasses.dataclass(frozen=True)
class _Official:
    """A data set that is made from official archives.

    Attributes:
      plan: the function that makes its plan.
      version: of the prepared directory.
      splits: all splits, for a data set of which some archives may be missing.
      new_in_version: what older versions lack.
      other_version: a note on a directory of another version, if another program makes those.
    """

    plan: Callable[..., Plan]
    version: str
    splits: Sequence[str] = ()
    new_in_version: str | None = None
    other_version: str | None = None

    @classmethod
    def of_module(cls, module: Any) -> "_Official":
        """The data set that a module of this package defines."""
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
      path: the directory with the records.
      splits: the number of examples of each split.
      is_new: whether it was prepared by this call; otherwise it already existed.
      changes: the number of changed images, by what was done to them.
      notes: what the user should know.
      class_names: by label; [] if the classes have no names.
    """

    name: str
    path: Path
    splits: Mapping[str, int]
    is_new: bool
    changes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    class_names: Sequence[str] = ()


def list_preparable() -> list[str]:
    """The names that `prepare` accepts."""
    return [*sorted([*OFFICIAL_NAMES, *embedded.BUILDERS]), "folder/<name>"]


def expand(name: str, manual_dir: str | os.PathLike | None = None) -> list[str]:
    """The data sets that a name refers to: itself, or all parts of ImageNet-C that can be made.

    Data sets from the same tar come one after the other, so a process lists each tar only once.

    Args:
      name: one that `prepare` accepts, or "imagenet2012_corrupted".
      manual_dir: the directory of the downloads.
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
    """Prepares a data set from downloaded files, or resumes where an earlier call stopped.

    The data set is written to ``<data_dir>/incomplete.<name>``, and moved into place once it is
    complete. If the call ends early, every finished file of records stays there, and is not
    written again unless the files or settings that it was made from have changed.

    Args:
      name: one of `list_preparable()`.
      manual_dir: the directory of the downloads; the embedded data sets need none.
      data_dir: the directory of all data sets; it is created if necessary, but its parents are
        not. None: $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      short_side: in pixels; images with a longer short side are shrunk to it (antialiased, JPEG).
      layout: for folder/<name>, what its folders are: "classes", or "splits" with the classes below
        them; None detects it, and raises ValueError if both are possible.
      skip_unreadable: for folder/<name>, leave out files in formats that cannot be read (HEIC, PSD,
        videos and the like) instead of refusing them. Damaged images are always refused.

    Raises:
      ValueError: the name is unknown; labels and images do not agree; images cannot be decoded
        (the message names them); or the data set already exists, prepared with another
        `short_side` or `layout`.
      FileNotFoundError: downloads are missing; the message lists them.
      OSError: an archive is cut off, the disk is full, or another process is preparing the same
        data set.
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
        if standing == target:  # a call that was killed at the very end may have left files
            staging.remove(directory)
        return _standing(name, standing)
    manual_dir = existing_directory(name, manual_dir)
    make_staging(data_dir, name, field=_FIELD).rmdir()  # checks that it can be written
    with staging.locked(directory), Progress() as progress:
        if standing := find():  # by the process that has just released the lock
            return _standing(name, standing)
        progress.scanning(manual_dir)
        planned = plan(manual_dir, scratch=directory)
        if planned.image_shape is not None and short_side is not None:
            height, width, _ = planned.image_shape
            raise ValueError(
                f"--short_side={short_side}: the images of {name} already have {height} x {width} "
                "pixels; leave it out"
            )
        _require_readable_sizes(planned)
        for note in planned.notes:  # before hours are spent on a data set that may not be wanted
            progress.say(f"note: {note}")
        changes, damaged, dark = Job(planned, directory, target, short_side).run(progress)
    notes = list(planned.notes)
    if damaged:
        notes.append(f"{len(damaged)} images are damaged, but can be read: {shorten(damaged)}")
    notes += [_dark_note(number, bits) for bits, number in dark.items()]
    splits = publish.splits_of(target)
    if name.startswith("folder/"):  # other data sets keep their published splits
        loaded = [load(name, split=split, data_dir=data_dir) for split in splits]
        notes += describe_copies(loaded)
    names = list(planned.class_names)
    return Prepared(name, target, splits, True, changes, notes, names)


def _dark_note(number: int, bits: int) -> str:
    return (
        f"{number} images with 16 bits per sample need only {bits} of them. The upper 8 bits are "
        f"kept, so these images have at most {2 ** (bits - 8)} grey levels. If their samples are "
        f"{bits}-bit numbers, multiply them by {2 ** (16 - bits)} and prepare the data set again"
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
                f"{official.new_in_version}. To get this, delete {directory} and run the same "
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
            f"--dataset={name!r} has a fixed layout: --layout and --skip_unreadable are for "
            "folder/<name>; leave them out"
        )
    if name not in _OFFICIAL:
        raise ValueError(f"--dataset={name!r} is unknown{suggest(name, list_preparable())}")
    return _OFFICIAL[name].plan, _OFFICIAL[name].version
