"""Digits drawn from fonts as a TFDS data set: the synthetic counterpart of `digits`."""

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from pnoise_jax.data.builtin.digits import encode_counts

# Faces that have shipped with matplotlib since 3.10 and contain all ten digits. Left out: cmex10
# and cmsy10 (other symbols instead of digits), cmti10 and LastResort (not in 3.10).
_STYLES = ("", "-Bold", "-Oblique", "-BoldOblique")
FACES = {  # by split
    "train": (
        *(f"DejaVuSans{style}" for style in _STYLES),
        *(f"DejaVuSansMono{style}" for style in _STYLES),
        *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
        *("cmr10", "cmb10", "cmmi10", "cmtt10"),
    ),
    "test": (*(f"DejaVuSerif{s}" for s in ("", "-Bold", "-Italic", "-BoldItalic")), "cmss10"),
}
EXAMPLES = {"train": 400, "test": 100}  # per digit: 25 and 20 drawings in each face

# Version 1.0.0: the SHA-256 of all outlines, see `digit_drawings.outlines_digest`.
_OUTLINES_SHA256 = "c3d6c6e83fd236fb0fe057b7431d66077d47a0d8faa5d95f89437f8556c1ba99"

_DESCRIPTION = """\
Printed digits, stored like scikit-learn's handwritten digits: a binary bitmap of 32x32 pixels is
divided into non-overlapping 4x4 blocks, and the number of pixels that are on in each block, 0..16,
is a pixel of the 8x8 image (value v becomes the byte round(v * 255 / 16), as in `digits`).

`train` has 400 drawings of each digit in 16 faces, `test` 100 in 5 others; all faces ship with
matplotlib. Each drawing is rotated by up to 10 degrees, slanted, stretched, scaled to 26..30
pixels, made bolder by up to one pixel on each side, and shifted, by amounts that are determined by
the SHA-256 of its `id`. No drawing is cut off. The labels are the same as in `digits`.

Both splits are stored in rounds, each with one example of every digit, so every prefix such as
`train[:300]` is balanced; the faces take turns from round to round. `metadata` names the versions
of matplotlib and FreeType that drew the images (3.10.0 and 3.11.2 draw the same).
"""


class FontDigits(tfds.core.GeneratorBasedBuilder):
    """Builder of the `font_digits` data set: image (8, 8, 1) uint8, label 0..9.

    The other features are `face`, the file name of the font, and `id`, the name of the drawing,
    such as "7/DejaVuSans-Bold/3". Source: the fonts DejaVu 2.37, STIX and Computer Modern that ship
    with matplotlib.

    To show how it differs from `digits`: the accuracy in percent of scikit-learn 1.9.1's
    MLPClassifier((64,), max_iter=400) on pixels in [0, 1], random_state 0..4 (on two CPU cores):

    | trained on           | tested on          | mean | range        |
    |----------------------|--------------------|------|--------------|
    | `font_digits` train  | `font_digits` test | 99.7 | 99.6 to 99.8 |
    | `font_digits` train  | `digits` test      | 62.2 | 60.6 to 64.0 |
    | `digits` train[:100] | `digits` test      | 88.0 | 86.7 to 88.6 |
    | `digits` train[:300] | `digits` test      | 95.4 | 95.1 to 95.8 |
    | `digits` train       | `digits` test      | 96.6 | 96.2 to 97.1 |
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "4000 and 1000 digits in 16 and 5 faces."}

    def _info(self) -> tfds.core.DatasetInfo:
        faces = list(itertools.chain.from_iterable(FACES.values()))
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            homepage="https://matplotlib.org/stable/users/explain/text/fonts.html",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "face": tfds.features.ClassLabel(names=faces),
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

        _require_known_fonts()
        metadata: Any = self.info.metadata
        metadata.update(matplotlib=matplotlib.__version__, freetype=ft2font.__freetype_version__)
        return {split: self._generate_examples(split) for split in FACES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        # matplotlib is slow to import, and only needed here
        from pnoise_jax.data.builtin import digit_drawings

        pen = digit_drawings.Pen(FACES[split])
        for position, (digit, face, drawing) in enumerate(stored_order(split)):
            name = f"{digit}/{face}/{drawing}"
            variation = digit_drawings.Variation.from_digest(_hash(name))
            counts = digit_drawings.block_counts(pen.draw(digit, face, variation))
            example = {"id": name, "image": encode_counts(counts), "label": digit, "face": face}
            yield position, example


def stored_order(split: str) -> Iterator[tuple[int, str, int]]:
    """The examples of a split in stored order, each as (digit, face, drawing).

    Each round contains every digit once, in an order determined by a hash. Digits start with
    different faces, and move on to the next face in every round.
    """
    faces = FACES[split]
    for drawing, turn in itertools.product(range(EXAMPLES[split] // len(faces)), range(len(faces))):
        for digit in sorted(range(10), key=lambda d: _hash(f"{d}/{split}/{drawing}/{turn}")):
            yield digit, faces[(digit + turn) % len(faces)], drawing


def _require_known_fonts() -> None:
    """Raises ValueError if the fonts differ from the fonts of this version of the data set."""
    import matplotlib

    from pnoise_jax.data.builtin import digit_drawings

    if digit_drawings.outlines_digest([*FACES["train"], *FACES["test"]]) != _OUTLINES_SHA256:
        raise ValueError(
            f"data.name='font_digits' {FontDigits.VERSION} is drawn from DejaVu 2.37, STIX and "
            f"Computer Modern, but the digits in the fonts of matplotlib {matplotlib.__version__} "
            "differ, so results would not be comparable. Prepare it with matplotlib 3.10 or 3.11; "
            "once prepared, it can be read with any version."
        )


def _hash(name: str) -> bytes:
    # A hash, not a random generator: no library version can change the drawings or their order.
    return hashlib.sha256(f"font_digits/1.0.0/{name}".encode()).digest()
