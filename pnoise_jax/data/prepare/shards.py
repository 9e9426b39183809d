"""Writing one file of records, whole or not at all."""

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

from pnoise_jax.data.manifest import FORMAT, Checksum, checksum
from pnoise_jax.data.prepare.plan import Entry
from pnoise_jax.data.prepare.treatment import Treated
from pnoise_jax.writing import replace_file


@dataclasses.dataclass(frozen=True)
class Note:
    """What is remembered of a finished shard.

    Attributes:
      digest: of everything that it was made from.
      file: its checksum.
      num_bytes: of its records.
      changes: how many images were changed, by what was done.
      damaged: the images that are damaged but kept.
      dark: how many images of 16 bits per sample need fewer, by their `Treated.dark_bits`.
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
      note_path: what is remembered of it, apart from the data set.
      entries: its examples, in order.
      digest: of everything that it is made from.
      expected_bytes: of the file, if no image is converted or shrunk.
    """

    path: Path
    note_path: Path
    entries: Sequence[Entry]
    digest: str
    expected_bytes: int

    def note(self) -> Note | None:
        """What an earlier run has noted of it; None: it is not there, or made from other things."""
        try:
            noted = json.loads(self.note_path.read_text())
            note = Note(**noted | {"file": Checksum(**noted["file"])})
            is_whole = self.path.stat().st_size == note.file.size
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return note if note.digest == self.digest and is_whole else None


class BadImagesError(ValueError):
    """Images that cannot be used. `problems`: for each "<where>: <why>"."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def digest(entries: Iterable[Entry], *settings: object) -> str:
    """Changes when any of the files does, or a setting."""
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
    """Writes all records to a temporary file, by TFDS's own writer, and renames it.

    Args:
      shard: which.
      treat: reads and treats an entry's image; called from several threads.
      record: makes the record of an entry and its image.
      pool: the threads.
      ahead: how many images may wait to be written.
      on_image: called after each image.

    Raises:
      BadImagesError: `treat` raised OSError or ValueError: with all of the shard's.
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
        # A shard of this name that was made from other things must not be taken for this one.
        shard.path.unlink(missing_ok=True)
        # Before the shard gets its name: a note without its shard counts for nothing.
        replace_file(shard.note_path, json.dumps(dataclasses.asdict(note)))
        os.replace(part, shard.path)
    finally:
        part.unlink(missing_ok=True)
    return note


def _write(path: Path, records: Iterator[tuple[str, bytes]]) -> None:
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]
    try:
        adapter.write_examples(path, records)
    except RuntimeError as error:  # the writer's, whatever the system said
        raise OSError(f"cannot write {path}: {error}") from error
    with open(path, "rb") as file:
        os.fsync(file.fileno())  # a rename must not outlive its data when the power fails


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
