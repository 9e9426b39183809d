"""TinyImageNet, 200 classes at 64 pixels: the paper's small data set.

    pnoise prepare --dataset tiny_imagenet --manual_dir DIR --data_dir DATA
    pnoise train --config tiny_imagenet:model=resnet18,noise=cyclic \
        --config.data.data_dir=DATA --workdir /tmp/tiny_resnet18

Arguments: model=resnet18|resnet34|resnet50|resnet101|ti16|s16|b16|l16,
noise=vanilla|gaussian|cyclic|salt_and_pepper|optimal.

The paper's results are in a supplement that we do not have, so there are no expected results. The
settings are as in configs/imagenet_resnet.py and imagenet_vit.py, recipe=paper, with two
exceptions. ResNets use 64 pixels and the stem for small images. ViTs, fine-tuned from ImageNet-21k
(--config.weights=FILE), use images enlarged to 224 pixels, in batches of 128 at a learning rate of
8e-5 (scaled from 16 at 1e-5).

Calculated cost, at an assumed 200 TFLOP/s (one H100): resnet18 0.2 hours; at 300 TFLOP/s: b16 0.5.
NOT measured here, nor is any accuracy.
"""

import imagenet_resnet
import imagenet_vit

from pnoise_jax.training import model_config, parse_arguments


def get_config(arguments=None):
    """`arguments` is the text after the colon."""
    resnets = ("resnet18", "resnet34", "resnet50", "resnet101")
    args = parse_arguments(
        "tiny_imagenet.py",
        arguments,
        model=(*resnets, "ti16", "s16", "b16", "l16"),
        noise=tuple(imagenet_vit.NOISES),
    )
    if args.model in resnets:
        number = args.model.removeprefix("resnet")
        config = imagenet_resnet.get_config(f"model={number},noise={args.noise}")
        config.model = model_config(args.model, stem="small")
        config.data.image_size = 64
    else:
        config = imagenet_vit.get_config(f"model={args.model},noise={args.noise}")
        config.batch_size = 128
        config.optimizer.learning_rate = 8e-5
    config.data.name = "tiny_imagenet"
    return config
