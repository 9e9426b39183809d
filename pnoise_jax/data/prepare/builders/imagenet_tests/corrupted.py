"""ImageNet-C from its published tars: one corruption at one severity.

These are the published files, on which published numbers are measured. TFDS has a data set of the
same name, for which it corrupts the validation images itself, with other random numbers: its
version is 3.1.0, and its numbers are close to the published ones, but not the same.
"""

import functools
import os
import re
from pathlib import Path, PurePosixPath

from pnoise_jax.data.imagenet_sets import (
    ARCHIVES,
    CORRUPTED_NAMES,
    CORRUPTED_SIDE,
    OFFICIAL_CORRUPTED_VERSION,
    corruption_of,
)
from pnoise_jax.data.prepare.builders import imagenet
from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import kinds
from pnoise_jax.data.prepare.sources.archives import Tar
from pnoise_jax.data.prepare.sources.class_folders import find_classes, inside, refuse_hidden_images
from pnoise_jax.data.prepare.sources.missing import missing_files
from pnoise_jax.data.prepare.sources.sources import Folder, Listing, Source

VERSION = OFFICIAL_CORRUPTED_VERSION
OTHER_VERSION = (
    "TFDS has made these images by corrupting the validation set itself. For the published files, "
    "on which published numbers are measured, choose another --data_dir and run the same command "
    "again"
)

_PAGE = "https://zenodo.org/records/2235448"
_NUMBER = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")


def plan(manual_dir: Path, *, scratch: Path, name: str) -> Plan:
    """Plans the split validation: the corrupted version of each validation image.

    Args:
      manual_dir: the directory of the tar with the corruption (noise.tar, blur.tar, weather.tar,
        digital.tar, extra.tar), or of the folders that it unpacks to, <corruption>/<severity>.
      scratch: not used.
      name: "imagenet2012_corrupted/<corruption>_<severity>".

    Raises:
      FileNotFoundError: neither the tar nor the folder exists.
      OSError: the tar is cut off or damaged.
      ValueError: its folders are not the 1000 synsets, or its images are not the 50 000 of the
        validation set, each in the folder of its class.
    """
    del scratch
    corruption, severity = corruption_of(name)
    source, listing, root = _find(manual_dir, name, corruption, severity)
    where = f"{source.path}: {root}" if root != "." else str(source.path)
    part = inside(listing, root)
    refuse_hidden_images(source, part, where=where)
    files = kinds.sort_files(source, part)
    kinds.refuse_unreadable(files.unreadable, where=where, fix=kinds.OFFICIAL)
    classes = find_classes(files, listing, root, where=where)
    names = imagenet.synsets()
    missing = [synset for synset in names if synset not in classes]
    strangers = [folder for folder in classes if folder not in set(names)]
    if missing or strangers:
        lacks = f"lacks class folders: {shorten(missing)}" if missing else ""
        has = f"has folders of no synset: {shorten(strangers)}" if strangers else ""
        raise ValueError(
            f"{where} {' and '.join(filter(None, (lacks, has)))}. The official tar has a folder "
            "for each of ImageNet's 1000 synsets: download it again"
        )
    entries = [
        Entry(PurePosixPath(member.path).name, label, member)
        for label, folder in enumerate(names)
        for member in classes[folder]
    ]
    _require_labels(entries, where)
    return Plan(
        name=name,
        version=VERSION,
        splits=[SplitPlan("validation", source, entries)],
        class_names=names,
        description=f"ImageNet-C, {corruption} of severity {severity}: the published files.",
        homepage=_PAGE,
        repairs=frozenset(),
        jpeg_only=True,
        image_shape=(CORRUPTED_SIDE, CORRUPTED_SIDE, 3),
        notes=[
            "these are the published files. TFDS makes its imagenet2012_corrupted itself from the "
            "validation set, and its numbers differ a little"
        ],
    )


def _find(
    manual_dir: Path, name: str, corruption: str, severity: int
) -> tuple[Source, Listing, str]:
    """The source of the images, its listing, and the folder of the severity."""
    *folders, path = _places(manual_dir, corruption, severity)
    archive, inner = path.stem, f"{corruption}/{severity}"
    for folder in folders:
        if folder.is_dir():
            source = Folder(folder)
            return source, source.scan(), "."
    if not path.is_file():
        wanted = f"{archive}.tar, or the folder {inner} that it unpacks to"
        raise missing_files(manual_dir, name, [wanted], page=_PAGE)
    source = Tar(path)
    listing = _scan(path.absolute(), source.stamp)
    for root in (inner, f"{archive}/{inner}"):
        if root in listing.folders:
            return source, listing, root
    raise ValueError(
        f"{path} has no folder {inner}, but the official {archive}.tar has one: it is cut off, or "
        "a different archive; download it again"
    )


def names_in(manual_dir: str | os.PathLike | None) -> list[str]:
    """The data sets whose tars or folders are in a directory; all of them if none are."""
    directory = Path(manual_dir or os.curdir)
    return [
        name
        for name in CORRUPTED_NAMES
        if any(path.exists() for path in _places(directory, *corruption_of(name)))
    ] or [*CORRUPTED_NAMES]


def _places(manual_dir: Path, corruption: str, severity: int) -> tuple[Path, Path, Path]:
    """The possible places of the images of a severity: two folders, or the tar."""
    archive = next(key for key, names in ARCHIVES.items() if corruption in names)
    inner = f"{corruption}/{severity}"
    return manual_dir / inner, manual_dir / archive / inner, manual_dir / f"{archive}.tar"


@functools.lru_cache(maxsize=1)
def _scan(path: Path, stamp: str) -> Listing:
    """Lists a tar, which contains 15 or 20 of the data sets, with 50 000 files each.

    Args:
      path: of the tar.
      stamp: of the tar, so that a changed file is listed again.
    """
    del stamp
    return Tar(path).scan()


def _require_labels(entries: list[Entry], where: str) -> None:
    """Raises ValueError unless all validation images exist, in the folders of their classes."""
    expected = imagenet.validation_labels()
    seen: set[int] = set()
    for entry in entries:
        match = _NUMBER.fullmatch(entry.key)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(expected):
            raise ValueError(
                f"{where}: {entry.member.path} is not named like a validation image, "
                f"ILSVRC2012_val_00000001.JPEG to ...{len(expected):08d}.JPEG: {kinds.OFFICIAL}"
            )
        if expected[number - 1] != entry.label:
            right = imagenet.synsets()[expected[number - 1]]
            raise ValueError(
                f"{where}: {entry.member.path} is of class {right}, but in another folder: "
                "some script has rearranged the images; use the official archive"
            )
        if number in seen:
            raise ValueError(f"{where} has {entry.key} twice: {kinds.OFFICIAL}")
        seen.add(number)
    missing = [f"{i:08d}" for i in range(1, len(expected) + 1) if i not in seen]
    if missing:
        raise ValueError(
            f"{where} lacks {len(missing)} of the {len(expected)} images: "
            f"{shorten(missing)}: download it again"
        )
