"""The names of the data sets that `pnoise prepare` builds from files that their owners distribute.

`load` also reads any other data set that TFDS has prepared.
"""

from pnoise_jax.data import imagenet_sets

NAMES = (
    "domainnet",
    "imagenet2012",
    "office_home",
    "tiny_imagenet",
    "visda2017",
    *imagenet_sets.FIXED_NAMES,
    imagenet_sets.PATTERN,
)
