"""Matches the weights of a file with the arrays of a model; reads nothing but names and shapes."""

import collections
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

from pnoise_jax.terminal import printable
from pnoise_jax.weights import (
    classes,
    descriptions,
    fitting,
    mismatches,
    preprocessing,
    properties,
)
from pnoise_jax.weights.arrays import ArrayFile, Entries, Entry, Shape, read_all
from pnoise_jax.weights.errors import begin_with, unreadable, weights_at
from pnoise_jax.weights.files import open_file
from pnoise_jax.weights.namings import describe_unknown, find_naming
from pnoise_jax.weights.preprocessing import Preprocessing

_HUB = ("hf-hub:", "hf_hub:", "timm/")


@dataclasses.dataclass(frozen=True, eq=False)
class NamedFile:
    """A file whose names are known.

    Attributes:
      file: with the arrays.
      title: whose names they have.
      entries: the arrays by our paths.
      options: of their model, as far as they are known.
      family: of the naming; None of a run, whose config says all.
      known: what is said of them.
    """

    file: ArrayFile
    title: str
    entries: Entries
    options: Mapping[str, Any]
    family: properties.Family | None = None
    known: properties.Known = dataclasses.field(default_factory=properties.Known)

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
      assumed: what of the model nothing there says, and is taken to be as here.
    """

    file: ArrayFile
    entries: Entries
    total: int
    notes: tuple[str, ...]
    preprocessing: Preprocessing | None
    assumed: tuple[str, ...] = ()

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

    def describe_assumed(self) -> str:
        """One line: what may differ though all arrays fit; "" where nothing may."""
        if not self.assumed:
            return ""
        return (
            "assumed, because neither arrays nor a description show it: "
            f"{', '.join(self.assumed)}; weights of a model that differs in this give wrong logits"
        )

    def describe(self) -> str:
        """One line: how many arrays, from where, and what was done to make them fit."""
        taken = f"{len(self.entries)} of {self.total} arrays from {self.file.path}"
        text = "; ".join([f"weights: {taken} ({self.file.title})", *self.notes])
        return printable(text)


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
        model is not a `Classifier`; or a head that is kept was trained on other classes.
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
    notes = (*title, *fit.notes, *_other_dtypes(file, fit.entries), *named.known.notes)
    with begin_with(weights_at(file.path), file.path):
        images = preprocessing.of_file(file, named.title)
    assumed = ()
    if named.family is not None:
        kept = bool(fitting.heads_in(fit.wanted))
        assumed = properties.assumed(named.known, named.family, model, keeps_head=kept)
    return Weights(file, fit.entries, len(ours), notes, images, assumed)


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
        raise ValueError(describe_unknown(file.shapes))
    entries, heads = naming.entries(file.shapes), naming.num_heads(file.shapes)
    shapes = {path: entry.shape for path, entry in entries.items()}
    known = properties.of_arrays(file.statements, naming.family, shapes)
    options = descriptions.options(known.statements)
    if heads is not None:
        options = {**options, "num_heads": heads}
        known = dataclasses.replace(known, properties=known.properties | {"num_heads"})
    if known.statements:
        title = descriptions.title(known.statements)
        file = dataclasses.replace(
            file,
            title=title,
            options=options,
            statements=known.statements,
            class_names=descriptions.class_names(known.statements),
        )
    return NamedFile(file, naming.title, entries, options, naming.family, known)


def _other_dtypes(file: ArrayFile, entries: Entries) -> list[str]:
    """Says what is stored in another precision than that in which it is read."""
    names = {name for entry in entries.values() for name in entry.names}
    stored = collections.Counter(file.dtypes.get(name, "float32") for name in names)
    return [
        f"{number} of {len(names)} arrays are {dtype} there, read as float32"
        for dtype, number in sorted(stored.items())
        if dtype != "float32"
    ]
