"""DomainNet from its official zips and lists: two splits for each domain that is there.

Both published protocols are possible. SSRT and FFTAT adapt on the training list and test on the
test list: ``data.train_split="clipart_train"``, ``data.test_split="clipart_test"``. CDTrans and
PMTrans use the union for both: ``"clipart_train+clipart_test"`` in both fields, which is, line by
line, the list ``clipart.txt`` that CDTrans publishes. Numbers of the two cannot be compared.
"""

from collections.abc import Mapping
from pathlib import Path

from pnoise_jax.data.prepare.plan import Plan, SplitPlan, shorten
from pnoise_jax.data.prepare.sources import kinds
from pnoise_jax.data.prepare.sources.archives import Zip
from pnoise_jax.data.prepare.sources.class_folders import inside, top_folders
from pnoise_jax.data.prepare.sources.list_files import (
    Line,
    class_names,
    find_entries,
    parse_list,
    read_list,
    unlisted,
)
from pnoise_jax.data.prepare.sources.missing import missing_files
from pnoise_jax.data.prepare.sources.sources import Folder, Listing, Source

VERSION = "1.0.0"
DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
SPLITS = tuple(f"{domain}_{part}" for domain in DOMAINS for part in ("train", "test"))

_NUM_CLASSES = 345
_OFFICIAL = {  # images in the lists
    "clipart_train": 33_525,
    "clipart_test": 14_604,
    "infograph_train": 36_023,
    "infograph_test": 15_582,
    "painting_train": 50_416,
    "painting_test": 21_850,
    "quickdraw_train": 120_750,
    "quickdraw_test": 51_750,
    "real_train": 120_906,
    "real_test": 52_041,
    "sketch_train": 48_212,
    "sketch_test": 20_916,
}
_PAGE = "https://ai.bu.edu/M3SDA/"


def plan(manual_dir: Path, *, scratch: Path) -> Plan:
    """Plans splits `<domain>_train` and `<domain>_test`, named and ordered as the published lists.

    Labels are those of the lists, and classes are named by their folders. (The official labels are
    alphabetical, except for case, "_" and "-". `painting` has no training image of class 327 and no
    test image of class 300.)

    Args:
      manual_dir: the directory of `<domain>.zip`, or the folder that it unpacks to, and of
        `<domain>_train.txt` and `<domain>_test.txt`, for one or more domains.
      scratch: not used.

    Raises:
      FileNotFoundError: there is no domain, or a list of a domain is missing.
      OSError: a zip is cut off or damaged.
      ValueError: lists and images do not agree, see `list_files`; or an image is in both lists.
    """
    del scratch
    sources = {domain: _find(manual_dir, domain) for domain in DOMAINS}
    absent = [domain for domain, source in sources.items() if source is None]
    sources = {domain: source for domain, source in sources.items() if source is not None}
    if not sources:
        wanted = [f"{d}.zip, or the folder {d} that it unpacks to" for d in DOMAINS]
        raise _missing(manual_dir, wanted)
    lists = _read_lists(manual_dir, list(sources))
    names = class_names({f"{manual_dir / split}.txt": lines for split, lines in lists.items()})
    splits, notes = [], [f"no {domain}.zip, so no splits of {domain!r}" for domain in absent]
    for domain, source in sources.items():
        planned, domain_notes = _plan_domain(domain, source, lists, names, manual_dir)
        splits += planned
        notes += domain_notes
    if len(names) != _NUM_CLASSES:
        notes.append(f"{len(names)} classes, the official lists have {_NUM_CLASSES}")
    return Plan(
        name="domainnet",
        version=VERSION,
        splits=splits,
        class_names=names,
        description="DomainNet: the published training and test list of each domain.",
        homepage=_PAGE,
        notes=notes,
        class_order="published",
        order="listed",
    )


def _find(manual_dir: Path, domain: str) -> Source | None:
    if (manual_dir / f"{domain}.zip").is_file():
        return Zip(manual_dir / f"{domain}.zip")
    return Folder(manual_dir / domain) if (manual_dir / domain).is_dir() else None


def _read_lists(manual_dir: Path, domains: list[str]) -> dict[str, list[Line]]:
    splits = {split: split.rpartition("_")[0] for split in SPLITS}
    wanted = [split for split, domain in splits.items() if domain in domains]
    missing = [f"{split}.txt" for split in wanted if not (manual_dir / f"{split}.txt").is_file()]
    if missing:
        raise _missing(manual_dir, missing)
    return {
        split: parse_list(
            read_list(manual_dir / f"{split}.txt"),
            folder=splits[split],
            where=str(manual_dir / f"{split}.txt"),
        )
        for split in wanted
    }


def _missing(manual_dir: Path, wanted: list[str]) -> FileNotFoundError:
    how = "the cleaned version, and for each domain both lists of the split"
    return missing_files(manual_dir, "domainnet", wanted, page=_PAGE, how=how)


def _plan_domain(
    domain: str,
    source: Source,
    lists: Mapping[str, list[Line]],
    names: list[str],
    manual_dir: Path,
) -> tuple[list[SplitPlan], list[str]]:
    listing = source.scan()
    folder = domain if top_folders(listing, ".") == [domain] else "."
    part = inside(listing, folder)
    _require_images(source, part, domain)
    _refuse_in_both(domain, lists, manual_dir)
    splits, notes = [], []
    for split in (f"{domain}_train", f"{domain}_test"):
        entries = find_entries(
            lists[split],
            names,
            source=source,
            listing=part,
            folder=folder,
            where=str(manual_dir / f"{split}.txt"),
        )
        splits.append(SplitPlan(split, source, entries))
        if len(entries) != _OFFICIAL[split]:
            notes.append(f"{split} has {len(entries)} images, the official list {_OFFICIAL[split]}")
    images = kinds.sort_files(source, part).images
    left_out = unlisted(images, [entry for split in splits for entry in split.entries])
    if left_out:
        notes.append(f"left out {len(left_out)} images in no list: {shorten(left_out, limit=3)}")
    return splits, notes


def _require_images(source: Source, listing: Listing, domain: str) -> None:
    if not listing.members:
        raise ValueError(
            f"{source.path} has no files, so the domain {domain!r} would be empty: remove it, or "
            "download it again"
        )


def _refuse_in_both(domain: str, lists: Mapping[str, list[Line]], manual_dir: Path) -> None:
    train = {line.path for line in lists[f"{domain}_train"]}
    both = [line.path for line in lists[f"{domain}_test"] if line.path in train]
    if both:
        raise ValueError(
            f"{manual_dir}: {len(both)} images are in both {domain}_train.txt and "
            f"{domain}_test.txt: {shorten(both, limit=3)}; use lists from one source"
        )
