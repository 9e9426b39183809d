"""Things that are found by name, to which others can add their own: noises, models, and so on."""

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of things of one kind; ``"module:Name"`` imports one without a name.

    A name is given once: what is built in cannot be replaced by accident.
    """

    def __init__(self, kind: str, check: Callable[[T], None] | None = None):
        """An empty registry.

        Args:
          kind: what the things are, for messages: "noise", "model".
          check: raises ValueError where something lacks what this kind must have.
        """
        self.kind = kind
        self._check = check
        self._things: dict[str, T] = {}

    def register(self, name: str, thing: T) -> T:
        """Adds a thing under a new name and returns it.

        Raises:
          ValueError: the name is taken, or cannot be one; or the thing lacks what it must have.
        """
        if not name.isidentifier():
            raise ValueError(
                f"{self.kind} name {name!r}: give letters, digits and underscores, such as 'my_one'"
            )
        if self._things.get(name, thing) is not thing:
            raise ValueError(
                f"{self.kind} {name!r} is registered already, as {_full_name(self._things[name])}: "
                "choose another name"
            )
        if self._check is not None:
            self._check(thing)
        self._things[name] = thing
        return thing

    def __getitem__(self, name: str) -> T:
        """The thing of this name, or the one that "module:Name" stands for.

        Raises:
          ValueError: there is none, it cannot be imported, or it lacks what it must have.
        """
        if name in self._things:
            return self._things[name]
        module, colon, attribute = str(name).partition(":")
        if not colon:
            raise ValueError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._things)}")
        try:
            thing = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the module is somebody's own, and may raise anything
            raise ValueError(
                f"{self.kind} {name!r} cannot be imported ({type(error).__name__}: {error}); "
                "modules beside the config file are found, and installed ones"
            ) from error
        if self._check is not None:
            self._check(thing)
        return thing

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def __contains__(self, name: object) -> bool:
        return name in self._things


def did_you_mean(name: object, known: Iterable[str], *, listed: int = 60) -> str:
    """The end of a message about an unknown name: what is near, and what there is."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    there = ", ".join(known[:listed]) + (", …" if len(known) > listed else "")
    return f"{hint} Choose one of: {there}"


def _full_name(thing: object) -> str:
    where = getattr(thing, "__module__", type(thing).__module__)
    return f"{where}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
