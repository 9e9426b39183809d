"""Registries of noises, models and so on, by name; users can add their own."""

import dataclasses
import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_CONFIG_FILE = "config_config"  # the name that ml_collections gives to the module of --config


class MissingModuleError(ValueError):
    """A run used something from a module that can no longer be imported."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where something that a user registered is defined.

    Attributes:
      module: the name of the module, as in an import.
      directory: the directory that must be on PYTHONPATH to import it; "" if unknown. For a config
        file or a program, which is not imported, the file itself.
    """

    module: str
    directory: str


class Registry(Generic[T]):
    """Things of one kind by name; ``"module:Name"`` imports one that is not registered.

    A name can be registered only once, so nothing built in is replaced by accident.
    """

    def __init__(
        self,
        kind: str,
        check: Callable[[T], None] | None = None,
        *,
        reserved: Iterable[str] = (),
    ):
        """Creates an empty registry.

        Args:
          kind: what the things are, for messages: "noise", "model".
          check: raises ValueError if a thing lacks something that this kind requires.
          reserved: names of built-in things that are not in the registry.
        """
        self.kind = kind
        self._check = check
        self._reserved = frozenset(reserved)
        self._things: dict[str, T] = {}
        self._lazy: dict[str, str] = {}
        self._origins: dict[str, Origin] = {}

    def register(self, name: str, thing: T) -> T:
        """Adds a thing under a new name and returns it.

        A class that is defined again, by a reloaded module or a notebook cell, replaces the old
        one.

        Raises:
          ValueError: the name is taken or invalid, or the thing lacks something required.
        """
        if not name.isidentifier():
            raise ValueError(
                f"{self.kind} name {name!r}: use letters, digits and underscores, such as 'my_one'"
            )
        if name in self._lazy or name in self._reserved:
            raise ValueError(f"{self.kind} {name!r} is built in: choose another name")
        if name in self._things and not _is_same(self._things[name], thing):
            raise ValueError(
                f"{self.kind} {name!r} is already registered as {_full_name(self._things[name])}: "
                "choose another name"
            )
        if self._check is not None:
            self._check(thing)
        self._things[name] = thing
        return thing

    def register_lazily(self, name: str, place: str) -> None:
        """Adds a thing that is imported when it is looked up.

        Args:
          name: a new name.
          place: "module:Name".
        """
        self._lazy[name] = place

    def __getitem__(self, name: str) -> T:
        """The thing with this name, or the one that "module:Name" refers to.

        Raises:
          ValueError: there is none, it cannot be imported, or it lacks something required.
        """
        if name not in self._things and name in self._origins:
            self._import_from(name, self._origins[name])
        if name in self._things:
            return self._things[name]
        name = self._lazy.get(name, name)
        module, colon, attribute = str(name).partition(":")
        if not colon:
            raise ValueError(f"unknown {self.kind} {name!r}{did_you_mean(name, self)}")
        try:
            thing = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # a user's module may raise anything
            raise ValueError(
                f"{self.kind} {name!r} cannot be imported ({type(error).__name__}: {error}); "
                "give a module next to the config file, or an installed one"
            ) from error
        if self._check is not None:
            self._check(thing)
        return thing

    def origin(self, name: str) -> Origin | None:
        """Where a thing is defined; None if it is built in or unknown."""
        module, colon, _ = str(name).partition(":")
        if not colon and name not in self._things:  # lazily imported, so built in; or unknown
            return None
        module = module if colon else _kind(self._things[name]).__module__
        if module.partition(".")[0] == __name__.partition(".")[0]:
            return None
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None:
            return Origin(module, "")
        if module in ("__main__", _CONFIG_FILE):
            return Origin(module, str(Path(file).absolute()))
        is_package = Path(file).stem == "__init__"
        return Origin(module, str(Path(file).absolute().parents[module.count(".") + is_package]))

    def knows(self, name: str) -> bool:
        """Whether a name is registered, remembered, or of the form "module:Name"."""
        return name in self or name in self._origins or ":" in name

    def remember(self, name: str, origin: Origin) -> None:
        """Notes where a thing was defined, so that it can be imported from there when needed."""
        self._origins[name] = origin

    def _import_from(self, name: str, origin: Origin) -> None:
        """Imports the module in which a thing was defined.

        Raises:
          MissingModuleError: the module cannot be imported, or no longer defines the thing.
        """
        subject = f"{self.kind} {name!r}"
        if origin.module in ("__main__", _CONFIG_FILE):
            config = origin.module == _CONFIG_FILE
            place = f"the {'config file' if config else 'program'} {origin.directory}"
            fix = f"give --config={origin.directory}" if config else "register it first"
            raise MissingModuleError(
                f"{subject} is defined in {place}, which has not been read: {fix}, or move it to a "
                'separate module and refer to it as "module:Class"'
            )
        try:
            module = importlib.import_module(origin.module)
            _, colon, attribute = name.partition(":")
            if colon:
                getattr(module, attribute)
        except Exception as error:  # a user's module may raise anything
            raise MissingModuleError(
                f"{subject} is defined in the module {origin.module!r}, which cannot be imported "
                f"({type(error).__name__}: {error}). When the run was trained, it was in "
                f"{origin.directory or 'no file'}: put that directory, or the one where it is now, "
                "on PYTHONPATH, or give --config with a config file next to the module"
            ) from error
        if not colon and name not in self._things:
            raise MissingModuleError(
                f"{subject} is no longer registered by the module {origin.module!r} "
                f"({getattr(module, '__file__', None)}): put the version that the run was trained "
                f"with on PYTHONPATH (it was in {origin.directory or 'no file'})"
            )

    def __iter__(self) -> Iterator[str]:
        return iter([*self._things, *self._lazy])

    def __len__(self) -> int:
        return len(self._things) + len(self._lazy)

    def __contains__(self, name: object) -> bool:
        return name in self._things or name in self._lazy


def similar(
    name: object, known: Iterable[str], *, count: int = 3, cutoff: float = 0.5
) -> list[str]:
    """The known names that are similar to an unknown one, most similar first.

    Args:
      name: the unknown one.
      known: all names.
      count: the maximum number of names to return.
      cutoff: the minimum similarity, from 0 to 1.
    """
    return difflib.get_close_matches(str(name), list(known), n=count, cutoff=cutoff)


def did_you_mean(
    name: object, known: Iterable[str], *, listed: int = 100, list_always: bool = True
) -> str:
    """The end of a message about an unknown name: similar names, then all names.

    Args:
      name: the unknown one.
      known: all names.
      listed: the maximum number of names to list.
      list_always: whether to list all names even if some are similar.
    """
    known = list(known)
    near = similar(name, known)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    if near and not list_always:
        return hint
    there = ", ".join(known[:listed]) + (", …" if len(known) > listed else "")
    return f"{hint} Choose one of: {there}"


def _kind(thing: Any) -> Any:
    """The class, if the thing is a pair of a class and its options; otherwise the thing itself."""
    return thing[0] if isinstance(thing, tuple) else thing


def _is_same(old: Any, new: Any) -> bool:
    """Whether two things are the same, or definitions of the same name with equal options."""
    if old is new:
        return True
    options = (thing[1:] if isinstance(thing, tuple) else () for thing in (old, new))
    return _full_name(old) == _full_name(new) and len(set(map(repr, options))) == 1


def _full_name(thing: Any) -> str:
    kind = _kind(thing)
    where = getattr(kind, "__module__", type(kind).__module__)
    return f"{where}.{getattr(kind, '__qualname__', type(kind).__qualname__)}"
