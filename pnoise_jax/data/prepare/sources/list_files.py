"""Published lists of images and labels, one `path label` per line, checked against the images."""

import collections
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from pnoise_jax.data.prepare.plan import Entry, shorten
from pnoise_jax.data.prepare.sources.sources import MAX_TEXT, Folder, Listing, Member, Source
from pnoise_jax.terminal import printable

_LINE = re.compile(r"(?P<path>.*\S)\s+(?P<label>[+-]?[0-9]{1,9})")
_EXAMPLES = 3  # examples of each kind of mistake in an error message


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One image of a list.

    Attributes:
      number: of the line, from 1.
      path: `<class>/<file>`, below the folder of the domain.
      label: as in the list.
    """

    number: int
    path: str
    label: int

    @property
    def class_folder(self) -> str:
        """The name of the folder, which is the name of the class."""
        return self.path.partition("/")[0]


class _Mistakes:
    """The mistakes in a list: the number of lines with each kind, and the first of them."""

    def __init__(self, where: str):
        self._where = where
        self._by_kind: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, kind: str, number: int, what: str) -> None:
        self._by_kind[kind].append(f"line {number}: {what}")

    def refuse(self, fix: str) -> None:
        """Raises ValueError if there are any."""
        if self._by_kind:
            kinds = [
                f"{len(lines)} {kind} ({shorten(lines, limit=_EXAMPLES, separator='; ')})"
                for kind, lines in self._by_kind.items()
            ]
            raise ValueError(f"{self._where} has {'; '.join(kinds)}. {fix}")


def parse_list(text: str, *, folder: str, where: str) -> list[Line]:
    """The images of a list, in its order, by their paths below the folder of a domain.

    A path can be relative to that folder (`bus/1.jpg`), or contain the folder and any folders above
    it (`./data/office-home/images/Real_World/Bike/00001.jpg`). In the folder's name, case and all
    characters but letters and digits are ignored, because `Real World` is also called `Real_World`.
    A path can contain blanks; the label follows the last one.

    Args:
      text: the list.
      folder: the name of the domain's folder, such as "Art".
      where: how messages refer to the list.

    Raises:
      ValueError: the list is empty; or lines are not `path label`, or their paths are absolute,
        lead out of the folder, are in another one or repeated. The message counts the mistakes, and
        shows the first.
    """
    lines: list[Line] = []
    mistakes, seen = _Mistakes(where), dict[str, int]()
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            mistakes.add("lines that are not `path label`", number, repr(line))
            continue
        path, problem = _below(match["path"], folder)
        if problem:
            mistakes.add(problem, number, repr(match["path"]))
        elif path in seen:
            first = f"{path!r}, as in line {seen[path]}"
            mistakes.add("repeated images", number, first)
        else:
            seen[path] = number
            lines.append(Line(number, path, int(match["label"])))
    mistakes.refuse("Use the published list, or correct these lines.")
    if not lines:
        raise ValueError(
            f"{where} is empty, so {folder!r} would have no images: use the published list"
        )
    return lines


def _below(path: str, folder: str) -> tuple[str, str]:
    """The path below the domain's folder; and what is wrong with it, or "" if nothing is."""
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive:
        return "", "absolute paths"
    parts = PurePosixPath(path).parts  # without "." and double slashes
    if ".." in parts or "\0" in path:
        return "", "paths that lead out of the folder"
    if len(parts) == 2:
        return "/".join(parts), ""
    if len(parts) < 2:
        return "", "paths without the folder of a class"
    if not are_alike(parts[-3], folder):
        return "", f"paths that are not in the folder {folder!r}"
    return "/".join(parts[-2:]), ""


def are_alike(one: str, other: str) -> bool:
    """Whether two folder names have the same letters and digits: `Real World`, `Real_World`."""
    first, second = ("".join(filter(str.isalnum, name)).lower() for name in (one, other))
    return first == second


