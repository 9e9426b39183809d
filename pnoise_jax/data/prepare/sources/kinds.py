"""Which files are images: by their names or, if names do not say, by their first bytes."""

import collections
import dataclasses
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from pnoise_jax.data.prepare.plan import shorten
from pnoise_jax.data.prepare.sources.litter import is_hidden
from pnoise_jax.data.prepare.sources.sources import HEAD, Listing, Member, Source

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".png", ".apng", ".bmp"}
    | {".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
# Pictures, videos, arrays and archives that `treat` cannot read. They are not left out silently:
# a user who has them among the images would miss them.
_UNREADABLE = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jxr", ".svg", ".svgz", ".ico"}
    | {".psd", ".psb", ".xcf", ".ai", ".eps", ".pdf", ".tga", ".dds", ".pcx", ".exr", ".hdr"}
    | {".pfm", ".dib", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"}
    | {".dcm", ".nii", ".mha", ".fits", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".tfrecord"}
    | {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"}
    | {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
)
# Texts, whatever bytes they begin with: text in an older encoding can look like anything.
_TEXTS = frozenset(
    {".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml"}
    | {".html", ".htm", ".log", ".ini", ".cfg", ".url", ".rtf", ".names"}
)
# The fix for unexpected files in an official archive.
OFFICIAL = "use the official archive, or remove these files"
_IMAGE_HEAD = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|II[*+]\x00|MM\x00[*+]", re.DOTALL
)


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a source that are not hidden, by kind.

    Attributes:
      images: the images to read.
      by_content: the images that are recognised by their content, not by their names.
      unreadable: files in formats that cannot be read, of unknown kinds, or that cannot be opened.
      others: texts and the like, which are clearly not images.
    """

    images: Sequence[Member]
    by_content: Sequence[Member]
    unreadable: Sequence[Member]
    others: Sequence[Member]


def sort_files(source: Source, listing: Listing) -> Files:
    """Sorts the files of a listing by kind, by their names or else by their first bytes.

    Args:
      source: the source of the files.
      listing: of the source, or of a part of it.
    """
    images, by_content, unreadable, others, unknown = [], [], [], [], []
    for member in listing.members:
        if is_hidden(member.path):
            continue
        suffix = posixpath.splitext(member.path)[1].lower()
        if suffix in SUFFIXES:
            images.append(member)
        elif suffix in _UNREADABLE:
            unreadable.append(member)
        else:
            unknown.append(member)
    for member, head in zip(unknown, source.heads(unknown), strict=True):
        if head is None:
            unreadable.append(member)
        elif _is_image_head(head, member.size):
            images.append(member)
            by_content.append(member)
        elif _is_text(head) or (_is_called_text(member) and b"<svg" not in head):
            others.append(member)
        else:
            unreadable.append(member)
    return Files(images, by_content, unreadable, others)


def only_images(source: Source, members: Sequence[Member]) -> list[Member]:
    """The members that are images, by their names or else by their first bytes."""
    known = [member for member in members if member.path.lower().endswith(tuple(SUFFIXES))]
    others = [member for member in members if not member.path.lower().endswith(tuple(SUFFIXES))]
    heads = zip(others, source.heads(others), strict=True)
    return known + [member for member, head in heads if head and _is_image_head(head, member.size)]


def _is_image_head(head: bytes, size: int) -> bool:
    if head.startswith(b"BM"):  # too short to be certain; the file's size follows
        return int.from_bytes(head[2:6], "little") == size
    return _IMAGE_HEAD.match(head) is not None


def _is_text(head: bytes) -> bool:
    """Whether these are the first bytes of a text; an empty file is one, an SVG is not."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # byte-order marks of UTF-16
        return all(c.isprintable() or c.isspace() for c in head.decode("utf-16", "replace"))
    if b"\0" in head or b"<svg" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= HEAD - 4 or _is_latin_text(head)  # the last character may be cut off
    return True


def _is_called_text(member: Member) -> bool:
    return posixpath.splitext(member.path)[1].lower() in _TEXTS


def _is_latin_text(head: bytes) -> bool:
    """Whether these bytes begin a text in an older encoding: no controls, few non-ASCII bytes."""
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    return not controls and sum(byte >= 128 for byte in head) <= len(head) // 4


def refuse_unreadable(members: Sequence[Member], *, where: str, fix: str) -> None:
    """Raises ValueError if there are files in formats that cannot be read.

    Args:
      members: the files.
      where: how messages refer to their source.
      fix: what the user can do.
    """
    if members:
        raise ValueError(
            f"{where} has {len(members)} files in formats that cannot be read, or of unknown "
            f"kinds: {_by_suffix(members)}; {fix}"
        )


def notes(files: Iterable[Files], *, expected: Sequence[str] = ()) -> list[str]:
    """What the user should know about files that were left out, or recognised as images.

    Args:
      files: of every split.
      expected: ends of the paths of texts that belong to the data set, and are not reported.
    """
    files = list(files)
    lines = []
    by_content = [member for part in files for member in part.by_content]
    if by_content:
        lines.append(
            f"{len(by_content)} files are images by their content, not by their names: "
            f"{_by_suffix(by_content)}"
        )
    others = [
        member
        for part in files
        for member in part.others
        if not member.path.endswith(tuple(expected))
    ]
    if others:
        lines.append(f"left out {len(others)} files that are not images: {_by_suffix(others)}")
    return lines


def _by_suffix(members: Sequence[Member]) -> str:
    """How many members have each suffix, with the names of the first few of each."""
    paths: dict[str, list[str]] = collections.defaultdict(list)
    for member in members:
        path = PurePosixPath(member.path)
        paths[path.suffix.lower() or "without a suffix"].append(member.path)
    kinds = sorted(paths.items(), key=lambda item: (-len(item[1]), item[0]))
    return shorten(
        [f"{len(names)} {suffix} ({shorten(names, limit=3)})" for suffix, names in kinds],
        limit=5,
        separator="; ",
    )
