"""Registries of noises, models and so on by name, to which users can add their own."""

import dataclasses
import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_CONFIG_FILE = "config_config"  # as ml_collections calls the module that --config names


class MissingModuleError(ValueError):
    """A run used something in a module that cannot be imported now."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where something that a user added is defined.

    Attributes:
      module: its name, as in an import.
      directory: what must be on PYTHONPATH to import it; "" if unknown. For a config file or a
        program, which nobody imports, the file.
    """

    module: str
    directory: str


class Registry(Generic[T]):
    """Names of things of one kind; ``"module:Name"`` imports one that has no name.

    A name can be registered only once, so that nothing built in is replaced by accident.
    """

    def __init__(self, kind: str, check: Callable[[T], None] | None = None):
        """An empty registry.

        Args:
          kind: what the things are, for messages: "noise", "model".
          check: raises ValueError if a thing lacks something that this kind must have.
        """
        self.kind = kind
        self._check = check
        self._things: dict[str, T] = {}
        self._lazy: dict[str, str] = {}
        self._origins: dict[str, Origin] = {}

    def register(self, name: str, thing: T) -> T:
        """Adds a thing under a new name and returns it.

        A class that is defined again, by a reloaded module or a cell of a notebook, replaces the
        old one.

        Raises:
          ValueError: the name is taken or not valid, or the thing lacks something it must have.
        """
        if not name.isidentifier():
            raise ValueError(
                f"{self.kind} name {name!r}: give letters, digits and underscores, such as 'my_one'"
            )
        if name in self._lazy:
            raise ValueError(f"{self.kind} {name!r} is built in: choose another name")
        if name in self._things and not _is_same(self._things[name], thing):
            raise ValueError(
                f"{self.kind} {name!r} is registered already, as {_full_name(self._things[name])}: "
                "choose another name"
            )
        if self._check is not None:
            self._check(thing)
        self._things[name] = thing
        return thing

    def register_lazily(self, name: str, place: str) -> None:
        """Adds a thing that is imported when it is asked for.

        Args:
          name: a new one.
          place: "module:Name".
        """
        self._lazy[name] = place

    def __getitem__(self, name: str) -> T:
        """The thing of this name, or the one that "module:Name" stands for.

        Raises:
          ValueError: there is none, it cannot be imported, or it lacks something it must have.
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
        except Exception as error:  # the module is somebody's own, and may raise anything
            raise ValueError(
                f"{self.kind} {name!r} cannot be imported ({type(error).__name__}: {error}); "
                "modules beside the config file are found, and installed ones"
            ) from error
        if self._check is not None:
            self._check(thing)
        return thing

    def origin(self, name: str) -> Origin | None:
        """Where a thing is defined; None if it is built in, or unknown."""
        module, colon, _ = str(name).partition(":")
        if not colon and name not in self._things:  # built in, where it is imported lazily
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
        """Whether a name stands for a known thing, or one that can be imported."""
        return name in self._things or name in self._origins or ":" in name

    def remember(self, name: str, origin: Origin) -> None:
        """Notes where a thing was defined, so that it can be imported from there when needed."""
        self._origins[name] = origin

    def _import_from(self, name: str, origin: Origin) -> None:
        """Imports the module in which a thing was defined.

        Raises:
          MissingModuleError: it cannot be imported, or no longer has it.
        """
        whose = f"{self.kind} {name!r}"
        if origin.module in ("__main__", _CONFIG_FILE):
            config = origin.module == _CONFIG_FILE
            place = f"the {'config file' if config else 'program'} {origin.directory}"
            fix = f"give --config={origin.directory}" if config else "register it first"
            raise MissingModuleError(
                f"{whose} is defined in {place}, which has not been read: {fix}, or move it to a "
                'module of its own and name it as "module:Class"'
            )
        try:
            found = importlib.import_module(origin.module)
            _, colon, attribute = name.partition(":")
            if colon:
                getattr(found, attribute)
        except Exception as error:  # the module is somebody's own, and may raise anything
            raise MissingModuleError(
                f"{whose} is of the module {origin.module!r}, which cannot be imported "
                f"({type(error).__name__}: {error}). When the run was trained, it was in "
                f"{origin.directory or 'no file'}: put that directory, or where the module is "
                "now, on PYTHONPATH, or give --config with a config file beside the module"
            ) from error
        if not colon and name not in self._things:
            raise MissingModuleError(
                f"{whose} is no longer registered by the module {origin.module!r} "
                f"({getattr(found, '__file__', None)}): put the one that the run was trained with "
                f"on PYTHONPATH (it was in {origin.directory or 'no file'})"
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
    """The known names that are near an unknown one, the nearest first.

    Args:
      name: the unknown one.
      known: all names.
      count: of at most how many.
      cutoff: how near they are at least, from 0 to 1.
    """
    return difflib.get_close_matches(str(name), list(known), n=count, cutoff=cutoff)


def did_you_mean(
    name: object, known: Iterable[str], *, listed: int = 100, list_always: bool = True
) -> str:
    """The end of a message about an unknown name: similar names, and all names.

    Args:
      name: the unknown one.
      known: all names.
      listed: at most how many of them are listed.
      list_always: also where some are near.
    """
    known = list(known)
    near = similar(name, known)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    if near and not list_always:
        return hint
    there = ", ".join(known[:listed]) + (", …" if len(known) > listed else "")
    return f"{hint} Choose one of: {there}"


def _kind(thing: Any) -> Any:
    """The class, if the thing is a pair of class and options; else the thing."""
    return thing[0] if isinstance(thing, tuple) else thing


def _is_same(old: Any, new: Any) -> bool:
    """Whether two things are the same, even if they were defined twice."""
    if old is new:
        return True
    options = (thing[1:] if isinstance(thing, tuple) else () for thing in (old, new))
    return _full_name(old) == _full_name(new) and len(set(map(repr, options))) == 1


def _full_name(thing: Any) -> str:
    kind = _kind(thing)
    where = getattr(kind, "__module__", type(kind).__module__)
    return f"{where}.{getattr(kind, '__qualname__', type(kind).__qualname__)}"
