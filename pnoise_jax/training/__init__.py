"""Training: the config, a task, the pure step and the loop."""

from pnoise_jax.training.classification import Classification
from pnoise_jax.training.config import (
    default_config,
    model_config,
    parse_arguments,
    validate,
)
from pnoise_jax.training.evaluating import evaluate
from pnoise_jax.training.experiment import Experiment, build
from pnoise_jax.training.loop import fit, train
from pnoise_jax.training.program import Program, create_program
from pnoise_jax.training.run_config import read_config
from pnoise_jax.training.step import TrainState, init_state, jit_train_step, make_train_step
from pnoise_jax.training.task import StepContext, Task, register_task, task_config
from pnoise_jax.training.together import fit_together
from pnoise_jax.training.window import NonFiniteLossError

__all__ = [
    "Classification",
    "Experiment",
    "NonFiniteLossError",
    "Program",
    "StepContext",
    "Task",
    "TrainState",
    "build",
    "create_program",
    "default_config",
    "evaluate",
    "fit",
    "fit_together",
    "init_state",
    "jit_train_step",
    "make_train_step",
    "model_config",
    "parse_arguments",
    "read_config",
    "register_task",
    "task_config",
    "train",
    "validate",
]
