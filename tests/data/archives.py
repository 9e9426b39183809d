"""Small archives in the official layouts, so that tests prepare data sets as users do.

Every function writes into `directory`, for `launch.prepare --manual_dir`, and accepts `changes`: by
path in the archive, other bytes for a file, an additional file, or None to leave one out.
"""

import functools
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

Changes = Mapping[str, bytes | None]

OFFICE_HOME_CLASSES = ("Alarm_Clock", "Backpack", "Batteries", "Bed", "TV")
OFFICE_HOME_DOMAINS = ("Art", "Clipart", "Product", "Real World")
DOMAINNET_DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
VISDA_CLASSES = (
    *("aeroplane", "bicycle", "bus", "car", "horse", "knife"),
    *("motorcycle", "person", "plant", "skateboard", "train", "truck"),
)


# Images


@functools.cache
def image(
    label: int, index: int, *, size: tuple[int, int] = (40, 30), format: str = "JPEG"
) -> bytes:
    """An encoded RGB image of size (height, width); its colour tells the class, roughly."""
    generator = np.random.default_rng([label, index])
    colour = np.random.default_rng(label).integers(30, 226, 3)
    coarse = colour + generator.integers(-30, 30, (*(max(1, n // 8) for n in size), 3))
    pixels = Image.fromarray(coarse.astype(np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    return encode(pixels, format=format)


def encode(pixels: Image.Image, *, format: str = "JPEG", **options: object) -> bytes:
    """The bytes of a file with these pixels."""
    buffer = io.BytesIO()
    pixels.save(buffer, format, **options)
    return buffer.getvalue()


# Files and archives


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """A tar of these files, in this order."""
    with open(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in files.items():
            _add(tar, name, data)


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """A zip of these files, in this order."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def write_folder(directory: Path, files: Mapping[str, bytes]) -> None:
    """These files below a directory; a name that ends with a slash is an empty folder."""
    for name, data in files.items():
        path = directory / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _changed(files: Mapping[str, bytes], changes: Changes) -> dict[str, bytes]:
    return {name: data for name, data in {**files, **changes}.items() if data is not None}


# The data sets


def imagenet_synsets() -> list[str]:
    """The 1000 synsets, in the order of the labels."""
    return _package_lines("labels.txt")


def imagenet_validation_synsets() -> list[str]:
    """The synset of each of the 50 000 validation images, by number."""
    return _package_lines("validation_labels.txt")


@functools.cache
def _package_lines(name: str) -> list[str]:
    return tfds.core.tfds_path(f"datasets/imagenet2012/{name}").read_text().split()


def make_imagenet(
    directory: Path,
    *,
    train_per_class: int = 1,
    validation: int = 50_000,
    synsets: Iterable[str] | None = None,
    size: tuple[int, int] = (40, 30),
    changes: Changes | None = None,
) -> None:
    """ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, each left out if it would have 0 images.

    Args:
      train_per_class: images `<synset>_1.JPEG`, ... of each synset.
      validation: the number of validation images, the first ones; those of a class are the same.
      synsets: those of the training tar; None for the 1000.
      size: (height, width).
      changes: by file name only: `n01440764_1.JPEG`, `ILSVRC2012_val_00000001.JPEG`.
    """
    changes = changes or {}
    label_of = {synset: label for label, synset in enumerate(imagenet_synsets())}
    if train_per_class:
        tars = {}
        for synset in label_of if synsets is None else synsets:
            files = {
                f"{synset}_{i}.JPEG": image(label_of.get(synset, 0), i, size=size)
                for i in range(1, train_per_class + 1)
            }
            relevant = {
                name: data for name, data in changes.items() if name.startswith(f"{synset}_")
            }
            tars[f"{synset}.tar"] = _tar_bytes(_changed(files, relevant))
        write_tar(directory / "ILSVRC2012_img_train.tar", tars)
    if validation:
        labels = [label_of[synset] for synset in imagenet_validation_synsets()[:validation]]
        files = {
            f"ILSVRC2012_val_{i:08d}.JPEG": image(label, 0, size=size)
            for i, label in enumerate(labels, start=1)
        }
        relevant = {
            name: data for name, data in changes.items() if name.startswith("ILSVRC2012_val_")
        }
        write_tar(directory / "ILSVRC2012_img_val.tar", _changed(files, relevant))


def _tar_bytes(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            _add(tar, name, data)
    return buffer.getvalue()


def make_imagenet_v2(
    directory: Path,
    *,
    published: str = "matched-frequency",
    per_class: int = 1,
    folders: Sequence[str] | None = None,
    suffix: str = ".tar.gz",
    compressed: bool = False,
    changes: Changes | None = None,
) -> None:
    """imagenetv2-matched-frequency.tar.gz, which is a plain tar unless it is `compressed`.

    Args:
      folders: the names of the folders of classes 0, 1, …; None: these numbers.
      suffix: that of the tar; "" writes the folder in it.
    """
    name = f"imagenetv2-{published}"
    folders = [str(i) for i in range(1000)] if folders is None else folders
    files = {
        f"{name}-format-val/{folder}/{label:04x}_{i}.jpeg": image(label % 50, i, size=(10, 12))
        for label, folder in enumerate(folders)
        for i in range(per_class)
    }
    files = _changed(files, changes or {})
    if not suffix:
        write_folder(directory, files)
        return
    data = _tar_bytes(files)
    path = directory / f"{name}{suffix}"
    path.write_bytes(gzip.compress(data, compresslevel=1) if compressed else data)


def make_imagenet_class_set(
    directory: Path,
    name: str,
    *,
    per_class: int = 1,
    synsets: Sequence[str] | None = None,
    extracted: bool = False,
    changes: Changes | None = None,
) -> None:
    """imagenet-a.tar, imagenet-r.tar or ImageNet-Sketch.zip.

    Args:
      name: "imagenet_a", "imagenet_r" or "imagenet_sketch".
      synsets: the folders; None: every fifth of the 1000, or all for the sketches.
    """
    if synsets is None:
        synsets = imagenet_synsets() if name == "imagenet_sketch" else imagenet_synsets()[3::5]
    label_of = {synset: label for label, synset in enumerate(imagenet_synsets())}
    root = {"imagenet_a": "imagenet-a", "imagenet_r": "imagenet-r", "imagenet_sketch": "sketch"}
    suffix = "JPEG" if name == "imagenet_sketch" else "jpg"
    files = {} if name == "imagenet_sketch" else {f"{root[name]}/README.txt": b"of the authors"}
    files |= {
        # As in ImageNet-A, the names of files do not contain that of the folder.
        f"{root[name]}/{synset}/{label_of.get(synset, 0):04d}_{i}.{suffix}": image(
            label_of.get(synset, 0) % 50, i, size=(10, 12)
        )
        for synset in synsets
        for i in range(per_class)
    }
    files = _changed(files, changes or {})
    if extracted:
        write_folder(directory, files)
    elif name == "imagenet_sketch":
        write_zip(directory / "ImageNet-Sketch.zip", files)
    else:
        write_tar(directory / f"{root[name]}.tar", files)


def make_imagenet_c(
    directory: Path,
    *,
    archive: str = "noise",
    corruption: str = "gaussian_noise",
    severity: int = 1,
    labels: Sequence[int],
    prefix: str = "",
    size: tuple[int, int] = (224, 224),
    extracted: bool = False,
    changes: Changes | None = None,
) -> None:
    """noise.tar, or the folders in it, with one corruption at one severity.

    Args:
      labels: those of validation images 1, 2, …
      prefix: in front of the paths in the tar.
    """
    synsets = imagenet_synsets()
    files = {
        f"{prefix}{corruption}/{severity}/{synsets[label]}/ILSVRC2012_val_{i:08d}.JPEG": image(
            label % 50, severity, size=size
        )
        for i, label in enumerate(labels, start=1)
    }
    files = _changed(files, changes or {})
    if extracted:
        write_folder(directory, files)
    else:
        write_tar(directory / f"{archive}.tar", files)


def make_tiny_imagenet(
    directory: Path,
    *,
    num_classes: int = 5,
    train_per_class: int = 4,
    validation: int = 10,
    extracted: bool = False,
    changes: Changes | None = None,
) -> None:
    """tiny-imagenet-200.zip, or the folder in it; paths begin with `tiny-imagenet-200/`."""
    wnids = imagenet_synsets()[:num_classes]
    root = "tiny-imagenet-200"
    files = {f"{root}/wnids.txt": "".join(f"{wnid}\n" for wnid in wnids[::-1]).encode()}
    for label, wnid in enumerate(wnids):
        for i in range(train_per_class):
            name = f"{root}/train/{wnid}/images/{wnid}_{i}.JPEG"
            files[name] = image(label, i, size=(64, 64))
        files[f"{root}/train/{wnid}/{wnid}_boxes.txt"] = b""
    annotations = []
    for i in range(validation):
        files[f"{root}/val/images/val_{i}.JPEG"] = image(i % num_classes, 1000 + i, size=(64, 64))
        annotations.append(f"val_{i}.JPEG\t{wnids[i % num_classes]}\t0\t0\t63\t63\n")
    files[f"{root}/val/val_annotations.txt"] = "".join(annotations).encode()
    files[f"{root}/test/images/test_0.JPEG"] = image(0, 2000, size=(64, 64))
    files = _changed(files, changes or {})
    write_folder(directory, files) if extracted else write_zip(directory / f"{root}.zip", files)


def make_office_home(
    directory: Path,
    *,
    per_class: int = 2,
    classes: Sequence[str] = OFFICE_HOME_CLASSES,
    domains: Sequence[str] = OFFICE_HOME_DOMAINS,
    lists: Sequence[str] | None = None,
    prefix: str = "./",
    extracted: bool = False,
    changes: Changes | None = None,
) -> None:
    """OfficeHomeDataset_10072016.zip, or the folder in it; paths begin with that name.

    Args:
      lists: the classes in the order of the published lists, which are then written beside it,
        with the last image of a class first; None: no lists are written.
      prefix: of the paths in the lists.
    """
    root = "OfficeHomeDataset_10072016"
    files = {f"{root}/ImageInfo.csv": b"", f"{root}/imagelist.txt": b""}
    for domain in domains:
        for label, name in enumerate(classes):
            for i in range(1, per_class + 1):
                data = image(label, i, size=(30 + 10 * i, 48))
                files[f"{root}/{domain}/{name}/{i:05d}.jpg"] = data
    texts = {}
    for domain in domains if lists is not None else ():
        list_name = domain.replace(" ", "_")
        texts[f"{list_name}.txt"] = "".join(
            f"{prefix}{list_name}/{name}/{i:05d}.jpg {label}\n"
            for label, name in enumerate(lists)
            for i in range(per_class, 0, -1)
        ).encode()
    files, texts = _changed(files, changes or {}), _changed(texts, changes or {})
    texts = {name: data for name, data in texts.items() if "/" not in name}
    files = {name: data for name, data in files.items() if "/" in name}
    write_folder(directory, texts)
    write_folder(directory, files) if extracted else write_zip(directory / f"{root}.zip", files)


def make_domainnet(
    directory: Path,
    *,
    domains: Sequence[str] = ("clipart", "real"),
    classes: Sequence[str] = ("airplane", "cello", "cell_phone", "The_Mona_Lisa", "t-shirt"),
    prefix: str = "",
    extracted: bool = False,
    changes: Changes | None = None,
) -> None:
    """`<domain>.zip`, or the folders, and both lists of each domain; 3 and 2 images of each class.

    Args:
      prefix: of the paths in the lists, such as "./data/DomainNet/".
    """
    suffix = {"quickdraw": ("png", "PNG")}
    files: dict[str, bytes] = {}
    for domain in domains:
        ending, kind = suffix.get(domain, ("jpg", "JPEG"))
        lists: dict[str, list[str]] = {"train": [], "test": []}
        for label, name in enumerate(classes):
            for i in (4, 1, 5, 2, 3):  # the published lists are in no order within a class
                path = f"{domain}/{name}/{domain}_{label + 1:03d}_{i:06d}.{ending}"
                files[path] = image(label, 10 * DOMAINNET_DOMAINS.index(domain) + i, format=kind)
                part = "train" if i in (4, 1, 5) else "test"
                lists[part].append(f"{prefix}{path} {label}\n")
        files |= {f"{domain}_{part}.txt": "".join(x).encode() for part, x in lists.items()}
    files = _changed(files, changes or {})
    texts = {name: data for name, data in files.items() if "/" not in name}
    write_folder(directory, files if extracted else texts)
    for domain in domains if not extracted else ():
        inside = {name: data for name, data in files.items() if name.startswith(f"{domain}/")}
        write_zip(directory / f"{domain}.zip", inside)


def make_visda(
    directory: Path,
    *,
    per_class: int = 2,
    classes: Sequence[str] = VISDA_CLASSES,
    splits: Sequence[str] = ("train", "validation"),
    extracted: bool = False,
    changes: Changes | None = None,
) -> None:
    """train.tar (PNG) and validation.tar (JPEG), or the directories; paths begin with the split."""
    for split in splits:
        suffix, kind = ("png", "PNG") if split == "train" else ("jpg", "JPEG")
        files, lines = {}, []
        for label, name in enumerate(classes):
            for i in range(per_class):
                path = f"{name}/{split}_{label}_{i}.{suffix}"
                files[f"{split}/{path}"] = image(label, i, format=kind)
                lines.append(f"{path} {label}\n")
        files[f"{split}/image_list.txt"] = "".join(lines).encode()
        relevant = {k: data for k, data in (changes or {}).items() if k.startswith(f"{split}/")}
        files = _changed(files, relevant)
        write_folder(directory, files) if extracted else write_tar(
            directory / f"{split}.tar", files
        )


def make_folder(
    directory: Path,
    *,
    per_class: int = 4,
    classes: Sequence[str] = ("cat", "dog", "owl"),
    splits: Sequence[str] = ("train", "test"),
    size: tuple[int, int] = (40, 30),
    changes: Changes | None = None,
) -> None:
    """Class folders below split folders, or, without `splits`, right below `directory`."""
    files = {}
    for j, split in enumerate(splits or ("",)):
        for label, name in enumerate(classes):
            for i in range(per_class):
                path = f"{split}/{name}/{i}.jpg".lstrip("/")
                files[path] = image(label, 100 * j + i, size=size)
    write_folder(directory, _changed(files, changes or {}))
