"""Writes a planned data set: the missing shards, then everything into place."""

import collections
import contextlib
import dataclasses
import errno
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from pnoise_jax.data.image import images
from pnoise_jax.data.prepare.plan import Entry, Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.writing import publish, staging, tfds_layout
from pnoise_jax.data.prepare.writing.progress import Progress
from pnoise_jax.data.prepare.writing.shards import BadImagesError, Note, Shard, write_shard
from pnoise_jax.data.prepare.writing.treatment import Treated, treat

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Job:
    """One data set to be written.

    Attributes:
      plan: the plan of the data set.
      scratch: the staging directory, with the files that an earlier run has finished.
      target: `<data_dir>/<name>/<version>`, the final place.
      short_side: see `prepare`.
    """

    plan: Plan
    scratch: Path
    target: Path
    short_side: int | None

    def run(self, progress: Progress) -> tuple[dict[str, int], list[str], dict[int, int]]:
        """Writes the missing shards and renames the complete directory to `target`.

        Returns:
          The number of changed images, by what was done to them; the images that are damaged but
          kept; and the number of dark images with 16 bits per sample, by `Treated.dark_bits`.

        Raises:
          ValueError: images cannot be used; the message names up to ten. Shards without such
            images are written.
          OSError: the disk is full or cannot be written. Finished shards stay.
        """
        shards = self._lay_out()
        every = [shard for _, its_shards in shards for shard in its_shards]
        notes = {shard.path: note for shard in every if (note := shard.note())}
        missing = [shard for shard in every if shard.path not in notes]
        if self.short_side is None:  # otherwise the sizes of the images are unknown
            staging.require_space(self.scratch, sum(shard.expected_bytes for shard in missing))
        total = sum(len(shard.entries) for shard in every)
        progress.writing(total, done=total - sum(len(shard.entries) for shard in missing))
        try:
            self._write_missing(shards, notes, progress)
            self._publish(shards, notes)
        except OSError as error:
            is_full = any(os.strerror(code) in str(error) for code in _FULL)
            raise OSError(
                f"{error}; {len(notes)} of {len(every)} files of records are finished and stay in "
                f"{self.scratch}. {'Make room; then' if is_full else 'Once this is fixed,'} the "
                "same command resumes from there."
            ) from error
        changes, dark = collections.Counter[str](), collections.Counter[int]()
        for note in notes.values():
            changes.update(note.changes)
            dark.update({int(bits): number for bits, number in note.dark.items()})
        damaged = [name for shard in every for name in notes[shard.path].damaged]
        return dict(changes.most_common()), damaged, dict(sorted(dark.items()))

    def _lay_out(self) -> list[tuple[SplitPlan, list[Shard]]]:
        directory = self.scratch / self.target.name
        return [
            (split, tfds_layout.lay_out(split, self.plan, directory, short_side=self.short_side))
            for split in self.plan.splits
        ]

    def _write_missing(
        self,
        shards: Sequence[tuple[SplitPlan, list[Shard]]],
        notes: dict[Path, Note],
        progress: Progress,
    ) -> None:
        """Writes the shards that are not in `notes`, and adds their notes."""
        (self.scratch / self.target.name).mkdir(exist_ok=True)
        (self.scratch / "notes").mkdir(exist_ok=True)
        record = tfds_layout.serializer(tfds_layout.features(self.plan))
        problems: list[str] = []
        threads = _cores()
        with _threads(threads) as pool:
            for split, its_shards in shards:
                with self._treating(split) as treat_entry:
                    for shard in (shard for shard in its_shards if shard.path not in notes):
                        try:
                            notes[shard.path] = write_shard(
                                shard,
                                treat=treat_entry,
                                record=record,
                                pool=pool,
                                ahead=4 * threads,
                                on_image=progress.advance,
                            )
                        except BadImagesError as error:
                            problems += error.problems  # continue, so that one run reports all
        if problems:
            raise ValueError(
                f"{len(problems)} images cannot be used, so {self.plan.name} is not prepared:\n  "
                + shorten(problems, separator="\n  ")
                + "\nReplace or remove them, and run the same command again."
            )

    @contextlib.contextmanager
    def _treating(self, split: SplitPlan) -> Iterator[Callable[[Entry], Treated]]:
        with split.source.open() as read:

            def treat_entry(entry: Entry) -> Treated:
                rule = self.plan.rule(entry.key)
                treated = treat(read(entry.member), rule=rule, short_side=self.short_side)
                self._require_size(treated)
                return treated

            yield treat_entry

    def _require_size(self, treated: Treated) -> None:
        expected = self.plan.image_shape
        if expected is None:
            return
        size = images.image_size(treated.data)
        if size != expected[:2]:
            raise ValueError(
                f"{size[0]} x {size[1]} pixels, but the official images have {expected[0]} x "
                f"{expected[1]}"
            )

    def _publish(
        self, shards: Sequence[tuple[SplitPlan, list[Shard]]], notes: dict[Path, Note]
    ) -> None:
        directory = self.scratch / self.target.name
        paths = {shard.path for _, its_shards in shards for shard in its_shards}
        for path in set(directory.iterdir()) - paths:
            path.unlink()  # made by an earlier run from other files
        publish.write_metadata(
            directory,
            self.plan,
            {split.name: its_shards for split, its_shards in shards},
            notes,
            short_side=self.short_side,
        )
        self.target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(directory, self.target)
        publish.sync(self.target.parent)
        staging.clear(self.scratch)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _threads(number: int) -> Iterator[ThreadPoolExecutor]:
    # Pillow warns about odd metadata and large images, but `treat` decides what to do with them.
    with warnings.catch_warnings(), ThreadPoolExecutor(number) as pool:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        yield pool
