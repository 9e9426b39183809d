"""Matches the weights of a file with the arrays of a model; reads only names and shapes."""

import collections
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
from flax import traverse_util

from pnoise_jax import writing
from pnoise_jax.terminal import printable
from pnoise_jax.weights import mismatches, preprocessing
from pnoise_jax.weights.adapt import positions
from pnoise_jax.weights.adapt.head import HeadClasses, adapt_head, head_paths
from pnoise_jax.weights.adapt.partial_match import PartialMatch
from pnoise_jax.weights.entries import Entries, Entry, read_entries
from pnoise_jax.weights.errors import naming_path, unreadable_error, weights_field
from pnoise_jax.weights.formats import model_info, places
from pnoise_jax.weights.formats.array_file import ArrayFile, Format, Shape
from pnoise_jax.weights.formats.detect import open_file
from pnoise_jax.weights.model_properties import Evidence, collect_evidence, list_assumptions
from pnoise_jax.weights.names import families
from pnoise_jax.weights.names.naming import Interpolation, Naming, describe_unknown, find_naming
from pnoise_jax.weights.preprocessing import Preprocessing
from pnoise_jax.weights.stated_options import stated_options, title, with_last_norm


@dataclasses.dataclass(frozen=True, eq=False)
class NamedFile:
    """An open file, with the naming scheme of its arrays.

    Attributes:
      name: the weights as requested: a path, an id of the hub with its commit, or a URL with its
        generation.
      file: the file with the arrays.
      entries: the arrays by our paths.
      options: the options of the model, as far as they are known.
      naming: the naming scheme of the arrays; None for a run, which uses our names.
      evidence: what is known about the model beyond the arrays.
    """

    name: str
    file: ArrayFile
    entries: Entries
    options: Mapping[str, Any]
    naming: Naming | None = None
    evidence: Evidence = dataclasses.field(default_factory=Evidence)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shapes of the arrays, by our paths."""
        return {path: entry.shape for path, entry in self.entries.items()}

    @property
    def interpolation(self) -> Interpolation:
        """How to resize position embeddings of this source."""
        return Interpolation() if self.naming is None else self.naming.interpolation


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Weights that fit a model, not yet read from their file.

    Attributes:
      name: the path, the id of the hub with its commit, or the URL with its generation.
      file: the file with the arrays.
      entries: the arrays to read, by our paths, such as "params/head/bias".
      total: the number of arrays in the model.
      notes: what was done to make the arrays fit.
      preprocessing: which images the weights expect; None if unknown.
      assumed: properties of the model that nothing confirms for the file.
    """

    name: str
    file: ArrayFile
    entries: Entries
    total: int
    notes: tuple[str, ...]
    preprocessing: Preprocessing | None
    assumed: tuple[str, ...] = ()

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (our path, array) for one array after the other, as float32.

        Each call reads the file again.

        Raises:
          ValueError: the file is damaged or has changed.
          OSError: the file cannot be read.
        """
        field = weights_field(self.name)
        try:
            yield from read_entries(self.file, self.entries)
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from error
        except OSError as error:
            raise unreadable_error(field, error) from error

    def describe_preprocessing(self) -> str:
        """One line: which images the weights expect."""
        if self.preprocessing is not None:
            return self.preprocessing.describe()
        return "the mean, std and test_transform that the weights expect are unknown: check data.*"

    def describe_assumed(self) -> str:
        """One line: what may differ even though all arrays fit; "" if nothing may."""
        if not self.assumed:
            return ""
        return (
            "assumed, because neither the arrays nor a description show it: "
            f"{', '.join(self.assumed)}; weights of a model that differs in this give wrong logits"
        )

    def describe(self) -> str:
        """One line: the number of arrays, their source, and what was done to make them fit."""
        taken = f"{len(self.entries)} of {self.total} arrays from {self.name}"
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
    """Matches the arrays of a file with the arrays of a model.

    Position embeddings and tables of relative positions are resized to the model's grid of patches.
    Everything else except the head must be present and fit.

    Args:
      path: a safetensors file with timm's names of a ViT, DeiT, BEiT, ConViT, Swin, DaViT, MaxViT
        or ResNet (or torchvision's names of a ResNet); an npz of a ViT with Google's names; or a
        work directory or checkpoint of this package, whose moving average is used if there is one.
        The format is detected from the content. Or an id of the hub, "hf_hub:OWNER/NAME" or
        "hf_hub:OWNER/NAME@REVISION", or an object in a bucket, "gs://BUCKET/NAME" or
        "gs://BUCKET/NAME#GENERATION".
      model: the model.
      variables: its collections as `model.init` returns them, as arrays or shapes.
      head: "keep" the file's head; "fresh": as the model initialises it, which is what timm does
        (big_vision starts from zeros); "auto" keeps the head if the classes agree: their number
        and, if known, their names.
      class_names: the names of the model's classes. If the file names its classes, a head that is
        kept is put into this order.

    Raises:
      FileNotFoundError, OSError: there is no such file, or it cannot be read.
      ValueError: the file is damaged; or its arrays do not fit, in which case the message lists
        them and the model that they may belong to; or the model is not a `Classifier`; or a head
        that is to be kept was trained on other classes.
    """
    return match_named(open_named(path), model, variables, head=head, class_names=class_names)


def match_named(
    named: NamedFile,
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    head: str,
    class_names: Sequence[str] | None = None,
) -> Weights:
    """`match` for a file that is already open."""
    file, field = named.file, weights_field(named.name)
    flat: Mapping[str, Any] = dict(traverse_util.flatten_dict(dict(variables), sep="/"))
    wanted = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    partial = PartialMatch(named.entries, wanted)
    partial = adapt_head(partial, head, HeadClasses(file, class_names))
    partial = positions.adapt_positions(partial, file, model, named.interpolation)
    partial = positions.adapt_relative_positions(partial, model)
    problems = mismatches.describe(
        partial,
        model,
        file=file,
        file_shapes=named.shapes,
        model_shapes=wanted,
        options=named.options,
    )
    if problems:
        raise ValueError(f"{field} {problems}")
    with naming_path(field, file.path):
        images = preprocessing.expected_by(file, named.naming)
    source, assumed = [], ()
    if named.naming is not None:
        source = [named.naming.title]
        keeps_head = bool(head_paths(partial.wanted))
        assumed = list_assumptions(
            named.evidence, named.naming.family, model, keeps_head=keeps_head
        )
    dtypes = _note_dtypes(file, partial.entries)
    notes = (*source, *partial.notes, *dtypes, *named.evidence.notes)
    return Weights(named.name, file, partial.entries, len(wanted), notes, images, assumed)


def open_named(path: str | os.PathLike) -> NamedFile:
    """Opens a file and identifies the naming scheme of its arrays.

    Raises:
      FileNotFoundError, OSError, ValueError: see `match`.
    """
    field = weights_field(path)
    if not str(path).strip():
        raise ValueError(f"{field}: give the path of a file or a run, or None")
    if str(path).startswith("~"):
        _require_known_user(path)
    is_address = writing.is_url(path) or str(path).startswith("timm/")
    if is_address and not places.is_remote(path) and not os.path.exists(path):
        raise ValueError(
            f"{field} is not a path: download the file and give its path, or give an id of the "
            "Hugging Face hub as hf_hub:OWNER/NAME, or an object as gs://BUCKET/NAME"
        )
    place, name = places.local_path(path), places.resolved_id(path)
    with naming_path(field, place):
        return _name_arrays(name, open_file(place))


def _require_known_user(path: str | os.PathLike) -> None:
    try:
        Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{weights_field(path)} begins with an unknown user: give the full path"
        ) from error


def _name_arrays(name: str, file: ArrayFile) -> NamedFile:
    if file.format is Format.RUN:
        entries = {path: Entry((path,), shape, lambda x: x) for path, shape in file.shapes.items()}
        return NamedFile(name, file, entries, file.options)
    naming = find_naming(file.shapes)
    if naming is None:
        described = model_info.most_specific(file.model_info).architecture
        raise ValueError(describe_unknown(file.shapes, architecture=described))
    entries, heads = naming.entries(file.shapes), naming.num_heads(file.shapes)
    shapes = {path: entry.shape for path, entry in entries.items()}
    if naming.family is families.VIT and "params/norm_pre/scale" in shapes:
        naming = dataclasses.replace(naming, family=families.CLIP)
    evidence = collect_evidence(file.model_info, naming.family, shapes)
    info = model_info.most_specific(evidence.infos)
    options = stated_options(info)
    is_vit = naming.family in (families.VIT, families.CLIP)
    if is_vit and "params/fc_norm/scale" in shapes and "pooling" in options:
        options = {**options, "pooling": with_last_norm(options["pooling"])}
    if heads is not None:
        options = {**options, "num_heads": heads}
        properties = evidence.properties | {"num_heads"}
        evidence = dataclasses.replace(evidence, properties=properties)
    if evidence.infos:
        file = dataclasses.replace(
            file,
            title=title(info),
            options=options,
            model_info=evidence.infos,
            class_names=model_info.class_names(evidence.infos),
        )
    return NamedFile(name, file, entries, options, naming, evidence)


def _note_dtypes(file: ArrayFile, entries: Entries) -> list[str]:
    """Notes how many arrays are stored in another precision than float32."""
    names = {name for entry in entries.values() for name in entry.names}
    stored = collections.Counter(file.dtypes.get(name, "float32") for name in names)
    return [
        f"{number} of {len(names)} arrays are stored as {dtype}, read as float32"
        for dtype, number in sorted(stored.items())
        if dtype != "float32"
    ]
