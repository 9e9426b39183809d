"""The naming schemes of files of weights, what each implies, and how to detect a file's scheme."""

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
    """How position embeddings are resized, in the terms of `jax.image.resize`.

    Attributes:
      method: "bicubic" or "bilinear".
      antialias: whether to smooth first if the grid shrinks.
    """

    method: str = "bicubic"
    antialias: bool = True


@dataclasses.dataclass(frozen=True)
class Naming:
    """How one source of weights names the arrays of a family, and what its files imply.

    Attributes:
      title: the source and family, for the reader.
      blocks: a regular expression for the names of the arrays in blocks.
      entries: returns the arrays by our paths; arrays that we lack keep a distinct name.
      renaming: translates our names to these, for export; None if the scheme is only read.
      num_heads: returns the number of attention heads if shapes show it; else None.
      family: the properties of its models that no array shows.
      needs: a regular expression that at least one name must match; "" for no requirement.
      never: a regular expression that no name may match.
      interpolation: how timm resizes position embeddings of this source.
      mean, std: how images are normalised unless the file says otherwise; None if unknown.
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
        """Counts the names that match arrays in blocks, so that no single array decides.

        Returns 0 if no name matches `needs`, or if any name matches `never`.
        """
        names = list(names)
        if any(re.fullmatch(self.never, name) for name in names):
            return 0
        if self.needs and not any(re.fullmatch(self.needs, name) for name in names):
            return 0
        return sum(bool(re.fullmatch(self.blocks, name)) for name in names)


_HALF = (0.5, 0.5, 0.5)

# Add an entry for a new family or source. The naming that recognises the most names wins; on a tie,
# the first.
NAMINGS = (
    Naming(  # `never`: EVA and ViTs with rotary positions, which no array shows, have such scales
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
    """The naming that recognises the most names; None if none recognises any."""
    names = list(names)
    best = max(NAMINGS, key=lambda naming: naming.count_recognised(names))
    return best if best.count_recognised(names) else None


def describe_unknown(shapes: Mapping[str, Shape], *, architecture: str = "") -> str:
    """The error message for arrays that no naming recognises, with what they are, if known.

    Args:
      shapes: the shapes of the file's arrays, by the file's names.
      architecture: timm's or transformers' name of the model; "" if no description states it.
    """
    names = sorted(shapes)
    some = ", ".join(map(printable_name, names[:3])) + ", …" * (len(names) > 3)
    beginning = f"has {len(names)} array{'s' * (len(names) != 1)} ({some})"
    if other := other_families.recognise(names):
        return f"{beginning}, which belong to {other}: {_advice()}"
    if wrapper := _wrapper(shapes):
        number = sum(name.startswith(wrapper) for name in names)
        which = "all names begin" if number == len(names) else f"{number} of the names begin"
        fix = f"save it without the prefix {printable_name(wrapper)!r} that {which} with"
        return f"{beginning} in no naming scheme known here: {fix}"
    described = f", described as {printable_name(architecture)}," if architecture else ""
    return f"{beginning}{described} in no naming scheme known here: {_advice()}"


def _advice() -> str:
    known = ", ".join(naming.title for naming in NAMINGS)
    return f"give weights of {known}, or the work directory of a run"


def _wrapper(shapes: Mapping[str, Shape]) -> str:
    """The prefix of the names of a whole model, such as "module."; or ""."""
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
        # ConvNeXt's "stages.0." is a prefix of blocks, but there is no stem, so it wraps no model.
        if infer_options({path: entry.shape for path, entry in entries.items()}):
            return wrapper
    return ""
