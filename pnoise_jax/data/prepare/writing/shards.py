"""Writes one file of records, completely or not at all."""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from tensorflow_datasets.core import file_adapters

from pnoise_jax.data.prepare.plan import Entry
from pnoise_jax.data.prepare.writing.treatment import Treated
from pnoise_jax.data.stored.manifest import FORMAT, Checksum, checksum
from pnoise_jax.writing import replace_file


@dataclasses.dataclass(frozen=True)
class Note:
    """A record of a finished shard, from which a later run can resume.

    Attributes:
      digest: of everything that the shard was made from.
      file: the checksum of its file.
      num_bytes: total size of its records.
      changes: number of changed images, by what was done to them.
      damaged: the images that are damaged but kept.
      dark: number of images with 16 bits per sample that need fewer, by `Treated.dark_bits`.
    """

    digest: str
    file: Checksum
    num_bytes: int
    changes: Mapping[str, int]
    damaged: Sequence[str]
    dark: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records to be written.

    Attributes:
      path: of the complete file.
      note_path: of its note, outside the data set.
      entries: its examples, in order.
      digest: of everything that it is made from.
      expected_bytes: size of the file if no image is converted or shrunk.
    """

    path: Path
    note_path: Path
    entries: Sequence[Entry]
    digest: str
    expected_bytes: int

    def note(self) -> Note | None:
        """The note of an earlier run; None if the shard is missing or has been made differently."""
        try:
            noted = json.loads(self.note_path.read_text())
            note = Note(**noted | {"file": Checksum(**noted["file"])})
            is_whole = self.path.stat().st_size == note.file.size
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return note if note.digest == self.digest and is_whole else None


class BadImagesError(ValueError):
    """Images that cannot be used. `problems` has "<where>: <why>" for each."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def digest(entries: Iterable[Entry], *settings: object) -> str:
    """A digest that changes when any of the files or settings does."""
    sha = hashlib.sha256(repr((FORMAT, *settings)).encode())
    for entry in entries:
        sha.update(repr(entry).encode())
    return sha.hexdigest()


def write_shard(
    shard: Shard,
    *,
    treat: Callable[[Entry], Treated],
    record: Callable[[Entry, bytes], bytes],
    pool: ThreadPoolExecutor,
    ahead: int,
    on_image: Callable[[], object],
) -> Note:
    """Writes all records to a temporary file, with the writer of TFDS, and renames it.

    Args:
      shard: the shard to write.
      treat: reads and treats an entry's image; called from several threads.
      record: makes the record of an entry and its image.
      pool: the threads.
      ahead: the maximum number of images that wait to be written.
      on_image: called after each image.

    Raises:
      BadImagesError: `treat` raised OSError or ValueError; has all problems of the shard.
      OSError: the file cannot be written.
    """
    changes: collections.Counter[str] = collections.Counter()
    dark: collections.Counter[str] = collections.Counter()
    problems, damaged, num_bytes = [], [], 0

    def records() -> Iterator[tuple[str, bytes]]:
        nonlocal num_bytes
        for entry, treated in _in_order(pool, treat, shard.entries, ahead):
            if isinstance(treated, str):
                problems.append(treated)
                continue
            changes.update([treated.change] if treated.change else [])
            dark.update([] if treated.dark_bits is None else [str(treated.dark_bits)])
            if treated.damage:
                damaged.append(f"{entry.member.path} ({treated.damage})")
            made = record(entry, treated.data)
            num_bytes += len(made)
            on_image()
            yield entry.key, made

    part = shard.path.with_name(f"part.{shard.path.name}")
    try:
        _write(part, records())
        if problems:
            raise BadImagesError(problems)
        note = Note(shard.digest, checksum(part), num_bytes, dict(changes), damaged, dict(dark))
        # A shard of this name that was made from other inputs must not be taken for this one.
        shard.path.unlink(missing_ok=True)
        # Before the shard gets its name, because a note without its shard is ignored.
        replace_file(shard.note_path, json.dumps(dataclasses.asdict(note)))
        os.replace(part, shard.path)
    finally:
        part.unlink(missing_ok=True)
    return note


def _write(path: Path, records: Iterator[tuple[str, bytes]]) -> None:
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]
    try:
        adapter.write_examples(path, records)
    except RuntimeError as error:  # the writer raises it for any error of the system
        raise OSError(f"cannot write {path}: {error}") from error
    with open(path, "rb") as file:
        os.fsync(file.fileno())  # after a power failure, the renamed file must have its data


def _in_order(
    pool: ThreadPoolExecutor,
    treat: Callable[[Entry], Treated],
    entries: Sequence[Entry],
    ahead: int,
) -> Iterator[tuple[Entry, Treated | str]]:
    """Every entry with its image, or with what is wrong with it."""

    def guarded(entry: Entry) -> Treated | str:
        try:
            return treat(entry)
        except (OSError, ValueError) as error:
            return f"{entry.member.path}: {error}"

    waiting: collections.deque[Future[Treated | str]] = collections.deque()
    upcoming = iter(entries)
    try:
        waiting.extend(pool.submit(guarded, e) for e in itertools.islice(upcoming, ahead))
        for entry in entries:
            treated = waiting.popleft().result()
            waiting.extend(pool.submit(guarded, e) for e in itertools.islice(upcoming, 1))
            yield entry, treated
    finally:
        for future in waiting:
            future.cancel()
