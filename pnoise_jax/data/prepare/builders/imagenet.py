"""ImageNet 2012 from its official tars: the records of TFDS's builder, without TensorFlow."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as official

from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources.archives import Tar
from pnoise_jax.data.prepare.sources.litter import is_litter
from pnoise_jax.data.prepare.sources.missing import missing_files
from pnoise_jax.data.prepare.sources.sources import Member

VERSION = "5.1.0"
SPLITS = ("train", "validation")
NUM_TRAIN = 1_281_167
REPAIRED = frozenset(official.CMYK_IMAGES + official.PNG_IMAGES)

VALIDATION = "ILSVRC2012_img_val.tar"
PAGE = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"
_TRAIN = "ILSVRC2012_img_train.tar"


def plan(manual_dir: Path, *, scratch: Path) -> Plan:
    """Plans the splits train and validation, if their tars are there.

    Args:
      manual_dir: the directory of ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar or both.
      scratch: the directory that keeps the listing of the training tar, which takes long, for a
        restart.

    Raises:
      FileNotFoundError: neither tar is there.
      OSError: a tar is cut off or damaged.
      ValueError: a tar lacks synsets or validation images, or has others than the official one.
        (If training images are missing, a note says how many there are.)
    """
    paths = {split: manual_dir / name for split, name in _names().items()}
    there = [split for split, path in paths.items() if path.is_file()]
    if not there:
        raise _missing(manual_dir)
    names = synsets()
    splits, notes = [], [f"no {paths[s].name}, so no split {s!r}" for s in paths if s not in there]
    if "train" in there:
        source = Tar(paths["train"], nested=True)
        members = _without_litter(_remembered(source, scratch / "train.npz"))
        entries = _train_entries(members, names, source.path)
        splits.append(SplitPlan("train", source, entries))
        notes += _train_notes(entries)
    if "validation" in there:
        source, entries = read_validation(paths["validation"])
        splits.append(SplitPlan("validation", source, entries))
    return Plan(
        name="imagenet2012",
        version=VERSION,
        splits=splits,
        class_names=names,
        description="ILSVRC 2012, as TFDS's imagenet2012 stores it.",
        homepage="https://image-net.org/",
        repairs=REPAIRED,
        jpeg_only=True,
        notes=notes,
    )


def synsets() -> list[str]:
    """The 1000 synsets, by label."""
    return _lines("labels.txt")


def validation_labels() -> list[int]:
    """The labels of validation images 1, 2, …, 50 000."""
    label_of = {synset: label for label, synset in enumerate(synsets())}
    return [label_of[synset] for synset in _lines("validation_labels.txt")]


def read_validation(path: Path) -> tuple[Tar, list[Entry]]:
    """The tar of the validation images, and an entry for each, in the order of their numbers.

    Raises:
      OSError: the tar is cut off or damaged.
      ValueError: it lacks images, or has others.
    """
    source = Tar(path)
    members = _without_litter(source.scan().members)
    return source, _validation_entries(members, path)


def _missing(manual_dir: Path) -> FileNotFoundError:
    return missing_files(
        manual_dir,
        "imagenet2012",
        [
            f"{VALIDATION}  (6.3 GiB; enough for an audit)",
            f"{_TRAIN}  (138 GiB; to train)",
        ],
        page=PAGE,
        how="register and accept the terms; 'Training images (Task 1 & 2)' and "
        "'Validation images (all tasks)'",
    )


def _train_notes(entries: list[Entry]) -> list[str]:
    """What the user should know about the training split."""
    notes = []
    repaired = sum(entry.key in REPAIRED for entry in entries)
    if repaired:
        notes.append(
            f"{repaired} images are repaired, as in TFDS, but by Pillow instead of TensorFlow: "
            "their bytes differ from those in directories that TFDS has made"
        )
    if len(entries) != NUM_TRAIN:
        notes.append(f"{_TRAIN} has {len(entries)} images, the official one has {NUM_TRAIN}")
    return notes


def _without_litter(members: list[Member]) -> list[Member]:
    """The members without the files that macOS adds when it packs a tar again."""
    return [member for member in members if not is_litter(member.path)]


def _names() -> Mapping[str, str]:
    return {"train": _TRAIN, "validation": VALIDATION}


def _train_entries(members: list[Member], synsets: list[str], path: Path) -> list[Entry]:
    label_of = {synset: label for label, synset in enumerate(synsets)}
    known, strangers = [], []
    for member in members:
        tar, _, name = member.path.rpartition("/")
        label = label_of.get(tar.removesuffix(".tar"))
        if label is None:
            strangers.append(member.path)
        else:
            known.append(Entry(name, label, member))
    there = {entry.label for entry in known}
    missing = [synset for label, synset in enumerate(synsets) if label not in there]
    if strangers or missing:
        lacks = f"lacks images of {len(missing)} synsets: {shorten(missing)}" if missing else ""
        has = f"has {len(strangers)} files of no synset: {shorten(strangers)}" if strangers else ""
        raise ValueError(
            f"{path} {' and '.join(filter(None, (lacks, has)))}. The official tar contains 1000 "
            "tars, <synset>.tar, and nothing else: download it again."
        )
    return known


def _validation_entries(members: list[Member], path: Path) -> list[Entry]:
    labels = validation_labels()
    by_name = {member.path.rpartition("/")[2]: member for member in members}
    expected = {f"ILSVRC2012_val_{i:08d}.JPEG": label for i, label in enumerate(labels, start=1)}
    missing = [name for name in expected if name not in by_name]
    strangers = [name for name in by_name if name not in expected]
    if missing or strangers:
        lacks = f"lacks {len(missing)} images: {shorten(missing)}" if missing else ""
        has = f"has {len(strangers)} others: {shorten(strangers)}" if strangers else ""
        raise ValueError(
            f"{path} {' and '.join(filter(None, (lacks, has)))}. Labels belong to the names "
            f"ILSVRC2012_val_00000001.JPEG to ...{len(labels):08d}.JPEG: download it again."
        )
    return [Entry(name, label, by_name[name]) for name, label in expected.items()]


def _lines(name: str) -> list[str]:
    """The lines of a file of the TFDS package: synsets by label or by validation image."""
    return tfds.core.tfds_path(f"datasets/imagenet2012/{name}").read_text().split()


def _remembered(source: Tar, path: Path) -> list[Member]:
    """The members of the tar; from the file if that lists this very tar."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["stamp"]) == source.stamp:
                names = file["paths"].tobytes().decode("utf-8", "surrogateescape").split("\n")
                rows = zip(names, file["sizes"].tolist(), file["offsets"].tolist(), strict=True)
                return [Member(*row) for row in rows]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # no such file, or a broken one
    members = source.scan().members
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"new-{path.name}")
    paths = "\n".join(member.path for member in members)
    np.savez(
        temporary,
        stamp=np.array(source.stamp),
        paths=np.frombuffer(paths.encode("utf-8", "surrogateescape"), np.uint8),
        sizes=np.array([m.size for m in members], np.int64),
        offsets=np.array([m.offset for m in members], np.int64),
    )
    temporary.replace(path)
    return members
