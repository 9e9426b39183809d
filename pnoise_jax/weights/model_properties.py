"""Properties of a model that no array shows: those that descriptions state, and assumptions."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from pnoise_jax import models
from pnoise_jax.weights.errors import printable_name
from pnoise_jax.weights.formats.array_file import Shape
from pnoise_jax.weights.formats.model_info import ModelInfo, most_specific
from pnoise_jax.weights.infer_model import infer_options
from pnoise_jax.weights.names.families import Family
from pnoise_jax.weights.stated_options import model_called, options_beyond_arrays, stated_options

# The models of timm 1.0.31 whose arrays fit our models although they compute another function.
_ARCHITECTURES = {
    r"resnetaa": "averages where it strides",
    r"resnetblur": "blurs where it strides",
    r"vit_(base_patch32_siglip_gap_256|large_patch16_siglip_gap_512)": "has a GELU by tanh",
    r"vit_(so400m|giantopt)_patch16_siglip_gap": "has a GELU by tanh",
    r"vit_.*quickgelu": "has a GELU by a sigmoid",
    r"davit_\w*_fl": "has queries that attend to keys between channels",
    r"maxvit_\w*(rw|pm)_": "puts a head's queries, keys and values side by side",
    r"swin_s3_": "has windows of another size in each stage",
    r"vit_\w*_rpn_": "has its norms behind attention and MLP",
}
_FUNCTION = {  # timm's arguments that no array shows: the values that our models have
    "aa_layer": (),
    "output_stride": (32,),
    "block_fn": (),
    "attn_layer": (),
    "mlp_layer": ("mlp",),
    "replace_stem_pool": (False,),
    "downsample_in_bottleneck": (False,),
    "pool_include_prefix": (False,),
    "always_partition": (False,),
}
_HARMLESS = {  # arguments that arrays show, that are compared elsewhere, or only used in training
    *("num_classes", "num_features", "in_chans", "global_pool", "fc_norm", "final_norm"),
    *("img_size", "patch_size", "embed_dim", "depth", "depths", "layers", "block", "num_heads"),
    *("mlp_ratio", "qkv_bias", "proj_bias", "class_token", "reg_tokens", "no_embed_class"),
    *("pre_norm", "qk_norm", "init_values", "window_size", "cardinality", "base_width", "ape"),
    *("stem_width", "stem_type", "avg_down", "dynamic_img_size", "strict_img_size", "pos_embed"),
    *("drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate"),
    *("patch_drop_rate", "zero_init_last", "weight_init", "head_init_scale", "local_up_to_layer"),
    *("locality_strength", "use_pos_embed", "use_abs_pos_emb", "use_rel_pos_bias", "distilled"),
    *("use_shared_rel_pos_bias", "block_args", "fix_init", "use_mean_pooling", "embed_dims"),
    *("stem_bias", "head_hidden_size", "block_type", "transformer_dim_head"),
    *("down_kernel_size", "named_blocks", "ffn", "head_norm_first", "pretrained_window_sizes"),
}
_SIZES = {  # timm's argument that shapes show: our option
    "embed_dim": "dim",
    "embed_dims": "dim",
    "depth": "depth",
    "patch_size": "patch_size",
    "depths": "stage_sizes",
    "layers": "stage_sizes",
}
_SMALL = 1e-5  # epsilons up to this matter less than rounding weights to half precision


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is known about the model of a file beyond its arrays.

    Attributes:
      infos: the descriptions, without those of other models.
      notes: for the user, about the descriptions.
      properties: the properties of our model that the descriptions or the arrays confirm, such as
        "activation" or "epsilon".
    """

    infos: tuple[ModelInfo, ...] = ()
    notes: tuple[str, ...] = ()
    properties: frozenset[str] = frozenset()


def collect_evidence(
    infos: tuple[ModelInfo, ...], family: Family, shapes: Mapping[str, Shape]
) -> Evidence:
    """Collects what descriptions say about arrays of a family, by our paths.

    A description of another family is left out, with a note. One that names a model of the family
    with other sizes, as timm writes it if the sizes were passed as arguments, can still contradict
    the model, but its name confirms nothing.

    Raises:
      ValueError: the described model computes another function than our models of the family.
    """
    infos, notes = _of_family(infos, family)
    info = most_specific(infos)
    notes += _require_function(info, family)
    notes += _note_other_classes(info, shapes)
    if difference := _other_sizes(info, shapes, family):
        name = printable_name(info.architecture)
        notes.append(
            f"{info.source} says {name}, which has {difference}: it may describe another file"
        )
        nameless = info.without_architecture()
        infos = tuple(nameless if other is info else other for other in infos)
        info = nameless
    shown_by_arrays = {"num_heads"} & infer_options(shapes).keys()
    return Evidence(infos, tuple(notes), _confirmed(info) | shown_by_arrays)


def _of_family(
    infos: tuple[ModelInfo, ...], family: Family
) -> tuple[tuple[ModelInfo, ...], list[str]]:
    """The descriptions that can be about a family, and notes on the others."""
    kept, notes = [], []
    for info in infos:
        if info.unreadable:
            notes.append(f"{info.source} {info.unreadable}: ignored")
            continue
        name = "" if info.options else info.architecture
        if name and not re.match(family.architectures, name, re.IGNORECASE):
            notes.append(
                f"{info.source} describes {printable_name(name)}, which does not have these "
                "arrays: ignored"
            )
        else:
            kept.append(info)
    return tuple(kept), notes


