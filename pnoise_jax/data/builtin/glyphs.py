"""Characters of many scripts as a TFDS data set: 200 or 1000 classes, two unseen typefaces."""

import hashlib
import io
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
TYPEFACES = {  # with the file names of their faces
    "DejaVu Sans": tuple(f"DejaVuSans{style}" for style in _STYLES),
    "DejaVu Sans Mono": tuple(f"DejaVuSansMono{style}" for style in _STYLES),
    "DejaVu Serif": tuple(f"DejaVuSerif{s}" for s in ("", "-Bold", "-Italic", "-BoldItalic")),
    "STIXGeneral": tuple(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
}
SPLITS = {  # by config: the typefaces of each split
    "200": {
        "train": ("DejaVu Sans", "DejaVu Sans Mono"),
        "test": ("DejaVu Serif", "STIXGeneral"),
    },
    "1000": {"train": ("DejaVu Sans",), "test": ("DejaVu Serif", "DejaVu Sans Mono")},
}
EXAMPLES = {"train": 80, "test": 40}  # per class

# Many of its letters are the same as in DejaVu Sans: without them, there are fewer than 1000
# classes.
_SIMILAR = "DejaVu Sans Mono"
# Version 2.0.0: the SHA-256 of the codepoints of all classes, in decimal, separated by commas.
_CLASSES_SHA256 = {
    "200": "cae5d07a611c0c7056fee67d569236ff160480202d079bc67c4cd03aa8412a25",
    "1000": "fe79db0bed9aded7765f24c16ce9f88bb96db3eb5b343ea8524091929e972289",
}

_DESCRIPTION = """\
Characters in text faces that ship with matplotlib: 32x32 grey pixels, white on black, antialiased.
Each typeface has 4 faces: upright and slanted, regular and bold. `test` uses two typefaces that do
not occur in `train`:

| config | train                         | test                           |
|--------|-------------------------------|--------------------------------|
| 200    | DejaVu Sans, DejaVu Sans Mono | DejaVu Serif, STIXGeneral      |
| 1000   | DejaVu Sans                   | DejaVu Serif, DejaVu Sans Mono |

`train` has 80 drawings of each class and `test` 40, equally many in each face. Each drawing is
rotated by up to 10 degrees, sheared, stretched, scaled and shifted a little, by amounts that are
determined by the SHA-256 of its `id`.

A confidence interval over examples covers other drawings in these faces. It does not cover other
typefaces: `test` has only two, so accuracies in a third one may differ by more than the interval
says. `typeface` and `face` are stored with every example, to allow separate accuracies.

The classes are the first 200 or 1000 codepoints, ascending, that meet these conditions:
- Every face of the config draws the codepoint, and it is a letter, a number, punctuation or a
  symbol.
- No test face draws it almost like a training face (cosine below 0.99 between plain drawings,
  scaled to one size): some symbols look alike in all fonts. DejaVu Sans Mono in the test of `1000`
  is exempt, since there would be fewer than 1000 classes: it draws 176 of them nearly like some
  face of DejaVu Sans, so its half of the test is easier.
- In no face does it look like an earlier class (cosine below 0.95).
Class k may therefore be different characters in the two configs. (STIXGeneral is not in `1000`: it
has only 730 of the 2383 codepoints that the 12 faces of DejaVu have in common.)

Both splits are stored in rounds, each with one example of every class, so every prefix such as
`train[:4000]` is balanced. The faces take turns from round to round, and so do the typefaces: in
class order, consecutive files of a class follow a fixed cycle of faces, a nuisance factor that they
share in addition to their label. `metadata` names the versions of matplotlib and FreeType that drew
the images (3.10.0 and 3.11.2 draw the same), and the codepoint of each label.
"""


def faces_of(config: str, split: str) -> tuple[str, ...]:
    """The faces of a split, alternating between its typefaces."""
    return tuple(
        itertools.chain.from_iterable(
            zip(*(TYPEFACES[name] for name in SPLITS[config][split]), strict=True)
        )
    )


class Glyphs(tfds.core.GeneratorBasedBuilder):
    """Builder of `glyphs/200` and `glyphs/1000`: image (32, 32, 1) uint8, label from 0.

    The other features are `codepoint`, `typeface` and `face`, which describe what is drawn, and
    `id`, the name of the drawing, such as "U+0041/DejaVuSans-Bold/3". Source: the fonts DejaVu 2.37
    and STIX that ship with matplotlib.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "2.0.0": "Two typefaces in the test of each config, and other classes in `200`.",
        "1.0.0": "Up to 1000 classes; 8 sans-serif faces for training, 4 serif faces for the test.",
    }
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name="200", description="200 classes"),
        tfds.core.BuilderConfig(name="1000", description="1000 classes"),
    ]

    builder_config: tfds.core.BuilderConfig  # never None, as there are BUILDER_CONFIGS

    def _info(self) -> tfds.core.DatasetInfo:
        num_classes = int(self.builder_config.name)
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            homepage="https://dejavu-fonts.github.io",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=num_classes),
                    "codepoint": tfds.features.Scalar(np.int32),
                    "typeface": tfds.features.ClassLabel(names=list(TYPEFACES)),
                    "face": tfds.features.ClassLabel(
                        names=list(itertools.chain.from_iterable(TYPEFACES.values()))
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the stored order, stored_order(), is part of the data set
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # the fonts ship with matplotlib: nothing to download
        import matplotlib
        from matplotlib import ft2font

        codepoints = class_codepoints(self.builder_config.name)
        metadata: Any = self.info.metadata  # created by _info
        metadata.update(
            matplotlib=matplotlib.__version__,
            freetype=ft2font.__freetype_version__,
            codepoints=list(codepoints),
        )
        return {split: self._generate_examples(codepoints, split) for split in EXAMPLES}

    def _generate_examples(
        self, codepoints: tuple[int, ...], split: str
    ) -> Iterator[tuple[int, dict]]:
        from pnoise_jax.data.builtin import (
            characters,  # imports matplotlib, which is slow, and only needed here
        )

        config = self.builder_config.name
        pen = characters.Pen(faces_of(config, split))
        typefaces = {face: name for name, faces in TYPEFACES.items() for face in faces}
        order = stored_order(codepoints, config, split)
        for position, (label, face, rendering) in enumerate(order):
            name = f"U+{codepoints[label]:04X}/{face}/{rendering}"
            jitter = characters.Jitter.from_digest(_hash(name))
            example = {
                "id": name,
                "image": _png(pen.draw(codepoints[label], face, jitter)),
                "label": label,
                "codepoint": codepoints[label],
                "typeface": typefaces[face],
                "face": face,
            }
            yield position, example


def class_codepoints(config: str) -> tuple[int, ...]:
    """The codepoints of the classes of "200" or "1000", by label; takes a few seconds.

    Raises:
      FileNotFoundError: matplotlib's fonts are missing.
      ValueError: the fonts result in other classes than this version of the data set has.
    """
    import matplotlib

    from pnoise_jax.data.builtin import characters

    test = SPLITS[config]["test"]
    new = tuple(face for name in test if name != _SIMILAR for face in TYPEFACES[name])
    similar = TYPEFACES[_SIMILAR] if _SIMILAR in test else ()
    distinct = characters.distinct_codepoints(faces_of(config, "train"), new, similar)
    codepoints = distinct[: int(config)]
    digest = hashlib.sha256(",".join(map(str, codepoints)).encode()).hexdigest()
    if digest != _CLASSES_SHA256[config]:
        raise ValueError(
            f"data.name='glyphs/{config}' {Glyphs.VERSION} is drawn from DejaVu 2.37 and STIX, but "
            f"the fonts of matplotlib {matplotlib.__version__} result in other classes "
            f"({len(codepoints)} of {config}), so results would not be comparable. Prepare it with "
            "matplotlib 3.10 or 3.11; once prepared, it can be read with any version."
        )
    return codepoints


def stored_order(
    codepoints: tuple[int, ...], config: str, split: str
) -> Iterator[tuple[int, str, int]]:
    """The examples of a split in stored order, each as (label, face, rendering).

    Each round contains every class once, in an order determined by a hash. Classes start with
    different faces, and move on to the next face in every round.
    """
    faces = faces_of(config, split)
    renderings = EXAMPLES[split] // len(faces)
    for rendering, turn in itertools.product(range(renderings), range(len(faces))):
        ranked = sorted(
            (_hash(f"U+{codepoint:04X}/{split}/{rendering}/{turn}"), label)
            for label, codepoint in enumerate(codepoints)
        )
        for _, label in ranked:
            yield label, faces[(label + turn) % len(faces)], rendering


def _hash(name: str) -> bytes:
    # A hash, not a random generator: no library version can change the drawings or their order.
    return hashlib.sha256(f"glyphs/2.0.0/{name}".encode()).digest()


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()
