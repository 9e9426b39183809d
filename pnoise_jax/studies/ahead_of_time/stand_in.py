"""The known sizes of data sets, to compile a run without its images."""

import numpy as np

from pnoise_jax import data

# Classes, and examples per split, of data sets that few machines have.
_KNOWN = {"imagenet2012": (1000, {"train": 1281167, "validation": 50000})}


def load(
    name: str, *, split: str, data_dir: str | None = None, cache: bool = False
) -> data.Dataset:
    """Like `data.load`, but if ImageNet is missing, a stand-in whose images cannot be read.

    Raises:
      ValueError, OSError: as `data.load`.
    """
    try:
        return data.load(name, split=split, data_dir=data_dir, cache=cache)
    except OSError:
        classes, splits = _KNOWN.get(name, (0, {}))
        if split not in splits:
            raise
    return data.Dataset(
        name=name,
        split=split,
        num_classes=classes,
        image_shape=None,
        labels=np.zeros(splits[split], np.int32),
        images=(),
    )
