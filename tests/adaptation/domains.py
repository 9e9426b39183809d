"""Two small domains of four classes, which are bright corners; the target is dimmer."""

import unicodedata

import numpy as np

from pnoise_jax import data, training

NAMES = ("top left", "top right", "bottom left", "bottom right")


def corners(seed, brightness, names=NAMES, count=160):
    """Images of one domain, with classes numbered as in ``names``."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = generator.integers(0, 80, (count, 8, 8, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        name = names[label]
        row, column = divmod(NAMES.index(name) if name in NAMES else 3, 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += np.uint8(brightness)
    cut = 3 * count // 4
    splits = {"train": (images[:cut], labels[:cut]), "test": (images[cut:], labels[cut:])}
    return data.InMemory(splits, class_names=names)


def source():
    return corners(0, 120)


def target():
    return corners(1, 60)


def part_of_target():
    """Training images of another set, and ten of the target's test split."""
    images, labels = corners(0, 120).splits["train"]
    theirs, their_labels = target().splits["test"]
    joined = np.concatenate([images, theirs[:10]]), np.concatenate([labels, their_labels[:10]])
    return data.InMemory({"train": joined, "test": target().splits["test"]}, class_names=NAMES)


def renumbered():
    """The target with its classes in another order."""
    return corners(1, 60, names=NAMES[::-1])


def accented(form, order=1):
    """The target with an accent in a name, in a normal form of Unicode."""
    names = tuple(unicodedata.normalize(form, name) for name in (*NAMES[:3], "bottom r\u00edght"))
    return corners(1 + order, 60, names=names[::order])


def composed():
    return accented("NFC")


def decomposed_renumbered():
    return accented("NFD", order=-1)


def other_classes():
    return corners(1, 60, names=("top left", "top right", "bottom left", "middle"))


def fewer_classes():
    return data.InMemory(_without(3), class_names=NAMES[:3])


def many_classes():
    """The source's images as 40 classes, sorted by class: a part of them has few."""
    images, _ = corners(0, 120).splits["train"]
    split = (images, np.arange(120) // 3)
    return data.InMemory(
        {"train": split, "test": split}, class_names=tuple(f"class {i}" for i in range(40))
    )


def without_names():
    return data.InMemory(corners(0, 120).splits)


def numbers():
    return data.InMemory(corners(3, 120).splits, class_names=tuple("0123"))


def synsets():
    names = ("n01440764", "n01443537", "n01484850", "n01491361")
    return data.InMemory(corners(0, 120).splits, class_names=names)


def five_without_names():
    splits = corners(0, 120).splits
    return data.InMemory({k: (x, np.arange(len(x)) % 5) for k, (x, _) in splits.items()})


def empty():
    """The source without training images."""
    splits = corners(0, 120).splits
    images, labels = splits["train"]
    return data.InMemory({**splits, "train": (images[:0], labels[:0])}, class_names=NAMES)


def _without(label):
    splits = corners(0, 120).splits
    return {k: (x[labels != label], labels[labels != label]) for k, (x, labels) in splits.items()}


def mislabelled():
    """The target with other training labels."""
    made = corners(1, 60)
    images, labels = made.splits["train"]
    return data.InMemory({**made.splits, "train": (images, (labels + 1) % 4)}, class_names=NAMES)


def config(task="dann", **changes):
    """The config of a small run; changes such as {"task.domain_weight": 0.5}."""
    made = training.default_config()
    made.batch_size = 16
    made.duration = "6 steps"
    made.log_every = "2 steps"
    made.checkpoint.every = "3 steps"
    made.model = training.model_config(
        "vit_ti_16", image_size=8, patch_size=4, dim=16, depth=2, num_heads=2
    )
    made.data.name = f"{__name__}:target"
    made.task = training.task_config(task, source=f"{__name__}:source")
    made.update_from_flattened_dict(changes)
    return made


def coloured():
    """The target with three channels."""
    made = corners(1, 60)
    splits = {
        k: (np.repeat(images, 3, axis=-1), labels) for k, (images, labels) in made.splits.items()
    }
    return data.InMemory(splits, class_names=NAMES)
