"""ImageNet's validation images with the ReaL labels: the records of TFDS, without TensorFlow.

ReaL (Beyer et al., Are we done with ImageNet?) assigns each image a set of labels. A prediction is
correct if it is any of them. Some images have none, and count in no published number: they are
stored, as in TFDS, and left out when the data set is loaded.
"""

import json
from pathlib import Path

from pnoise_jax.data.prepare.builders import imagenet
from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan
from pnoise_jax.data.prepare.sources.missing import missing_files
from pnoise_jax.data.prepare.sources.sources import MAX_TEXT

NAME = "imagenet2012_real"
VERSION = "1.0.0"

_LABELS = "real.json"
_NUM_IMAGES, _NUM_CLASSES = 50_000, 1000
_WITHOUT_LABEL = 3_163  # of the published file
_PAGE = "https://github.com/google-research/reassessed-imagenet"


def plan(manual_dir: Path, *, scratch: Path) -> Plan:
    """Plans the split validation, with the original label and the ReaL labels of each image.

    Args:
      manual_dir: the directory of ILSVRC2012_img_val.tar and real.json.
      scratch: not used.

    Raises:
      FileNotFoundError: one of them is missing.
      OSError: the tar is cut off or damaged.
      ValueError: the tar lacks images; or real.json is not 50 000 lists of labels in the order of
        the images' numbers.
    """
    del scratch
    tar = manual_dir / imagenet.VALIDATION
    if not (tar.is_file() and (manual_dir / _LABELS).is_file()):
        raise _missing(manual_dir)
    sets = read_sets(manual_dir / _LABELS)  # first, because the tar takes longer
    source, entries = imagenet.read_validation(tar)
    _require_agreement(entries, sets, manual_dir / _LABELS)
    labelled = [
        Entry(entry.key, entry.label, entry.member, label_set=labels)
        for entry, labels in zip(entries, sets, strict=True)
    ]
    empty = sum(not labels for labels in sets)
    notes = [
        f"{empty} images have no ReaL label: they are stored, and left out when the data set is "
        f"read, so {len(sets) - empty} images count"
    ]
    if empty != _WITHOUT_LABEL:
        notes.append(f"the published real.json has {_WITHOUT_LABEL} images without a label")
    return Plan(
        name=NAME,
        version=VERSION,
        splits=[SplitPlan("validation", source, labelled)],
        class_names=imagenet.synsets(),
        description="The validation images of ILSVRC 2012 with ReaL labels, as TFDS stores them.",
        homepage=_PAGE,
        repairs=frozenset(),
        jpeg_only=True,
        notes=notes,
    )


def read_sets(file: Path) -> list[tuple[int, ...]]:
    """The labels of image 1, 2, …, as real.json lists them.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not 50 000 lists of labels.
    """
    fix = f"download {_LABELS} again, from {_PAGE}"
    if file.stat().st_size > MAX_TEXT:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes: {fix}")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): {fix}") from error
    if not isinstance(content, list):
        raise ValueError(f"{file} contains a {type(content).__name__}, not a list of lists: {fix}")
    if len(content) != _NUM_IMAGES:
        raise ValueError(
            f"{file} has labels for {len(content)} images, but there are {_NUM_IMAGES} validation "
            f"images, which are labelled by their place in the list: {fix}"
        )
    for number, labels in enumerate(content, start=1):
        if not isinstance(labels, list) or not all(map(_is_label, labels)):
            raise ValueError(
                f"{file}: the entry of image {number} is {str(labels)[:80]}, not a list of "
                f"labels from 0 to {_NUM_CLASSES - 1}: {fix}"
            )
    return [tuple(labels) for labels in content]


def _is_label(value: object) -> bool:
    return type(value) is int and 0 <= value < _NUM_CLASSES


def _require_agreement(entries: list[Entry], sets: list[tuple[int, ...]], file: Path) -> None:
    """Raises ValueError if the lists are not in the order of the images.

    The official lists contain about nine in ten of the original labels; in any other order, hardly
    any.
    """
    labelled = [(e.label, labels) for e, labels in zip(entries, sets, strict=True) if labels]
    agree = sum(label in labels for label, labels in labelled)
    if agree <= len(labelled) / 2:
        raise ValueError(
            f"{file}: of {len(labelled)} images with labels, only {agree} have their original "
            "label among them, so the lists are not in the order of the images' numbers, or labels "
            f"do not count from 0: download it again, from {_PAGE}"
        )


def _missing(manual_dir: Path) -> FileNotFoundError:
    return missing_files(
        manual_dir,
        NAME,
        [
            f"{imagenet.VALIDATION}  (6.3 GiB; from {imagenet.PAGE}, as for imagenet2012)",
            f"{_LABELS}  (0.4 MiB)",
        ],
        page=_PAGE,
    )
