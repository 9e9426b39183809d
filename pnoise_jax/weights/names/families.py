"""The properties that all models of a family share and that no array shows."""

import dataclasses
from collections.abc import Mapping

NO_NAME = "(?!)"


@dataclasses.dataclass(frozen=True)
class Family:
    """The properties of one of our model families that no array shows.

    Attributes:
      architectures: a regular expression for the beginning of timm's or transformers' names of its
        models.
      activation: timm's name of the activation.
      norms: timm's names of the norms.
      epsilon: the epsilon of the norms.
      pooling: what the head reads, if that is not an option; "" if it is, or if arrays show it.
      arguments: timm's arguments that no array shows, and the values that our models have.
      blocks_per_depth: how many of our blocks timm's `depths` counts as one.
      others: other properties that no array shows.
    """

    architectures: str = NO_NAME
    activation: str = "gelu"
    norms: tuple[str, ...] = ("layernorm",)
    epsilon: float = 1e-6
    pooling: str = ""
    arguments: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
    blocks_per_depth: int = 1
    others: tuple[str, ...] = ()


VIT = Family(r"(test_)?vit(?!amin)|deit|flexivit|eva_large_patch14_|(vit|deit) \(transformers\)")
CLIP = dataclasses.replace(VIT, epsilon=1e-5)  # a ViT with a norm in front of its blocks
PARALLEL_VIT = Family(r"vit_\w*_xp_", norms=("rmsnorm",))
BEIT = Family(r"beit|data2vec-vision \(transformers\)")
CONVIT = Family(r"convit", pooling="token")
SWIN = Family(
    r"swin_|swin \(transformers\)",
    epsilon=1e-5,
    pooling="mean",
    others=("windows shifted by half their side",),
)
SWIN_V2 = Family(
    r"swinv2_(?!cr_)",
    epsilon=1e-5,
    pooling="mean",
    arguments={"qkv_bias_separate": (False,)},
    others=("windows shifted by half their side",),
)
DAVIT = Family(
    r"davit_",
    norms=("layernorm", "layernorm2d"),
    epsilon=1e-5,
    pooling="mean",
    arguments={
        "attn_types": (["spatial", "channel"],),
        "channel_attn_v2": (False,),
        "norm_layer_cl": ("layernorm",),
        "cpe_act": (False,),
    },
    blocks_per_depth=2,
    others=("channel attention that weights queries, as published",),
)
MAXVIT = Family(
    r"maxvit_",
    activation="gelu_tanh",
    norms=("batchnorm", "batchnorm2d", "layernorm", "layernorm2d"),
    epsilon=1e-3,
    pooling="mean",
    arguments={
        "conv_act_layer": ("gelu_tanh",),
        "conv_attn_act_layer": ("silu",),
        "conv_attn_early": (False,),
        "conv_norm_eps": (1e-3,),
        "conv_padding": ("same",),
        "conv_pool_type": ("avg2",),
        "conv_pre_norm_act": (False,),
        "conv_stride_mode": ("dw",),
        "partition_ratio": (32,),
        "transformer_act_layer": ("gelu_tanh",),
        "transformer_head_first": (False,),
        "transformer_norm_eps": (1e-5,),
        "transformer_partition_ratio": (32,),
        "transformer_rel_pos_type": ("bias_tf",),
    },
    others=("padding as in TensorFlow", "heads behind queries, keys and values"),
)
RESNET = Family(
    r"(gluon_|tv_|legacy_|wide_|test_)?(se|eca|ig_|ssl_|swsl_)?resne[tx]t?(?!v2)",
    activation="relu",
    norms=("batchnorm", "batchnorm2d"),
    epsilon=1e-5,
    pooling="mean",
    others=("strides in 3×3 convolutions",),
)
