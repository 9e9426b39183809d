"""Prepares a data set: pnoise prepare --dataset NAME --manual_dir DIR --data_dir DIR

NAME is domainnet, imagenet2012, office_home, tiny_imagenet or visda2017, or one of the test sets
with ImageNet's classes (imagenet_v2/matched-frequency, imagenet_a, imagenet2012_real and so on),
made from the official archives, which you put into --manual_dir (if it is empty, the command says
what to download from where); or folder/<name>, made from your own images in <split>/<class>/... or
<class>/... If both layouts are possible, the command shows both, and --layout chooses one.
imagenet2012_corrupted means all of ImageNet-C that is in --manual_dir. digits, font_digits and
glyphs need no files.

Every image is verified. If the command was stopped, for example by a full disk, the same command
resumes where it stopped. The data set appears in --data_dir once it is complete, in the format of
TFDS (array_record). A data set that TFDS itself has prepared needs no preparation.
"""

import shlex
from typing import Any, cast

from absl import flags

from pnoise_jax.data import manifest, prepare
from pnoise_jax.data.prepare import shorten
from pnoise_jax.terminal import say

from . import main

_DATASET = flags.DEFINE_string(
    "dataset", None, f"One of {', '.join(prepare.list_preparable())}.", required=True
)
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", None, "Directory with the downloads, or with your images."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Directory of the data sets, as in a config's data.data_dir; default: $TFDS_DATA_DIR, or else "
    "~/tensorflow_datasets.",
)
_LAYOUT = flags.DEFINE_enum(
    "layout",
    None,
    ["classes", "splits"],
    "For folder/<name>: whether the folders in --manual_dir are classes, or splits that contain "
    "classes. Default: the only possible one; if both are possible, both are shown for you to "
    "choose.",
)
_SKIP_UNREADABLE = flags.DEFINE_bool(
    "skip_unreadable",
    False,
    "For folder/<name>: leave out files in formats that cannot be read, such as .heic, .psd and "
    ".mp4. By default they are refused; damaged images always are.",
)
_SHORT_SIDE = flags.DEFINE_integer(
    "short_side",
    None,
    "Shrink images whose short side is longer to this many pixels; with 320, training at 224 reads "
    "images faster. Default: no image is resized.",
    lower_bound=1,
)
_VERIFY = flags.DEFINE_bool(
    "verify", False, "Read all files of an existing data set and compare their checksums."
)


def describe(prepared: prepare.Prepared) -> str:
    """Describes the prepared data set, what was done to its images, and the fields for a config."""
    sizes = ", ".join(f"{split} {number:,}" for split, number in prepared.splits.items())
    if prepared.is_new:
        changes = [f"{number:,} {what}" for what, number in prepared.changes.items()]
        lines = [
            f"prepared {prepared.path}",
            f"examples: {sizes}",
            f"images: {'; '.join(changes) if changes else 'all stored unchanged'}",
        ]
    else:
        lines = [
            f"nothing to do: {prepared.path} already exists; delete it to prepare it again",
            f"examples: {sizes}",
        ]
    if prepared.class_names:
        shown = shorten(prepared.class_names, limit=12)
        lines.append(f"classes: {len(prepared.class_names)}, starting at label 0: {shown}")
    lines += [f"note: {note}" for note in prepared.notes]
    lines += ["in a config, or as flags of pnoise train:", *_flags(prepared)]
    return "\n".join(lines)


# Names of splits to train on and to test on, in order of preference.
_TRAIN = ("train", "training")
_TEST = ("validation", "val", "valid", "dev", "eval", "test", "testing")


def _flags(prepared: prepare.Prepared) -> list[str]:
    called = {split.lower(): split for split in prepared.splits}
    train = next((called[name] for name in _TRAIN if name in called), None)
    test = next((called[name] for name in _TEST if name in called), None)
    if train is not None and list(prepared.splits) == [train]:
        chosen = {"train_split": f"{train}[:90%]", "test_split": f"{train}[90%:]"}
    else:  # only the user knows which splits with other names to train on
        chosen = {"train_split": train, "test_split": test}
        chosen = {field: split for field, split in chosen.items() if split is not None}
    # <data_dir>/<name>/<version>
    data_dir = prepared.path.parents[len(prepared.name.split("/"))]
    fields = {"name": prepared.name, "data_dir": data_dir} | chosen
    return [f"  {shlex.quote(f'--config.data.{name}={value}')}" for name, value in fields.items()]


def _prepare() -> None:
    for name in prepare.expand(_DATASET.value, _MANUAL_DIR.value):
        _prepare_one(name)


def _prepare_one(name: str) -> None:
    prepared = prepare.prepare(
        name,
        manual_dir=_MANUAL_DIR.value,
        data_dir=_DATA_DIR.value,
        short_side=_SHORT_SIDE.value,
        layout=cast("Any", _LAYOUT.value),
        skip_unreadable=_SKIP_UNREADABLE.value,
    )
    verified = [_verified(prepared)] if _VERIFY.value else []
    say("\n".join([describe(prepared), *verified]))


def _verified(prepared: prepare.Prepared) -> str:
    number = manifest.read(prepared.path).check_all()
    if not number:
        return (
            f"not verified: no checksums were recorded when {prepared.path} was prepared; each "
            "record is compared with its own checksum when it is read"
        )
    return f"verified: {number} files are unchanged since they were prepared"


if __name__ == "__main__":
    flags.adopt_module_key_flags(main)  # for --help
    main.run(_prepare, on_interrupt="interrupted; the same command resumes where it stopped")