def class_names(lists: Mapping[str, Sequence[Line]]) -> list[str]:
    """The classes by label, according to all lists: each label belongs to one class folder.

    Args:
      lists: by the names with which messages refer to them.

    Raises:
      ValueError: a class has two labels, a label two classes, or labels are not the numbers from 0
        to the number of classes minus 1.
    """
    every = {line.class_folder for lines in lists.values() for line in lines}
    label_of: dict[str, tuple[int, str]] = {}
    class_of: dict[int, tuple[str, str]] = {}
    for where, lines in lists.items():
        mistakes = _Mistakes(where)
        for line in lines:
            name, label = line.class_folder, line.label
            if not 0 <= label < len(every):
                kind = f"labels out of range (of {len(every)} classes: 0 to {len(every) - 1})"
                mistakes.add(kind, line.number, f"{line.path!r} {label}")
                continue
            known, there = label_of.setdefault(name, (label, f"{where}, line {line.number}"))
            other, there_too = class_of.setdefault(label, (name, f"{where}, line {line.number}"))
            if known != label:
                what = f"{line.path!r} has label {label}, but {name!r} is {known} in {there}"
            elif other != name:
                what = f"{line.path!r} has label {label}, which is {other!r} in {there_too}"
            else:
                continue
            mistakes.add("labels that contradict the class folder", line.number, what)
        mistakes.refuse("Use lists that all come from one source.")
    return [class_of[label][0] for label in range(len(every))]


def find_entries(
    lines: Sequence[Line],
    names: Sequence[str],
    *,
    source: Source,
    listing: Listing,
    folder: str,
    where: str,
) -> list[Entry]:
    """The images of a list, in its order; their keys are the paths below the folder.

    Args:
      lines: the lines of the list.
      names: the names of the classes, by label.
      source: the source of the images.
      listing: of the source.
      folder: the path of the domain's folder in the source; "." for all.
      where: how messages refer to the list.

    Raises:
      ValueError: images are missing, links lead out of the folder, or labels contradict the class
        folders. The message counts the mistakes, and shows the first.
    """
    prefix = "" if folder == "." else f"{folder}/"
    members = {member.path: member for member in listing.members}
    label_of = {name: label for label, name in enumerate(names)}
    leads_out = _link_check(source, folder)
    mistakes, entries = _Mistakes(where), []
    for line in lines:
        member = members.get(prefix + line.path)
        if member is None:
            mistakes.add("images that are missing", line.number, repr(line.path))
        elif leads_out(member):
            mistakes.add("links that lead out of the folder", line.number, repr(line.path))
        elif label_of.get(line.class_folder) != line.label:
            known = f"{line.class_folder!r} is class {label_of.get(line.class_folder)}"
            what = f"{line.path!r} has label {line.label}, but {known}"
            mistakes.add("labels that contradict the class folder", line.number, what)
        else:
            entries.append(Entry(line.path, line.label, member))
    mistakes.refuse(
        f"The images were looked for in {printable(str(source.path))}, below "
        f"{printable(folder)!r}: use a list and images from the same download."
    )
    return entries


def _link_check(source: Source, folder: str) -> Callable[[Member], bool]:
    """A function that says whether the bytes of a member are outside the folder."""
    if not isinstance(source, Folder):
        return lambda _: False  # archives with links are refused
    root = Path(os.path.realpath(source.path / folder))
    outside_of: dict[str, bool] = {}

    def leads_out(member: Member) -> bool:
        path = source.path / member.path
        if path.is_symlink():
            return not path.resolve().is_relative_to(root)
        parent = os.path.dirname(member.path)
        if parent not in outside_of:
            outside_of[parent] = not path.parent.resolve().is_relative_to(root)
        return outside_of[parent]

    return leads_out


def unlisted(listing: Iterable[Member], entries: Iterable[Entry]) -> list[str]:
    """The paths of the members that are in no entry."""
    listed = {entry.member.path for entry in entries}
    return [member.path for member in listing if member.path not in listed]


def read_list(path: Path) -> str:
    """The text of a list in a separate file.

    Raises:
      OSError: it cannot be read, or is far longer than any known list.
      ValueError: it is not UTF-8.
    """
    size = path.stat().st_size
    if size > MAX_TEXT:
        raise OSError(
            f"{path} has {size:,} bytes, but at most {MAX_TEXT:,} are read of a list: use the "
            "published list"
        )
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a list in UTF-8 ({error}): download it again") from error
