"""What a model is that no array shows: what is said of it, what contradicts, what is assumed."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from pnoise_jax import models
from pnoise_jax.weights import descriptions
from pnoise_jax.weights.arrays import Shape
from pnoise_jax.weights.descriptions import Statement
from pnoise_jax.weights.errors import shown
from pnoise_jax.weights.guessing import guess_options

# All models of timm 1.0.31 whose arrays fit ours, but which compute another function.
_ARCHITECTURES = {
    r"resnetaa": "averages where it strides",
    r"resnetblur": "blurs where it strides",
    r"vit_(base_patch32_siglip_gap_256|large_patch16_siglip_gap_512)": "has a GELU by tanh",
    r"vit_(so400m|giantopt)_patch16_siglip_gap": "has a GELU by tanh",
    r"vit_.*quickgelu": "has a GELU by a sigmoid",
    r"swin_s3_": "has windows of another size in each stage",
}
_FUNCTION = {  # timm's arguments that no array shows, and the values that are ours
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
_SHOWN = {  # those that arrays show, that are compared elsewhere, or that act in training alone
    *("num_classes", "num_features", "in_chans", "global_pool", "fc_norm", "final_norm"),
    *("img_size", "patch_size", "embed_dim", "depth", "depths", "layers", "block", "num_heads"),
    *("mlp_ratio", "qkv_bias", "proj_bias", "class_token", "reg_tokens", "no_embed_class"),
    *("pre_norm", "qk_norm", "init_values", "window_size", "cardinality", "base_width", "ape"),
    *("stem_width", "stem_type", "avg_down", "dynamic_img_size", "strict_img_size", "pos_embed"),
    *("drop_rate", "drop_path_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate"),
    *("patch_drop_rate", "zero_init_last", "weight_init", "head_init_scale", "local_up_to_layer"),
    *("locality_strength", "use_pos_embed", "use_abs_pos_emb", "use_rel_pos_bias", "distilled"),
    *("use_shared_rel_pos_bias", "block_args", "fix_init", "use_mean_pooling"),
}
_SIZES = {  # timm's arguments that shapes show, as our options
    "embed_dim": "dim",
    "depth": "depth",
    "patch_size": "patch_size",
    "depths": "stage_sizes",
    "layers": "stage_sizes",
}
_SMALL = 1e-5  # epsilons up to this differ by less than weights' own rounding in half precision
_UNNAMED = "(?!)"


@dataclasses.dataclass(frozen=True)
class Family:
    """What the models of a family have in common here, though no array shows it.

    Attributes:
      architectures: what timm's or transformers' names of its models begin with, as a regular
        expression.
      activation: as timm says it.
      norms: timm's names of its norms.
      epsilon: of its norms.
      pooling: what the head reads, where that is no option; "" where it is, or arrays show it.
      others: what else no array shows.
    """

    architectures: str = _UNNAMED
    activation: str = "gelu"
    norms: tuple[str, ...] = ("layernorm",)
    epsilon: float = 1e-6
    pooling: str = ""
    others: tuple[str, ...] = ()


VIT = Family(r"(test_)?vit(?!amin)|deit|flexivit|(vit|deit) \(transformers\)")
BEIT = Family(r"beit|data2vec-vision \(transformers\)")
CONVIT = Family(r"convit", pooling="token")
SWIN = Family(
    r"swin_|swin \(transformers\)",
    epsilon=1e-5,
    pooling="mean",
    others=("windows shifted by half their side",),
)
RESNET = Family(
    r"(gluon_|tv_|legacy_|wide_|test_)?(se|eca|ig_|ssl_|swsl_)?resne[tx]t?(?!v2)",
    activation="relu",
    norms=("batchnorm", "batchnorm2d"),
    epsilon=1e-5,
    pooling="mean",
    others=("strides in 3×3 convolutions",),
)


@dataclasses.dataclass(frozen=True)
class Known:
    """What is said of arrays, and what of their model is known by it.

    Attributes:
      statements: those that are not of another model.
      notes: what was found in them.
      properties: of our model that they, or the arrays, vouch for: "activation", "epsilon", ….
    """

    statements: tuple[Statement, ...] = ()
    notes: tuple[str, ...] = ()
    properties: frozenset[str] = frozenset()


def of_arrays(
    statements: tuple[Statement, ...], family: Family, shapes: Mapping[str, Shape]
) -> Known:
    """What is said of arrays of a family, by our paths.

    What is said of another family is left out, with a note. What names a model of the family with
    other sizes, as timm's own does where sizes were given anew, is asked for what contradicts, and
    its name vouches for nothing.

    Raises:
      ValueError: their model is another function than the family's here.
    """
    notes, kept = [], []
    for source, said in statements:
        if why := said.get(descriptions.UNREADABLE):
            notes.append(f"{source} {shown(str(why))}: ignored")
            continue
        name = "" if said.get("options") else descriptions.architecture(said)
        if name and not re.match(family.architectures, name, re.IGNORECASE):
            notes.append(f"{source} is of {shown(name)}, not of these arrays: ignored")
        else:
            kept.append((source, said))
    source, said = descriptions.nearest(tuple(kept))
    notes += _require_function(source, said, family)
    notes += _other_classes(source, said, shapes)
    if why := _other_sizes(said, shapes):
        name = shown(descriptions.architecture(said))
        notes.append(f"{source} says {name}, which has {why}: it may be another file's")
        said = {**said, "architecture": None}
        kept = [(other, said if other == source else theirs) for other, theirs in kept]
    shown_by_arrays = {"num_heads"} & guess_options(shapes).keys()
    return Known(tuple(kept), tuple(notes), _vouched(said) | shown_by_arrays)


def assumed(known: Known, family: Family, model: nn.Module, *, keeps_head: bool) -> tuple[str, ...]:
    """What of a model is taken to be as here, because nothing says it, such as "num_heads=3".

    Args:
      known: what is said of the arrays.
      family: theirs.
      model: ours, which fits them.
      keeps_head: whether the file's head is taken: what another reads is the model's choice.
    """
    pooling = family.pooling or getattr(model, "pooling", None)
    heads = getattr(model, "num_heads", None)
    ours = {
        "pooling": f"pooling={pooling!r}" if pooling and keeps_head else "",
        "activation": f"activation={family.activation!r}{_exact(family.activation)}",
        "epsilon": f"epsilon={family.epsilon:g} of norms",
        "num_heads": f"num_heads={heads}" if heads is not None else "",
        "others": ", ".join(family.others),
    }
    if isinstance(model, models.ResNet) and model.block != "bottleneck":
        ours["others"] = ""
    return tuple(text for name, text in ours.items() if text and name not in known.properties)


def _exact(activation: str) -> str:
    return " (exact)" if activation == "gelu" else ""


def _other_sizes(said: Mapping[str, Any], shapes: Mapping[str, Shape]) -> str:
    """A size by which a statement's model differs from these arrays; "" where none is known."""
    name, given = descriptions.architecture(said), descriptions.arguments(said)
    if not name or said.get("options"):
        return ""
    theirs = dict(getattr(descriptions.known_model(name), "__dict__", {}))
    theirs |= {ours: given[timms] for timms, ours in _SIZES.items() if timms in given}
    if (patch := re.search(r"_patch(\d{1,3})(_|\.|$)", name)) and "patch_size" not in given:
        theirs["patch_size"] = int(patch[1])
    for option, here in guess_options(shapes).items():
        value = theirs.get(option, here)
        if option in (*_SIZES.values(), "block") and _plain(value) != _plain(here):
            return f"{option}={shown(repr(value))} where these have {here!r}"
    return ""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _require_function(source: str, said: Mapping[str, Any], family: Family) -> list[str]:
    """Checks what no array shows, as far as it is said; notes what is not known here."""
    name, given = descriptions.architecture(said), descriptions.arguments(said)
    other = next((why for stem, why in _ARCHITECTURES.items() if re.match(stem, name)), None)
    function = _FUNCTION | {"act_layer": (family.activation,), "norm_layer": family.norms}
    for argument, ours in function.items():
        value = given.get(argument)
        if value is not None and not any(value is our or value == our for our in ours):
            other = other or f"has {argument}={shown(repr(value))}"
    epsilon = given.get("norm_eps", family.epsilon)
    if epsilon != family.epsilon and not _is_small(epsilon):
        other = other or f"has norm_eps={shown(repr(epsilon))}"
    if other is not None:
        raise ValueError(
            f"is of {_whose(name)}, which {other}, as {source} says: no model here does, though "
            "arrays have the same names and shapes; take weights of another "
            "model, or, where that is said of another file, keep the two apart"
        )
    notes = []
    if epsilon != family.epsilon:
        notes = [f"epsilon of norms {family.epsilon:g} here, {epsilon:g} by {source}"]
    if unknown := sorted(given.keys() - function.keys() - _SHOWN - {"norm_eps"}):
        listed = ", ".join(f"{shown(key)}={shown(repr(given[key]))}" for key in unknown[:5])
        notes.append(f"{source} also says {listed}, which is not known here")
    return notes


