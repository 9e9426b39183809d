"""Matches the weights of a file with the arrays of a model; reads nothing but names and shapes."""

import collections
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

from pnoise_jax.weights import (
    fitting,
    google_names,
    mismatches,
    preprocessing,
    swin_names,
    torch_names,
)
from pnoise_jax.weights.arrays import ArrayFile, Entries, Entry, Shape, read_all
from pnoise_jax.weights.files import open_file
from pnoise_jax.weights.preprocessing import Preprocessing
from pnoise_jax.weights.renaming import Renaming

_WRAPPERS = ("module.", "model.", "_orig_mod.", "backbone.")  # what training code puts in front


@dataclasses.dataclass(frozen=True)
class Naming:
    """A way in which files name a family's arrays.

    Attributes:
      title: whose, for the reader.
      recognises: whether these names and shapes are such.
      entries: the arrays by our paths; those that we lack keep a name of their own.
      renaming: by which arrays of ours get these names; None where they never do.
      num_heads: of its attention, where shapes tell; else None.
    """

    title: str
    recognises: Callable[[Mapping[str, Shape]], bool]
    entries: Callable[[Mapping[str, Shape]], Entries]
    renaming: Renaming | None
    num_heads: Callable[[Mapping[str, Shape]], int | None] = lambda shapes: None


# A further family or format adds a line.
NAMINGS = (
    # Before the ViT, whose names it has.
    Naming("timm's ConViT", torch_names.is_convit, torch_names.vit_entries, torch_names.VIT),
    Naming("timm's ViT", torch_names.is_vit, torch_names.vit_entries, torch_names.VIT),
    Naming("timm's BEiT", torch_names.is_beit, torch_names.vit_entries, torch_names.VIT),
    Naming("timm's Swin", swin_names.is_swin, swin_names.swin_entries, swin_names.SWIN),
    Naming("timm's ResNet", torch_names.is_resnet, torch_names.resnet_entries, torch_names.RESNET),
    Naming(
        "Google's ViT", google_names.is_vit, google_names.vit_entries, None, google_names.num_heads
    ),
)


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
          ValueError, OSError: the file cannot be read.
        """
        try:
            yield from read_all(self.file, self.entries)
        except ValueError as error:
            raise ValueError(f"{_named(self.file.path)}: {error}") from None

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
    path: str | os.PathLike, model: nn.Module, variables: Mapping[str, Any], *, head: str = "keep"
) -> Weights:
    """Finds in a file what a model needs.

    Position embeddings and tables of relative positions are taken to the model's grid of patches.
    All else must be there and fit, but for the head.

    Args:
      path: an npz of Google's ViT, a safetensors file of timm's ViT or ResNet (or torchvision's
        ResNet), or a work directory or checkpoint of ours, of which the average is taken where
        there is one. The content says which.
      model: the model.
      variables: its collections as `model.init` gives them, arrays or their shapes.
      head: "keep" the file's; "fresh", as the model initialises it, which is what timm does
        (big_vision begins with zeros); "auto" keeps it where it has as many classes.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read, or its arrays do not fit: which, and whose model it may be.
    """
    file, title, entries, options = open_named(path)
    wanted = {
        "/".join(key): tuple(leaf.shape)
        for key, leaf in traverse_util.flatten_dict(dict(variables)).items()
    }
    total = len(wanted)
    theirs = {path: entry.shape for path, entry in entries.items()}
    fitted = [fitting.fit_head(entries, wanted, head)]
    if not fitting.heads_in(entries) and head != "keep":  # left out on purpose
        wanted = {k: v for k, v in wanted.items() if k not in fitting.heads_in(wanted)}
    fitted.append(fitting.fit_positions(file, entries, wanted, model))
    fitted.append(fitting.fit_relative_positions(entries, wanted, model))
    problems = mismatches.describe(
        entries,
        wanted,
        model,
        theirs=theirs,
        options=options,
        advice=[text for _, advice in fitted for text in advice],
    )
    if problems:
        raise ValueError(f"{_named(file.path)} {problems}")
    notes = [] if file.kind == "run" else [title]
    notes += [note for done, _ in fitted for note in done] + _halves(file, entries)
    return Weights(file, entries, total, tuple(notes), preprocessing.of_file(file, title))


def open_named(path: str | os.PathLike) -> tuple[ArrayFile, str, Entries, dict[str, Any]]:
    """A file, whose names it has, its arrays by ours, and what is known of the model's options.

    Raises:
      FileNotFoundError, ValueError: as `match`.
    """
    if not str(path).strip():
        raise ValueError(f"weights={str(path)!r}: give the path of a file or a run, or None")
    path = Path(path).expanduser()
    try:
        file = open_file(path)
        return (file, *_name(file))
    except FileNotFoundError:
        raise FileNotFoundError(f"{_named(path)} does not exist") from None
    except ValueError as error:
        raise ValueError(f"{_named(path)} {error}") from None


def _name(file: ArrayFile) -> tuple[str, Entries, dict[str, Any]]:
    """Whose names these are, the arrays by ours, and what is known of the model's options."""
    options = dict(file.options)
    if file.kind == "run":
        ours = {name: Entry((name,), shape, lambda x: x) for name, shape in file.shapes.items()}
        return "ours", ours, options
    for naming in NAMINGS:
        if naming.recognises(file.shapes):
            if (heads := naming.num_heads(file.shapes)) is not None:
                options["num_heads"] = heads
            return naming.title, naming.entries(file.shapes), options
    some = ", ".join(sorted(file.shapes)[:3])
    wrapper = next((w for w in _WRAPPERS if all(k.startswith(w) for k in file.shapes)), None)
    if wrapper and file.shapes:
        fix = f"save it without the {wrapper!r} that all names begin with"
    else:
        known = ", ".join(naming.title for naming in NAMINGS)
        fix = f"give {known}, or a work directory of ours"
    raise ValueError(
        f"has {len(file.shapes)} arrays ({some}, …) and none of the namings known here: {fix}"
    )


def _halves(file: ArrayFile, entries: Entries) -> list[str]:
    """Says what is stored in another precision than that in which it is read."""
    names = {name for entry in entries.values() for name in entry.names}
    stored = collections.Counter(file.dtypes.get(name, "float32") for name in names)
    return [
        f"{number} of {len(names)} arrays are {dtype} there, read as float32"
        for dtype, number in sorted(stored.items())
        if dtype != "float32"
    ]


def _named(path: Path) -> str:
    return f"weights={str(path)!r}"
