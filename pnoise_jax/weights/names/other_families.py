"""Recognises families of models that this package does not have, by the names of their arrays."""

import re
from collections.abc import Iterable

_ABSENT = ", which is not among the models here"
_UNREAD = ", which are not supported"
# Patterns that a family's files match and none of our families' do, the most specific first.
_FAMILIES = {
    "an EdgeNeXt": (r"stages\.\d+\.blocks\.\d+\.(xca|convs)\.",),
    "a GhostNet": (r"blocks\.\d+\.\d+\.ghost\d\.",),
    "a DaViT of Florence-2": (r"(.*\.)?blocks\.\d+\.(\d+\.)?(spatial|channel)_block\.",),
    "a ConvNeXt": (
        r"stages\.\d+\.blocks\.\d+\.(conv_dw|mlp\.grn)\.",  # timm's
        r"stages\.\d+\.\d+\.(dwconv|pwconv1)\.weight",  # its authors'
        r"(\w+\.)*encoder\.stages\.\d+\.layers\.\d+\.dwconv\.",  # transformers'
        r"features\.\d+\.\d+\.(block\.\d+\.weight|layer_scale)",  # torchvision's
    ),
    "another variant of Swin Transformer V2 (cr)": (
        r"stages\.\d+\.blocks\.\d+\.attn\.(logit_scale|meta_mlp\.)",
    ),
    "a ResNet V2 (pre-activation)": (r"stages\.\d+\.blocks\.\d+\.(conv3|norm3)\.weight",),
    "an MLP-Mixer": (r"blocks\.\d+\.mlp_tokens\.", r"MixerBlock_\d+/"),
    "a CaiT": (r"blocks_token_only\.\d+\.",),
    "an XCiT": (r"blocks\.\d+\.local_mp\.",),
    "an EVA or a ViT with rotary positions": (r"blocks\.\d+\.gamma_[12]",),
    "an EVA-02": (r"blocks\.\d+\.mlp\.fc1_[gx]\.",),
    "an EfficientNet or MobileNet": (r"blocks\.\d+\.\d+\.(conv_dw|conv_pw|conv_pwl)\.",),
    "a DenseNet": (r"features\.denseblock\d+\.",),
    "a RegNet": (r"s\d+\.b\d+\.conv\d+\.",),
    "a VGG": (r"features\.\d+\.weight", r"pre_logits\.fc1\."),
    "a MaxViT with a network for its positions (rmlp)": (
        r"stages\.\d+\.blocks\.\d+\.attn_(block|grid)\.attn\.rel_pos\.mlp\.",
    ),
    "a MaxxViT": (r"stages\.\d+\.blocks\.\d+\.conv\.conv_dw\.",),
    "a CoAtNet": (r"stages\.\d+\.blocks\.\d+\.(conv2_kxk|attn\.rel_pos)\.",),
}
_NAMINGS = {
    "a ViT in torchvision's names": (r"(\w+\.)*encoder_layer_\d+\.",),
    "a transformer in Hugging Face's names": (
        r"(\w+\.)*encoder\.layers?\.\d+\.(attention|layernorm_before|mlp|intermediate)\.",
    ),
}
# Patterns of our families that files of these families never match.
_UNLESS = {
    "an EVA or a ViT with rotary positions": r"blocks\.\d+\.attn\.relative_position_bias_table",
}
# Families that must match all patterns, because our families match some: VGG has few, plain names.
_NEEDS_ALL = ("a VGG",)


def recognise(names: Iterable[str]) -> str:
    """The model family that arrays belong to, and why they cannot be used; "" if unknown.

    An example is "a ConvNeXt, which is not among the models here".

    Args:
      names: the names of a file's arrays, not all of which fit a family that this package has.
    """
    names = list(names)
    for families, reason in ((_FAMILIES, _ABSENT), (_NAMINGS, _UNREAD)):
        for family, patterns in families.items():
            if (ours := _UNLESS.get(family)) and any(re.match(ours, name) for name in names):
                continue
            matched = [any(re.match(pattern, name) for name in names) for pattern in patterns]
            if all(matched) if family in _NEEDS_ALL else any(matched):
                return family + reason
    return ""
