"""Characters of many scripts as a TFDS data set: 200 or 1000 classes, tested on unseen fonts."""

import hashlib
import io
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
FACES = {
    "train": tuple(f"DejaVuSans{width}{style}" for width in ("", "Mono") for style in _STYLES),
    "test": tuple(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
}
RENDERINGS = {"train": 10, "test": 5}  # of a class in each face

_MAX_CLASSES = 1000
# Of version 1.0.0: SHA-256 of the codepoints of all classes, in decimal, with commas between.
_CLASSES_SHA256 = "3a36ab6c49841fb0fb45aacce346cd32bbcc86dd1a103874e99949e8d23550af"

_DESCRIPTION = """\
Characters in the 12 DejaVu text faces that ship with matplotlib: 32x32 grey pixels, white on black,
smooth edges. `train` has the 8 faces of DejaVu Sans and DejaVu Sans Mono, 10 drawings of each class
in each face; `test` has the 4 faces of DejaVu Serif, which training never shows, 5 drawings in
each: 80 and 20 examples of every class. Each drawing is turned by up to 10 degrees, sheared,
stretched, scaled and shifted a little, by amounts that SHA-256 of its `id` fixes.

The classes are the first 200 or 1000 codepoints, ascending, of which
- every one of the 12 faces has a drawing, and it is a letter, a number, punctuation or a symbol;
- no test face's drawing is nearly a training face's (cosine below 0.99 between plain drawings,
  scaled to one size): some symbols are drawn alike in all fonts;
- in no face a drawing looks like an earlier class's (cosine below 0.95).
So class k is the same character, in the same drawings, in both configs. (matplotlib's 4 STIX faces
are not used: they have only 730 of the 2383 codepoints that the 12 have in common, fewer than 1000
classes before look-alikes go.)

Both splits are stored in rounds, each with one example of every class, so every prefix such as
`train[:4000]` is balanced; the faces take turns from round to round. `metadata` names the versions
of matplotlib and FreeType that drew the images (3.10.0 and 3.11.2 draw the same), and the classes'
codepoints by label.
"""


class Glyphs(tfds.core.GeneratorBasedBuilder):
    """Builder of `glyphs/200` and `glyphs/1000`: image (32, 32, 1) uint8, label from 0.

    Beside them stand `codepoint` and `face`, which say what is drawn, and `id`, the drawing's name,
    such as "U+0041/DejaVuSans-Bold/3". Source: the fonts DejaVu 2.37 as matplotlib carries them.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.0.0": "Up to 1000 classes; 8 sans-serif faces for training, 4 serif faces for the test."
    }
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name="200", description="200 classes"),
        tfds.core.BuilderConfig(name="1000", description="1000 classes"),
    ]

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
                    "face": tfds.features.ClassLabel(names=FACES["train"] + FACES["test"]),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the stored order is stored_order(), and part of the data set
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # matplotlib carries the data: nothing to download
        import matplotlib
        from matplotlib import ft2font

        codepoints = class_codepoints()[: int(self.builder_config.name)]
        self.info.metadata.update(
            matplotlib=matplotlib.__version__,
            freetype=ft2font.__freetype_version__,
            codepoints=list(codepoints),
        )
        return {split: self._generate_examples(codepoints, split) for split in FACES}

    def _generate_examples(
        self, codepoints: tuple[int, ...], split: str
    ) -> Iterator[tuple[int, dict]]:
        from pnoise_jax.data import characters  # matplotlib takes long, and is only needed here

        pen = characters.Pen(FACES[split])
        for position, (label, face, rendering) in enumerate(stored_order(codepoints, split)):
            name = f"U+{codepoints[label]:04X}/{face}/{rendering}"
            jitter = characters.Jitter.from_digest(_hash(name))
            example = {
                "id": name,
                "image": _png(pen.draw(codepoints[label], face, jitter)),
                "label": label,
                "codepoint": codepoints[label],
                "face": face,
            }
            yield position, example


def class_codepoints() -> tuple[int, ...]:
    """The codepoints of the 1000 classes, by label; a few seconds.

    Raises:
      FileNotFoundError: matplotlib's fonts are missing.
      ValueError: they give other classes than this version of the data set has.
    """
    import matplotlib

    from pnoise_jax.data import characters

    codepoints = characters.distinct_codepoints(FACES["train"], FACES["test"])[:_MAX_CLASSES]
    digest = hashlib.sha256(",".join(map(str, codepoints)).encode()).hexdigest()
    if digest != _CLASSES_SHA256:
        raise ValueError(
            f"data.name='glyphs/…' {Glyphs.VERSION} is drawn from DejaVu 2.37, and the fonts of "
            f"matplotlib {matplotlib.__version__} give other classes ({len(codepoints)} of "
            f"{_MAX_CLASSES}), so results could not be compared. Prepare it with matplotlib 3.10 "
            "or 3.11; once prepared it is read by any."
        )
    return codepoints


def stored_order(codepoints: tuple[int, ...], split: str) -> Iterator[tuple[int, str, int]]:
    """The examples of a split in stored order, each as (label, face, rendering).

    A round has every class once, in an order fixed by a hash. Classes differ in the face with
    which they begin, and go on to the next in each round.
    """
    faces = FACES[split]
    for rendering, turn in itertools.product(range(RENDERINGS[split]), range(len(faces))):
        ranked = sorted(
            (_hash(f"U+{codepoint:04X}/{split}/{rendering}/{turn}"), label)
            for label, codepoint in enumerate(codepoints)
        )
        for _, label in ranked:
            yield label, faces[(label + turn) % len(faces)], rendering


def _hash(name: str) -> bytes:
    # A hash and not a random generator: no library's version can change the drawings or the order.
    return hashlib.sha256(f"glyphs/1.0.0/{name}".encode()).digest()


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()