def _is_small(epsilon: Any) -> bool:
    return type(epsilon) in (int, float) and 0 <= epsilon <= _SMALL


def _whose(name: str) -> str:
    if name.endswith("(transformers)"):
        return shown(name)
    return f"timm's {shown(name) or 'models'}"


def _other_classes(source: str, said: Mapping[str, Any], shapes: Mapping[str, Shape]) -> list[str]:
    there, classes = shapes.get("params/head/bias"), said.get("num_classes")
    if not there or not isinstance(classes, int) or classes in (0, there[0]):
        return []
    return [
        f"{source} says num_classes={shown(str(classes))}, and the head has {there[0]}: make sure "
        "that it is of this file"
    ]


def _vouched(said: Mapping[str, Any]) -> frozenset[str]:
    """The properties of our models that a statement vouches for."""
    if isinstance(said.get("options"), dict) and said["options"]:
        return frozenset({"pooling", "activation", "epsilon", "num_heads", "others"})
    given, name = descriptions.arguments(said), descriptions.architecture(said)
    found = {
        "pooling": given.get("global_pool"),
        "activation": given.get("act_layer"),
        "epsilon": given.get("norm_eps"),
        "num_heads": descriptions.options((("", said),)).get("num_heads"),
    }
    properties = {name for name, value in found.items() if value}
    if descriptions.known_model(name) is not None:
        properties |= {"activation", "epsilon", "num_heads", "others"}
    return frozenset(properties)
