"""Keeps the file's head, with its classes in the model's order, or leaves it out."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from pnoise_jax.data import class_names
from pnoise_jax.weights.adapt.partial_match import PartialMatch
from pnoise_jax.weights.entries import Entries
from pnoise_jax.weights.errors import weights_field
from pnoise_jax.weights.formats.array_file import ArrayFile

HEADS = ("auto", "keep", "fresh")
_HEAD_PATHS = ("params/head/", "params/head_dist/")  # the second is for DeiT's distillation token
_PRE_LOGITS = "params/pre_logits/"  # the original ViT's layer in front of the head: part of it
# Modules between the last block and the head. A model trained with an image head lacks them.
_POOLING = ("fc_norm", "pre_head", "attn_pool")


@dataclasses.dataclass(frozen=True)
class HeadClasses:
    """Compares the classes of a file's head with the model's, by name.

    Attributes:
      file: the file with the head.
      model_classes: the model's class names, by label; None if they are unknown.
    """

    file: ArrayFile
    model_classes: Sequence[str] | None

    def conflict(self, number: int) -> str:
        """Why a head with this number of classes cannot be kept; "" if it can."""
        try:
            self._match(number)
        except class_names.DifferentClassesError as error:
            return (
                f"{error}. Set weights_head='fresh' (or 'auto') to train a new head, or use "
                "weights or data with the same classes"
            )
        return ""

    def order(self, number: int) -> tuple[np.ndarray | None, str]:
        """The index in the file's head of each class of the model, and a note about it.

        The indices are None if the order is the same or unknown.
        """
        match = self._match(number)
        theirs, ours = self.file.class_names, self.model_classes
        if match.kind == "mapped" and theirs is not None and ours is not None:
            changes = class_names.describe_order(theirs, ours)
            return match.order, f", put in the order of the data by name: {changes}"
        has_names = self.model_classes is not None and not class_names.are_numbers(
            self.model_classes
        )
        if match.kind == "unknown" and (has_names or self._has_names_for(number)):
            return None, f", compared by number: {self._why_unknown(number)}"
        return None, ""

    def _has_names_for(self, number: int) -> bool:
        names = self.file.class_names
        return names is not None and len(names) == number and not class_names.are_numbers(names)

    def _why_unknown(self, number: int) -> str:
        names = self.file.class_names
        if self._has_names_for(number) and (
            self.model_classes is None or class_names.are_numbers(self.model_classes)
        ):
            return "the file has names for its classes, and the data has none"
        if names is not None and len(names) != number:
            return f"the file names {len(names)} classes"
        if names is None:
            return "the file has none of the data's class names"
        return "the file and the data name their classes differently"

    def _match(self, number: int) -> class_names.Match:
        names = self.file.class_names
        if names is not None and len(names) != number:  # they belong to another head
            names = None
        whose = f"{weights_field(self.file.path)} and the data"
        return class_names.match_classes(names, self.model_classes, whose=whose, number=number)


def head_paths(paths: Iterable[str]) -> list[str]:
    """The paths that belong to a head."""
    return [path for path in paths if path.startswith(_HEAD_PATHS)]


def adapt_head(match: PartialMatch, choice: str, classes: HeadClasses) -> PartialMatch:
    """Leaves out the file's head or puts its classes into the model's order.

    Args:
      match: everything in the file.
      choice: one of HEADS.
      classes: the classes of the file and of the model.

    Raises:
      ValueError: the choice is not one of HEADS; or the model has no head; or the choice is "keep"
        and the file's head has the same number of classes, but other ones.
    """
    if choice not in HEADS:
        raise ValueError(f"weights_head={choice!r}: choose one of {', '.join(HEADS)}")
    if "params/head/bias" not in match.wanted:
        raise ValueError(
            "the model has no params/head for the file's head: use a model of pnoise_jax.models"
        )
    number = match.wanted["params/head/bias"][0]
    same_number = choice != "fresh" and _num_classes(match.entries) == number
    conflict = classes.conflict(number) if same_number else ""
    if conflict and choice == "keep":
        raise ValueError(conflict)
    if same_number and not conflict:
        return _keep(match, classes, number)
    if choice == "keep":
        return match.with_advice(_advise_on_classes(_num_classes(match.entries), number))
    return _leave_out(match, number, "; the file's classes have other names" if conflict else "")


def _keep(match: PartialMatch, classes: HeadClasses, number: int) -> PartialMatch:
    if _pre_logits(match.entries):
        match = match.with_advice(
            "The file has a layer in front of its head (pre_logits), which is part of the head: "
            "set weights_head='fresh' to leave out both"
        )
    order, note = classes.order(number)
    if order is not None:
        for path in head_paths(match.entries):
            entry = match.entries[path]
            match = match.with_entry(path, entry.then(entry.shape, lambda x: x[..., order]))
    return match.with_note(f"head kept ({number} classes{note})")


def _leave_out(match: PartialMatch, number: int, note: str) -> PartialMatch:
    left_out = {*head_paths(match.entries), *_pre_logits(match.entries)}
    fresh, before = set(head_paths(match.wanted)), _num_classes(match.entries)
    if before is None and (pooling := _lacking_pooling(match)):
        fresh |= {path for path in match.wanted if path.split("/")[1] in pooling}
        note += f", with {' and '.join(pooling)}, which the file also lacks"
    match = dataclasses.replace(
        match,
        entries={path: entry for path, entry in match.entries.items() if path not in left_out},
        wanted={path: shape for path, shape in match.wanted.items() if path not in fresh},
    )
    before = "none in the file" if before is None else before
    return match.with_note(f"head fresh ({before} → {number} classes{note})")


def _lacking_pooling(match: PartialMatch) -> list[str]:
    """The model's modules between the last block and the head, if the file has none of them."""
    wanted = [name for name in _POOLING if _has_module(match.wanted, name)]
    return [] if any(_has_module(match.entries, name) for name in wanted) else wanted


def _has_module(paths: Iterable[str], name: str) -> bool:
    return any(path.startswith(f"params/{name}/") for path in paths)


def _advise_on_classes(theirs: int | None, ours: int) -> str:
    file_head = "no head" if theirs is None else f"a head of {theirs} classes"
    return (
        f"The file has {file_head}, and the model is for {ours}: to train, set weights_head='auto' "
        "for a fresh head if the classes differ, or 'fresh' to always get one; to evaluate, use "
        "data with the file's classes"
    )


def _pre_logits(entries: Entries) -> list[str]:
    return [path for path in entries if path.startswith(_PRE_LOGITS)]


def _num_classes(entries: Entries) -> int | None:
    """From the head's kernel, or from its bias if there is no kernel; None without a head."""
    paths = (f"{head}{leaf}" for head in _HEAD_PATHS for leaf in ("kernel", "bias"))
    shapes = (entries[path].shape for path in paths if path in entries)
    return next((shape[-1] for shape in shapes if shape), None)
