"""Compares this project and the authors' published code, on the same weights and images.

    python -m tests.published.comparison --workdir RUN --clone DIR --torch_python PYTHON

RUN is a finished run of configs/digits_vit.py. It prints two tables, and --out FILE keeps their
rows as JSON; docs/published-code.md explains them. About two minutes on two CPU cores.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pnoise_jax import evaluation
from pnoise_jax.evaluation import metrics
from tests.published import clone, theirs
from tests.published.ours import BATCH_SIZE, Ours, load_run

SHUFFLES = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Row:
    """One evaluation by both; accuracies in percent.

    Attributes:
      order: the order of the test images, with the seed if it is shuffled.
      noisy: whether the optimal quality matrix acts.
      theirs, ours: accuracy, correct / total.
      differing: test images that the two predict differently.
      nll_difference: the largest difference over images of the true class's negative
        log-likelihood, in nats.
    """

    order: str
    noisy: bool
    theirs: float
    ours: float
    differing: int
    nll_difference: float


@dataclasses.dataclass(frozen=True)
class ProgramRow(Row):
    """One run of their program.

    Attributes:
      reported: the accuracy that it logs.
      meter: our `published_meter` on our own predictions, in the same batches.
      wrong_lines: printed lines in which our running accuracy or meter differs in any digit.
      lines: printed lines.
      checkpoint: the name of the file that it saved.
      unchanged: whether its epoch of training left every weight as it was.
    """

    reported: float
    meter: float
    wrong_lines: int
    lines: int
    checkpoint: str
    unchanged: bool


def compare_model_class(code: theirs.Theirs, ours: Ours) -> list[Row]:
    """Their model class against ours, in every order."""
    cases = {
        ("stored", False): (ours.order("stored"), False),
        ("class_sorted", True): (ours.order("class_sorted"), True),
        **{(f"shuffled, seed {s}", True): (ours.order("shuffled", seed=s), True) for s in SHUFFLES},
        ("stored", True): (ours.order("stored"), True),
    }
    names = {f"{order}, {noisy}": (order, noisy) for order, noisy in cases}
    logits = code.model_class({name: cases[key] for name, key in names.items()})
    return [
        Row(order=key[0], noisy=key[1], **_agreement(logits[name], ours, *cases[key])[0])
        for name, key in names.items()
    ]


def compare_program(code: theirs.Theirs, ours: Ours) -> list[ProgramRow]:
    """Their program against ours: its ImageNet branch in two orders, then its CIFAR branch."""
    rows = []
    for name in ("class_sorted", "shuffled", "stored"):
        for noisy in (True, False):
            order = ours.order(name)
            outcome = code.program(
                optimal_q=noisy,
                cifar=name == "stored",
                positions=_positions(order, ours) if name == "shuffled" else None,
            )
            agreement, batches = _agreement(outcome.logits, ours, order, noisy)
            rows.append(
                ProgramRow(
                    order=name,
                    noisy=noisy,
                    **agreement,
                    reported=outcome.reported,
                    meter=evaluation.published_meter(batches),
                    wrong_lines=sum(line != _line(line.batch, batches) for line in outcome.lines),
                    lines=len(outcome.lines),
                    checkpoint=outcome.checkpoint,
                    unchanged=outcome.unchanged,
                )
            )
    return rows


def _positions(order: np.ndarray, ours: Ours) -> list[int]:
    """An order of the test set as positions in the sorted list of the files."""
    return np.argsort(ours.order("class_sorted"))[order].tolist()


def _agreement(
    logits: np.ndarray, ours: Ours, order: np.ndarray, noisy: bool
) -> tuple[dict[str, float | int], list[metrics.Batch]]:
    """The fields of `Row` from their logits in an order, and our predictions in batches."""
    our_predictions = ours.predict(order, noisy=noisy)
    their_predictions = evaluation.Predictions.of(logits, ours.labels[order])
    fields = {
        "theirs": their_predictions.summary()["top1"],
        "ours": our_predictions.summary()["top1"],
        "differing": int(np.sum(their_predictions.predicted != our_predictions.predicted[order])),
        "nll_difference": float(np.max(np.abs(their_predictions.nll - our_predictions.nll[order]))),
    }
    return fields, metrics.in_batches_of(ours.labels, our_predictions.predicted, order, BATCH_SIZE)


def _line(batch: int, batches: Sequence[metrics.Batch]) -> theirs.Line:
    """What their program should print after a batch, from our predictions."""
    seen = batches[: batch + 1]
    running, meter = metrics.accuracy(seen), metrics.published_meter(seen)
    return theirs.Line(batch, f"{running / 100:.3f}", f"{meter / 100:.3f}")


def describe(model_class: Sequence[Row], program: Sequence[ProgramRow]) -> str:
    """Both tables, in Markdown."""
    lines = [
        "| order | optimal Q | their model class | ours | differing predictions |",
        "|---|---|---|---|---|",
    ]
    for row in model_class:
        lines.append(
            f"| {row.order} | {_yes(row.noisy)} | {row.theirs:.1f} | {row.ours:.1f} "
            f"| {row.differing} |"
        )
    lines += [
        "",
        "| order | optimal Q | reported | correct / total | reported minus true "
        "| our meter | our accuracy | differing predictions |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in program:
        lines.append(
            f"| {row.order} | {_yes(row.noisy)} | {row.reported:.2f} | {row.theirs:.1f} "
            f"| {row.reported - row.theirs:+.2f} | {row.meter:.2f} | {row.ours:.1f} "
            f"| {row.differing} |"
        )
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="A run of digits_vit.py.")
    parser.add_argument("--clone", type=Path, required=True, help="Of the published code.")
    parser.add_argument("--torch_python", type=Path, required=True, help="A Python with torch.")
    parser.add_argument("--out", type=Path, help="A JSON file for the rows.")
    flags = parser.parse_args(arguments)
    try:
        code = clone.code_folder(flags.clone.absolute())
        ours = load_run(flags.workdir)
        with tempfile.TemporaryDirectory() as directory:
            code_runner = theirs.prepare(code, flags.torch_python, ours, Path(directory))
            model_class, program = (
                compare_model_class(code_runner, ours),
                compare_program(code_runner, ours),
            )
    except (ValueError, OSError, theirs.FailedError) as error:
        parser.exit(1, f"error: {error}\n")
    print(describe(model_class, program))
    if flags.out:
        rows = {"model_class": model_class, "program": program}
        text = {name: [dataclasses.asdict(row) for row in table] for name, table in rows.items()}
        flags.out.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
