"""The paper's 95 % as in its published log: unchanged public weights, and the noise.

    pnoise audit --config published_claim \
        --config.weights=vit_base_patch16_384.augreg_in21k_ft_in1k.safetensors \
        --data_dir DATA --workdir /tmp/published_claim --batch_sizes=10

The published ViT command (--scale base --res 384 --noise_type linear --tra 0 --inf 1 --OptimalQ 1)
loads timm's weights that are already fine-tuned on ImageNet-1k, head included, and its learning
rate is 0 in epoch 0. So what it logged for epoch 0 needs no training: the optimal Q on the patch
tokens at the last block's attention input, validation images in class order, batches of 10,
squeezed to a square, normalised by ImageNet's mean and standard deviation (the weights expect 0.5
and 0.5; the audit notes that), in float32.

Expected, written down before anybody ran it and NOT measured here: in class order the published
meter prints 94.65 top-1 and 99.94 top-5 (the columns "printed" of audit.csv and audit.html).
docs/prediction.md says what each outcome would mean, and what a run costs.

Data: pnoise prepare --dataset imagenet2012; the validation tar alone is enough.
"""

from pnoise_jax.training import default_config, model_config


def get_config():
    """ViT-B/16 at 384 px with the noise of the published command; nothing to train."""
    config = default_config()
    config.model = model_config("vit_b_16", image_size=384)
    config.weights_required = True
    config.noise.preset = "optimal_published"
    config.data.name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.test_transform = "resize_square"
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.evaluation.batch_size = 10
    return config
