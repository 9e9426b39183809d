"""The naming schemes of files of weights, what each implies, and which of them a file has."""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

from pnoise_jax.weights.entries import Entries
from pnoise_jax.weights.errors import printable_name
from pnoise_jax.weights.formats.array_file import Shape
from pnoise_jax.weights.infer_model import infer_options
from pnoise_jax.weights.names import families, google, other_families, torch
from pnoise_jax.weights.names.torch import Renaming


@dataclasses.dataclass(frozen=True)
class Interpolation:
    """How position embeddings are resized, as `jax.image.resize` has it.

    Attributes:
      method: "bicubic" or "bilinear".
      antialias: smooth first, where the grid shrinks.
    """

    method: str = "bicubic"
    antialias: bool = True


@dataclasses.dataclass(frozen=True)
class Naming:
    """How one source of weights names the arrays of a family, and what its files imply.

    Attributes:
      title: the source and family, for the reader.
      blocks: the names of the arrays in its blocks, as a regular expression.
      entries: the arrays by our paths; those that we lack keep a name of their own.
      renaming: gives our arrays these names; None where they are only read.
      num_heads: of its attention, where shapes show it; else None.
      family: what its models have in common that no array shows.
      needs: what one of the names must match, as a regular expression; "" for nothing.
      never: what none of them may match.
      interpolation: how timm resizes position embeddings of this source.
      mean, std: how images are normalised unless the file says otherwise; None: unknown.
    """

    title: str
    blocks: str
    entries: Callable[[Mapping[str, Shape]], Entries]
    renaming: Renaming | None
    num_heads: Callable[[Mapping[str, Shape]], int | None] = lambda shapes: None
    family: families.Family = families.VIT
    needs: str = ""
    never: str = families.NO_NAME
    interpolation: Interpolation = Interpolation()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def count_recognised(self, names: Iterable[str]) -> int:
        """How many of the names are in its blocks: no single array decides on the naming.

        0 where a name that its files need is missing, or one is there that they never have.
        """
        names = list(names)
        if any(re.fullmatch(self.never, name) for name in names):
            return 0
        if self.needs and not any(re.fullmatch(self.needs, name) for name in names):
            return 0
        return sum(bool(re.fullmatch(self.blocks, name)) for name in names)


_HALF = (0.5, 0.5, 0.5)

# A new family or source adds one. The one that recognises most names wins; on a tie, the first.
NAMINGS = (
    Naming(  # EVA, and ViTs with rotary positions, which no array shows, have scales of that name
        "timm's ViT",
        torch.VIT_BLOCKS,
        torch.vit_entries,
        torch.VIT,
        never=r"blocks\.\d+\.gamma_[12]",
    ),
    Naming(
        "timm's BEiT",
        torch.BEIT_BLOCKS,
        torch.beit_entries,
        torch.BEIT,
        needs=r"blocks\.\d+\.attn\.relative_position_bias_table",
        family=families.BEIT,
    ),
    Naming(
        "timm's ConViT",
        torch.CONVIT_BLOCKS,
        torch.beit_entries,
        torch.BEIT,
        needs=r"blocks\.\d+\.attn\.(pos_proj\.weight|gating_param|qk\.weight)",
        family=families.CONVIT,
    ),
    Naming(
        "timm's ViT with parallel blocks",
        torch.PARALLEL_VIT_BLOCKS,
        torch.parallel_vit_entries,
        torch.PARALLEL_VIT,
        family=families.PARALLEL_VIT,
    ),
    Naming("timm's Swin", torch.SWIN_BLOCKS, torch.swin_entries, torch.SWIN, family=families.SWIN),
    Naming(
        "timm's Swin V2",
        torch.SWIN_V2_BLOCKS,
        torch.swin_v2_entries,
        torch.SWIN_V2,
        family=families.SWIN_V2,
    ),
    Naming(
        "timm's DaViT", torch.DAVIT_BLOCKS, torch.davit_entries, torch.DAVIT, family=families.DAVIT
    ),
    Naming(
        "timm's MaxViT",
        torch.MAXVIT_BLOCKS,
        torch.maxvit_entries,
        torch.MAXVIT,
        family=families.MAXVIT,
    ),
    Naming(
        "timm's ResNet",
        torch.RESNET_BLOCKS,
        torch.resnet_entries,
        torch.RESNET,
        family=families.RESNET,
    ),
    Naming(
        "Google's ViT",
        google.BLOCKS,
        google.vit_entries,
        None,
        google.num_heads,
        interpolation=Interpolation("bilinear", antialias=False),
        mean=_HALF,  # pixels in [-1, 1]
        std=_HALF,
    ),
)


def find_naming(names: Iterable[str]) -> Naming | None:
    """The naming that recognises most of the names; None where none recognises any."""
    names = list(names)
    best = max(NAMINGS, key=lambda naming: naming.count_recognised(names))
    return best if best.count_recognised(names) else None


def describe_unknown(shapes: Mapping[str, Shape], *, architecture: str = "") -> str:
    """Says that no naming recognises the names, and what these arrays are instead.

    Args:
      shapes: of the file's arrays, by their names there.
      architecture: timm's or transformers' name of the model, where a description gives it.
    """
    names = sorted(shapes)
    some = ", ".join(map(printable_name, names[:3]))
    beginning = f"has {len(names)} arrays ({some}, …)"
    if other := other_families.recognise(names):
        return f"{beginning}, which are those of {other}: {_advice()}"
    if wrapper := _wrapper(shapes):
        number = sum(name.startswith(wrapper) for name in names)
        which = "all names begin" if number == len(names) else f"{number} of the names begin"
        fix = f"save it without the {printable_name(wrapper)!r} that {which} with"
        return f"{beginning} in no naming scheme known here: {fix}"
    described = f", described as {printable_name(architecture)}," if architecture else ""
    return f"{beginning}{described} in no naming scheme known here: {_advice()}"


def _advice() -> str:
    known = ", ".join(naming.title for naming in NAMINGS)
    return f"give weights of {known}, or the work directory of a run"


def _wrapper(shapes: Mapping[str, Shape]) -> str:
    """What stands in front of the names of a whole model, such as "module."; or ""."""
    any_blocks = "|".join(naming.blocks for naming in NAMINGS)
    matches = (re.fullmatch(rf"(?P<wrapper>.+?[./])(?:{any_blocks})", name) for name in shapes)
    counted = collections.Counter(match["wrapper"] for match in matches if match)
    for wrapper, _ in counted.most_common(1):
        inside = {
            name.removeprefix(wrapper): shape
            for name, shape in shapes.items()
            if name.startswith(wrapper)
        }
        naming = find_naming(inside)
        entries = {} if naming is None else naming.entries(inside)
        # In ConvNeXt's "stages.0." there are blocks, but no stem: not a model that was wrapped.
        if infer_options({path: entry.shape for path, entry in entries.items()}):
            return wrapper
    return ""
