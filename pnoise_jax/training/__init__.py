"""Training: the config, a task, the pure step and the loop."""

from pnoise_jax.training import inputs, unused_fields
from pnoise_jax.training.checks import (
    ConfigError,
    as_config_errors,
    check_training,
    require_weights,
)
from pnoise_jax.training.classification import Classification
from pnoise_jax.training.configuration.config import (
    HARMLESS,
    NOT_OF_RESULTS,
    default_config,
    differing,
    model_config,
    parse_arguments,
    unknown_field,
    validate,
)
from pnoise_jax.training.configuration.fields import FIELDS, flatten, noise_config
from pnoise_jax.training.configuration.strength_schedule import StrengthSchedule
from pnoise_jax.training.evaluating.evaluating import evaluate
from pnoise_jax.training.evaluating.evaluating_sets import evaluate_sets
from pnoise_jax.training.evaluating.restore import NOT_OF_WEIGHTS, Run, import_weights, restore
from pnoise_jax.training.experiment import Experiment, build
from pnoise_jax.training.loop.loop import fit, train
from pnoise_jax.training.loop.together import fit_together, open_together, start_together
from pnoise_jax.training.loop.window import NonFiniteLossError
from pnoise_jax.training.run_files import (
    data_version,
    own_modules,
    reports,
    run_config,
    starting_weights,
)
from pnoise_jax.training.run_files.run_config import read_config
from pnoise_jax.training.setup import Setup
from pnoise_jax.training.step import optimizer
from pnoise_jax.training.step.program import Program, create_program, trains_with_noise
from pnoise_jax.training.step.random_streams import RandomStreams
from pnoise_jax.training.step.step import TrainState, init_state, jit_train_step, make_train_step
from pnoise_jax.training.task import (
    OWN_PARAMETERS,
    TARGET_FIELDS,
    Metrics,
    State,
    StepContext,
    Task,
    model_parameters,
)
from pnoise_jax.training.task_registry import TASKS, register_task, task_config

__all__ = [
    "FIELDS",
    "HARMLESS",
    "NOT_OF_RESULTS",
    "NOT_OF_WEIGHTS",
    "OWN_PARAMETERS",
    "TARGET_FIELDS",
    "TASKS",
    "Classification",
    "ConfigError",
    "Experiment",
    "Metrics",
    "NonFiniteLossError",
    "Program",
    "RandomStreams",
    "Run",
    "Setup",
    "State",
    "StepContext",
    "StrengthSchedule",
    "Task",
    "TrainState",
    "as_config_errors",
    "build",
    "check_training",
    "create_program",
    "data_version",
    "default_config",
    "differing",
    "evaluate",
    "evaluate_sets",
    "fit",
    "fit_together",
    "flatten",
    "import_weights",
    "init_state",
    "inputs",
    "jit_train_step",
    "make_train_step",
    "model_config",
    "model_parameters",
    "noise_config",
    "open_together",
    "optimizer",
    "own_modules",
    "parse_arguments",
    "read_config",
    "register_task",
    "reports",
    "require_weights",
    "restore",
    "run_config",
    "start_together",
    "starting_weights",
    "task_config",
    "train",
    "trains_with_noise",
    "unknown_field",
    "unused_fields",
    "validate",
]
