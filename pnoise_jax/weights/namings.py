"""The ways in which files name arrays, and which of them a file has."""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

from pnoise_jax.weights import google_names, properties, torch_names
from pnoise_jax.weights.arrays import Entries, Shape
from pnoise_jax.weights.errors import shown
from pnoise_jax.weights.torch_names import Renaming


@dataclasses.dataclass(frozen=True)
class Naming:
    """A way in which files name a family's arrays.

    Attributes:
      title: whose, for the reader.
      blocks: the names in its blocks, as a regular expression.
      entries: the arrays by our paths; those that we lack keep a name of their own.
      renaming: how our arrays get these names; None where they are only read.
      num_heads: of its attention, where shapes tell; else None.
      family: what its models have in common that no array shows.
    """

    title: str
    blocks: str
    entries: Callable[[Mapping[str, Shape]], Entries]
    renaming: Renaming | None
    num_heads: Callable[[Mapping[str, Shape]], int | None] = lambda shapes: None
    family: properties.Family = properties.VIT

    def recognises(self, names: Iterable[str]) -> int:
        """How many of the names it has in its blocks: no single array decides whose they are."""
        return sum(bool(re.fullmatch(self.blocks, name)) for name in names)


_OTHERS = {  # whose names are frequent, but not known
    "torchvision's of a transformer": "encoder_layer_0.",
    "transformers' (Hugging Face)": "encoder.layer.0.",
}

# A new family or format adds a line. The one that knows most names is taken; of equals, the first.
NAMINGS = (
    Naming("timm's ViT", torch_names.VIT_BLOCKS, torch_names.vit_entries, torch_names.VIT),
    Naming(
        "timm's BEiT",
        torch_names.BEIT_BLOCKS,
        torch_names.vit_entries,
        torch_names.VIT,
        family=properties.BEIT,
    ),
    Naming(
        "timm's ConViT",
        torch_names.CONVIT_BLOCKS,
        torch_names.vit_entries,
        torch_names.VIT,
        family=properties.CONVIT,
    ),
    Naming(
        "timm's Swin",
        torch_names.SWIN_BLOCKS,
        torch_names.swin_entries,
        torch_names.SWIN,
        family=properties.SWIN,
    ),
    Naming(
        "timm's ResNet",
        torch_names.RESNET_BLOCKS,
        torch_names.resnet_entries,
        torch_names.RESNET,
        family=properties.RESNET,
    ),
    Naming(
        "Google's ViT", google_names.BLOCKS, google_names.vit_entries, None, google_names.num_heads
    ),
)


def find_naming(names: Iterable[str]) -> Naming | None:
    """The naming that knows most of the names; None where none knows any."""
    names = list(names)
    best = max(NAMINGS, key=lambda naming: naming.recognises(names))
    return best if best.recognises(names) else None


def describe_unknown(names: Iterable[str]) -> str:
    """Says that no naming knows the names, and which would if they began otherwise."""
    names = sorted(names)
    any_blocks = "|".join(naming.blocks for naming in NAMINGS)
    wrapped = (re.fullmatch(rf"(?P<wrapper>.+?[./])(?:{any_blocks})", name) for name in names)
    wrappers = collections.Counter(match["wrapper"] for match in wrapped if match)
    if wrappers:
        ((wrapper, _),) = wrappers.most_common(1)
        number = sum(name.startswith(wrapper) for name in names)
        which = "all names begin" if number == len(names) else f"{number} of the names begin"
        fix = f"save it without the {shown(wrapper)!r} that {which} with"
    else:
        known = ", ".join(naming.title for naming in NAMINGS)
        others = (whose for whose, part in _OTHERS.items() if any(part in name for name in names))
        found = next((f"these are {whose}, which are not known; " for whose in others), "")
        fix = f"{found}give {known}, or the work directory of a run"
    return (
        f"has {len(names)} arrays ({', '.join(map(shown, names[:3]))}, …) and none of the namings "
        f"known here: {fix}"
    )
