"""Further models on ImageNet.

DeiT, Swin, BEiT and ConViT, into which the paper also injects its noise; DaViT, MaxViT and ViT-22B,
with which it compares; and other models for which timm has weights.

    pnoise audit --config imagenet_variants:model=swin_b \
        --config.weights=swin_b.safetensors --data_dir DATA --workdir /tmp/audit_swin_b

    pnoise train --config imagenet_variants:model=deit_b_16,noise=cyclic \
        --config.weights=deit_b_16.safetensors --data_dir DATA --workdir /tmp/deit_b_16_cyclic

Arguments: model=one of the names below, noise=optimal|vanilla|gaussian|cyclic|salt_and_pepper.

The settings are as in configs/imagenet_vit.py, recipe=paper, with the normalisation that timm's
weights of the family expect. The paper's results for these models are in a supplement that we do
not have, so there are no expected results. Nothing was measured here. Weights: timm's safetensors
(huggingface.co/timm: swin_base_patch4_window7_224.ms_in22k_ft_in1k, deit_base_patch16_224.fb_in1k,
beit_base_patch16_224.in22k_ft_in22k_in1k, convit_base.fb_in1k, davit_base.msft_in1k,
maxvit_base_tf_224.in1k, deit3_base_patch16_224.fb_in1k, swinv2_base_window8_256.ms_in1k,
vit_mediumd_patch16_reg4_gap_256.sbb2_e200_in12k_ft_in1k,
vit_base_patch16_clip_224.openai_ft_in12k_in1k, …). There are none for davit_l, davit_h, davit_g,
vit_22b and vit_parallel_*, which train from scratch here unless you set config.weights.
"""

import imagenet_vit

from pnoise_jax.training import model_config, parse_arguments

MODELS = (
    "deit_b_16",
    "deit_s_16",
    "deit_ti_16",
    "deit_b_16_distilled",
    "deit_s_16_distilled",
    "deit_ti_16_distilled",
    "deit3_s_16",
    "deit3_m_16",
    "deit3_b_16",
    "deit3_l_16",
    "deit3_h_14",
    "swin_t",
    "swin_s",
    "swin_b",
    "swin_l",
    "swin_b_384",
    "swin_l_384",
    "swinv2_t",
    "swinv2_t_window16",
    "swinv2_s",
    "swinv2_s_window16",
    "swinv2_b",
    "swinv2_b_window16",
    "swinv2_b_256",
    "swinv2_b_384",
    "swinv2_l_256",
    "swinv2_l_384",
    "beit_b_16",
    "beit_l_16",
    "convit_ti",
    "convit_s",
    "convit_b",
    "davit_t",
    "davit_s",
    "davit_b",
    "davit_l",
    "davit_h",
    "davit_g",
    "maxvit_t",
    "maxvit_s",
    "maxvit_b",
    "maxvit_l",
    "maxvit_xl",
    "vit_wee_16_reg1",
    "vit_little_16_reg4",
    "vit_medium_16_reg4",
    "vit_mediumd_16_reg4",
    "vit_betwixt_16_reg4",
    "vit_so150m_16_reg4",
    "vit_so150m2_16_reg1",
    "vit_b_32_clip",
    "vit_b_16_clip",
    "vit_l_14_clip",
    "vit_h_14_clip",
    "vit_22b",
    "vit_parallel_s_14",
    "vit_parallel_g_14",
)
_WITHOUT_WEIGHTS = ("davit_l", "davit_h", "davit_g", "vit_22b", "vit_parallel")
_LARGE = {"l", "h", "g", "xl", "22b", "384"}


def get_config(arguments=None):
    """`arguments` is the text after the colon."""
    args = parse_arguments(
        "imagenet_variants.py", arguments, model=MODELS, noise=tuple(imagenet_vit.NOISES)
    )
    config = imagenet_vit.get_config(f"noise={args.noise}")
    config.model = model_config(args.model, remat=bool(_LARGE & {*args.model.split("_")}))
    config.weights_required = not args.model.startswith(_WITHOUT_WEIGHTS)
    if args.model.endswith("_clip"):  # some weights of vit_l_14_clip expect 0.5 instead
        config.data.mean = (0.48145466, 0.4578275, 0.40821073)
        config.data.std = (0.26862954, 0.26130258, 0.27577711)
    elif not args.model.startswith(("beit", "vit")):  # these keep 0.5
        config.data.mean = (0.485, 0.456, 0.406)
        config.data.std = (0.229, 0.224, 0.225)
    return config
