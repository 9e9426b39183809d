"""Statistics of pixels: which are possible, and the errors for those on another scale."""

import jax
import numpy as np
import pytest

from pnoise_jax import evaluation
from pnoise_jax.data.image.arguments import require_statistics
from pnoise_jax.data.image.transforms import create_transform

IMAGENET_255 = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@pytest.mark.parametrize(
    ("mean", "std"),
    [  # all that timm's models have
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143)),
        ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (
            (0.48627450980392156, 0.4588235294117647, 0.40784313725490196),
            (0.23482446870963955,) * 3,
        ),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        # Keras models that see pixels from 0 to 255, or from -128
        ((0.0,), (1 / 255,)),
        ((127.5 / 255,), (1 / 255,)),
        ((0.5,), (0.0039,)),
        ((0,), (1,)),
        ([0.5], [np.float32(0.5)]),
    ],
)
def test_statistics_of_published_models_are_accepted(mean, std):
    require_statistics(mean=mean, std=std)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("mean", IMAGENET_255[0], r"to 255\. Divided .* data\.mean=\(0\.485, 0\.456, 0\.406\)"),
        ("std", IMAGENET_255[1], r"to 255\. Divided .* data\.std=\(0\.229, 0\.224, 0\.225\)"),
        ("std", (255.0,), r"they are data\.std=\(1\.0,\)"),
        ("mean", (0, 127.5), r"they are data\.mean=\(0\.0, 0\.5\)"),
        ("mean", (0.485, 0.456, 127.5), "from 0 to 1$"),  # two scales: which is meant?
        ("mean", (10**400,), "from 0 to 1$"),
        ("mean", (65535.0,), r"from 0 to 1$"),
        ("std", (0.9, 58.0), "from 0.0039 to 1$"),
        ("mean", (-0.5,), "from 0 to 1$"),
        ("std", (0.0,), "from 0.0039 to 1$"),
        ("std", (0.229 / 255,), "from 0.0039 to 1$"),
        *((name, (float(x),), "finite number") for name in ("mean", "std") for x in ("inf", "nan")),
        ("std", (-float("inf"),), "finite number"),
        ("mean", (True,), "finite number"),
        ("mean", ("0.5",), "finite number"),
        ("mean", "0.5", "finite number"),
        ("mean", (), "finite number"),
        ("mean", None, "finite number"),
        ("std", 0.5, "finite number"),
    ],
)
def test_impossible_statistics_are_refused(name, values, message):
    with pytest.raises(ValueError, match=rf"data\.{name}=.*{message}"):
        require_statistics(**{name: values})


def test_impossible_statistics_are_refused_wherever_images_are_normalised():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    mean, std = IMAGENET_255
    for normalise in (evaluation.normalise, jax.jit(evaluation.normalise, static_argnums=(1, 2))):
        with pytest.raises(ValueError, match=r"mean=\(123.675.*\(0.485, 0.456, 0.406\)"):
            normalise(images, mean, (0.2,) * 3)
        with pytest.raises(ValueError, match=r"std=\(58.395.*\(0.229, 0.224, 0.225\)"):
            normalise(images, (0.5,) * 3, std)
    with pytest.raises(ValueError, match=r"data\.mean=\(123.675"):
        create_transform("none", size=(4, 4), mean=mean, std=std, train=True, field="data.x")
