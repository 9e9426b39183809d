"""Matches the weights of a file with the arrays of a model; reads nothing but names and shapes."""

import collections
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

from pnoise_jax.weights import (
    classes,
    descriptions,
    fitting,
    google_names,
    mismatches,
    preprocessing,
    torch_names,
)
from pnoise_jax.weights.arrays import ArrayFile, Entries, Entry, Shape, read_all
from pnoise_jax.weights.errors import begin_with, unreadable, weights_at
from pnoise_jax.weights.files import open_file
from pnoise_jax.weights.preprocessing import Preprocessing
from pnoise_jax.weights.torch_names import Renaming


@dataclasses.dataclass(frozen=True)
class Naming:
    """A way in which files name a family's arrays.

    Attributes:
      title: whose, for the reader.
      blocks: the names in its blocks, as a regular expression.
      entries: the arrays by our paths; those that we lack keep a name of their own.
      renaming: by which arrays of ours get these names; None where they never do.
      num_heads: of its attention, where shapes tell; else None.
      activation: of its models here, as timm says it.
    """

    title: str
    blocks: str
    entries: Callable[[Mapping[str, Shape]], Entries]
    renaming: Renaming | None
    num_heads: Callable[[Mapping[str, Shape]], int | None] = lambda shapes: None
    activation: str = "gelu"

    def recognises(self, names: Iterable[str]) -> int:
        """How many of the names it has in its blocks: no single array decides whose they are."""
        return sum(bool(re.fullmatch(self.blocks, name)) for name in names)


_OTHERS = {  # whose names are frequent, but not known
    "torchvision's of a transformer": "encoder_layer_0.",
    "transformers' (Hugging Face)": "encoder.layer.0.",
}
_HUB = ("hf-hub:", "hf_hub:", "timm/")