def list_assumptions(
    evidence: Evidence, family: Family, model: nn.Module, *, keeps_head: bool
) -> tuple[str, ...]:
    """The properties of the model that nothing confirms for the file, such as "num_heads=3".

    Args:
      evidence: what is known about the file.
      family: the family of the file's model.
      model: our model, which the arrays fit.
      keeps_head: whether the file's head is kept. If not, the pooling need not be the file's.
    """
    pooling = family.pooling or getattr(model, "pooling", None)
    heads = getattr(model, "num_heads", None)
    exact = " (exact)" if family.activation == "gelu" else ""
    properties = {
        "pooling": f"pooling={pooling!r}" if pooling and keeps_head else "",
        "activation": f"activation={family.activation!r}{exact}",
        "epsilon": f"epsilon={family.epsilon:g} of norms",
        "num_heads": f"num_heads={heads}" if heads is not None else "",
        **{name: f"{name}={getattr(model, name)}" for name in options_beyond_arrays(model)},
        "others": ", ".join(family.others),
    }
    if isinstance(model, models.ResNet) and model.block != "bottleneck":
        properties["others"] = ""
    return tuple(
        text for name, text in properties.items() if text and name not in evidence.properties
    )


def _other_sizes(info: ModelInfo, shapes: Mapping[str, Shape], family: Family) -> str:
    """A size in which the described model differs from these arrays; "" if none is known."""
    name, arguments = info.architecture, info.arguments
    if not name or info.options:
        return ""
    described = dict(getattr(model_called(name), "__dict__", {}))
    described |= {ours: arguments[timm] for timm, ours in _SIZES.items() if timm in arguments}
    patch = re.search(r"_patch(\d{1,3})(_|\.|$)", name)
    if patch and "patch_size" not in arguments:
        described["patch_size"] = int(patch[1])
    for option, actual in infer_options(shapes).items():
        value = described.get(option, actual)
        if option == "dim" and isinstance(value, list):  # of each stage
            value = next(iter(value), None)
        if option == "stage_sizes" and "depths" in arguments:
            value = _times(value, family.blocks_per_depth)
        if option in (*_SIZES.values(), "block") and _as_list(value) != _as_list(actual):
            return f"{option}={printable_name(repr(value))}, and these arrays {actual!r}"
    return ""


def _times(depths: Any, factor: int) -> Any:
    """The numbers of blocks for timm's `depths`; any value but a list is returned unchanged."""
    return [factor * d for d in depths] if isinstance(depths, list) else depths


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _require_function(info: ModelInfo, family: Family) -> list[str]:
    """Checks the stated properties that no array shows; returns notes on unchecked ones."""
    name, arguments = info.architecture, info.arguments
    difference = _other_function(info, family)
    if difference:
        if name.endswith("(transformers)"):
            described = printable_name(name)
        else:
            described = f"timm's {printable_name(name) or 'models'}"
        raise ValueError(
            f"is of {described}, which {difference}, as {info.source} says: no model here does, "
            "though the arrays have the same names and shapes; use weights of another model, or, "
            "if the description belongs to another file, move one of the two elsewhere"
        )
    notes = []
    epsilon = arguments.get("norm_eps", family.epsilon)
    if epsilon != family.epsilon:
        notes = [
            f"the epsilon of norms is {family.epsilon:g} here and {epsilon:g} in {info.source}"
        ]
    checked = {*_FUNCTION, *_HARMLESS, *family.arguments, "act_layer", "norm_layer", "norm_eps"}
    if unknown := sorted(arguments.keys() - checked):
        listed = ", ".join(
            f"{printable_name(key)}={printable_name(repr(arguments[key]))}" for key in unknown[:5]
        )
        notes.append(f"{info.source} also says {listed}, which was not checked")
    return notes


def _other_function(info: ModelInfo, family: Family) -> str:
    """How the described model differs from the family in a way no array shows; "" if it fits."""
    for beginning, difference in _ARCHITECTURES.items():
        if re.match(beginning, info.architecture):
            return difference
    function = _FUNCTION | {"act_layer": (family.activation,), "norm_layer": family.norms}
    function |= family.arguments
    for argument, ours in function.items():
        value = info.arguments.get(argument)
        if value is not None and not any(value is our or value == our for our in ours):
            return f"has {argument}={printable_name(repr(value))}"
    epsilon = info.arguments.get("norm_eps", family.epsilon)
    is_small = type(epsilon) in (int, float) and 0 <= epsilon <= _SMALL
    if epsilon != family.epsilon and not is_small:
        return f"has norm_eps={printable_name(repr(epsilon))}"
    return ""


def _note_other_classes(info: ModelInfo, shapes: Mapping[str, Shape]) -> list[str]:
    bias, classes = shapes.get("params/head/bias"), info.fields.get("num_classes")
    if not bias or not isinstance(classes, int) or classes in (0, bias[0]):
        return []
    return [
        f"{info.source} says num_classes={printable_name(str(classes))}, and the head has "
        f"{bias[0]}: make sure that it describes this file"
    ]


def _confirmed(info: ModelInfo) -> frozenset[str]:
    """The properties of our model that a description confirms."""
    if info.options:
        of_families = {"head_dim", "window_size", "pretrained_window_sizes"}
        return frozenset({"pooling", "activation", "epsilon", "num_heads", "others", *of_families})
    stated = {
        "pooling": info.arguments.get("global_pool"),
        "activation": info.arguments.get("act_layer"),
        "epsilon": info.arguments.get("norm_eps"),
        "num_heads": stated_options(info).get("num_heads"),
    }
    properties = {name for name, value in stated.items() if value}
    if (model := model_called(info.architecture)) is not None:
        properties |= {"activation", "epsilon", "num_heads", "others"}
        properties |= {*options_beyond_arrays(model)}
    return frozenset(properties)
