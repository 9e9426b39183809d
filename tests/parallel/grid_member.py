"""One process of a grid: trains a small run, or resumes others'; prints the results, as JSON.

Arguments: JSON with "data_dir", "fsdp", "tensor_parallel" and "runs"; each run is trained to its
end, in order.
"""

import json
import sys
import zlib

import jax
import numpy as np

from pnoise_jax import evaluation, parallel, training
from pnoise_jax.training.experiment import build
from pnoise_jax.training.step.program import create_program
from tests.training.runs import small_config

parallel.start(timeout=120)
ARGUMENTS = json.loads(sys.argv[1])


def create_config():
    """Noise over the batch, dropout and augmentation: all that the devices' number could change."""
    return small_config(
        ARGUMENTS["data_dir"],
        fsdp=ARGUMENTS["fsdp"],
        tensor_parallel=ARGUMENTS["tensor_parallel"],
        **{
            "model.dim": 128,  # its MLP's kernels are just large enough to be split
            "model.dropout": 0.1,
            "noise.train": True,
            "duration": "6 steps",
            "log_every": "1 steps",
            "checkpoint.every": "3 steps",
            "data.train_transform": "none|flip",
            "data.test_split": "test[:101]",
            "evaluation.batch_size": 8,
        },
    )


def examples_by_step(experiment, program):
    """For each step {place in the global batch: [label, checksum of the image]}, of this host."""
    steps = []
    with experiment.task.open_batches() as batches:
        for local in batches:
            batch = parallel.to_devices(local, program.batches)
            here = {}
            for images, labels in zip(
                batch["image"].addressable_shards, batch["label"].addressable_shards, strict=True
            ):
                first = images.index[0].start or 0
                for place, (image, label) in enumerate(
                    zip(np.asarray(images.data), np.asarray(labels.data), strict=True), first
                ):
                    here[place] = [int(label), zlib.crc32(image.tobytes())]
            steps.append(here)
    return steps


def keep_index(logits, batch):
    """The score of an example: its index, as the devices have it."""
    del logits
    return {"index": batch["index"]}


def scored_examples(experiment, run, mesh):
    """The examples that were scored, ascending, by protocol."""
    by_protocol = {}
    for protocol in experiment.protocols:
        scores = evaluation.score_examples(
            experiment.model,
            run.variables,
            experiment.test_data,
            protocol,
            keep_index,
            mesh=mesh,
            mean=experiment.mean,
            std=experiment.std,
        )
        indices = [scored["index"][index >= 0] for index, scored in scores]
        by_protocol[protocol.name] = sorted(int(i) for i in np.concatenate(indices))
    return by_protocol


config = create_config()
mesh = parallel.training_mesh(config.fsdp, config.tensor_parallel)
experiment = build(config)
rows = {workdir: training.train(config, workdir) for workdir in ARGUMENTS["runs"]}
run = training.restore(ARGUMENTS["runs"][0], config, mesh=mesh)
result = {
    "devices": [jax.local_device_count(), jax.device_count()],
    "batches": examples_by_step(experiment, create_program(experiment, mesh)),
    "rows": rows,
    "evaluated": scored_examples(experiment, run, mesh),
}
print("\n" + json.dumps(result))