# A further family or format adds a line. Of those that know as many names the first is meant.
NAMINGS = (
    Naming("timm's ViT", torch_names.VIT_BLOCKS, torch_names.vit_entries, torch_names.VIT),
    Naming("timm's BEiT", torch_names.BEIT_BLOCKS, torch_names.vit_entries, torch_names.VIT),
    Naming("timm's ConViT", torch_names.CONVIT_BLOCKS, torch_names.vit_entries, torch_names.VIT),
    Naming("timm's Swin", torch_names.SWIN_BLOCKS, torch_names.swin_entries, torch_names.SWIN),
    Naming(
        "timm's ResNet",
        torch_names.RESNET_BLOCKS,
        torch_names.resnet_entries,
        torch_names.RESNET,
        activation="relu",
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


@dataclasses.dataclass(frozen=True, eq=False)
class NamedFile:
    """A file whose names are known.

    Attributes:
      file: with the arrays.
      title: whose names they have.
      entries: the arrays by our paths.
      options: of their model, as far as they are known.
    """

    file: ArrayFile
    title: str
    entries: Entries
    options: Mapping[str, Any]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of the arrays, by our paths."""
        return {path: entry.shape for path, entry in self.entries.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Weights that fit a model, still in their file.

    Attributes:
      file: where they are.
      entries: what is taken, by our paths, such as "params/head/bias".
      total: how many arrays the model has.
      notes: what was done to make them fit.
      preprocessing: what images they expect; None where nothing says it.
    """

    file: ArrayFile
    entries: Entries
    total: int
    notes: tuple[str, ...]
    preprocessing: Preprocessing | None

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """One array after the other, float32: (our path, array).

        Raises:
          ValueError: the file is damaged, or has changed.
          OSError: it cannot be read.
        """
        try:
            yield from read_all(self.file, self.entries)
        except ValueError as error:
            raise ValueError(f"{weights_at(self.file.path)}: {error}") from None
        except OSError as error:
            raise unreadable(weights_at(self.file.path), error) from None

    def describe_preprocessing(self) -> str:
        """One line: what images they expect."""
        if self.preprocessing is not None:
            return self.preprocessing.describe()
        return "which mean, std and test_transform the weights expect is not known: check data.*"

    def describe(self) -> str:
        """One line: how many arrays, from where, and what was done to make them fit."""
        taken = f"{len(self.entries)} of {self.total} arrays from {self.file.path}"
        return "; ".join([f"weights: {taken} ({self.file.title})", *self.notes])


def match(
    path: str | os.PathLike,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    head: str = "keep",
    class_names: Sequence[str] | None = None,
) -> Weights:
    """Finds in a file what a model needs.

    Position embeddings and tables of relative positions are taken to the model's grid of patches.
    All else must be there and fit, but for the head.

    Args:
      path: a safetensors file in timm's names of a ViT, DeiT, BEiT, ConViT, Swin or ResNet (or
        torchvision's, of a ResNet), an npz of a ViT in Google's, or a work directory or checkpoint
        of ours, of which the average is taken where there is one. The content says which.
      model: the model.
      variables: its collections as `model.init` gives them, arrays or their shapes.
      head: "keep" the file's; "fresh", as the model initialises it, which is what timm does
        (big_vision begins with zeros); "auto" keeps it where it has as many classes, and the same
        where their names are known.
      class_names: of the model's classes. Where the file names its own, a head that is kept is put
        into this order.

    Raises:
      FileNotFoundError, OSError: there is no such file, or it cannot be read.
      ValueError: it is damaged, or its arrays do not fit: which, and whose model it may be; or the
        model is none of ours; or a head that is to be kept knows other classes.
    """
    named = open_named(path)
    return match_named(named, model, variables, head=head, class_names=class_names)


def match_named(
    named: NamedFile,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    head: str,
    class_names: Sequence[str] | None = None,
) -> Weights:
    """`match`, of a file that is open."""
    file = named.file
    ours = {
        path: tuple(leaf.shape)
        for path, leaf in traverse_util.flatten_dict(dict(variables), sep="/").items()
    }
    heads = classes.Heads(file, class_names)
    fit = fitting.fit_head(fitting.Fit(named.entries, ours), head, heads)
    fit = fitting.fit_positions(fit, file, model)
    fit = fitting.fit_relative_positions(fit, model)
    problems = mismatches.describe(
        fit, model, file=file, theirs=named.shapes, ours=ours, options=named.options
    )
    if problems:
        raise ValueError(f"{weights_at(file.path)} {problems}")
    title = [] if file.kind == "run" else [named.title]
    notes = (*title, *fit.notes, *_other_dtypes(file, fit.entries))
    images = preprocessing.of_file(file, named.title)
    return Weights(file, fit.entries, len(ours), notes, images)


def open_named(path: str | os.PathLike) -> NamedFile:
    """A file, and what its names tell.

    Raises:
      FileNotFoundError, OSError, ValueError: as `match`.
    """
    if not str(path).strip():
        raise ValueError(f"weights={str(path)!r}: give the path of a file or a run, or None")
    try:
        place = Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{weights_at(path)} begins with a user who is not known here: give the whole path"
        ) from None
    of_the_net = re.match(r"\w+:/", str(path)) or str(path).startswith(_HUB)
    if of_the_net and not os.path.exists(place):  # which raises nothing, whatever the text
        raise ValueError(
            f"{weights_at(path)} is no path: nothing is downloaded here; get the file, and "
            "give its path"
        )
    with begin_with(weights_at(place), place):
        return _name(open_file(place))


def _name(file: ArrayFile) -> NamedFile:
    if file.kind == "run":
        ours = {name: Entry((name,), shape, lambda x: x) for name, shape in file.shapes.items()}
        return NamedFile(file, "ours", ours, file.options)
    naming = find_naming(file.shapes)
    if naming is None:
        raise ValueError(_unknown(file.shapes))
    descriptions.require_activation(file.statements, naming.activation)
    heads = naming.num_heads(file.shapes)
    options = dict(file.options) | ({} if heads is None else {"num_heads": heads})
    return NamedFile(file, naming.title, naming.entries(file.shapes), options)


def _unknown(names: Iterable[str]) -> str:
    """Says that no naming knows the names, and which would if they began otherwise."""
    names = sorted(names)
    any_blocks = "|".join(naming.blocks for naming in NAMINGS)
    wrapped = (re.fullmatch(rf"(?P<wrapper>.+?[./])(?:{any_blocks})", name) for name in names)
    wrappers = collections.Counter(match["wrapper"] for match in wrapped if match)
    if wrappers:
        ((wrapper, _),) = wrappers.most_common(1)
        number = sum(name.startswith(wrapper) for name in names)
        which = "all names begin" if number == len(names) else f"{number} of the names begin"
        fix = f"save it without the {wrapper!r} that {which} with"
    else:
        known = ", ".join(naming.title for naming in NAMINGS)
        others = (whose for whose, part in _OTHERS.items() if any(part in name for name in names))
        found = next((f"these are {whose}, which are not known; " for whose in others), "")
        fix = f"{found}give {known}, or a work directory of ours"
    return (
        f"has {len(names)} arrays ({', '.join(names[:3])}, …) and none of the namings known here: "
        f"{fix}"
    )


def _other_dtypes(file: ArrayFile, entries: Entries) -> list[str]:
    """Says what is stored in another precision than that in which it is read."""
    names = {name for entry in entries.values() for name in entry.names}
    stored = collections.Counter(file.dtypes.get(name, "float32") for name in names)
    return [
        f"{number} of {len(names)} arrays are {dtype} there, read as float32"
        for dtype, number in sorted(stored.items())
        if dtype != "float32"
    ]
