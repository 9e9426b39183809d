"""Which tests must notice a mistake in which file."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]

# Of each package its files or folders, and the test files or tests to run for each, quickest first.
# The longest matching path counts: a file of its own comes before its folder.
PACKAGES = {
    "noise": {
        "pnoise_jax/noise": (
            "noise/test_base.py",
            "noise/test_stochastic.py",
            "noise/test_taps.py",
            "noise/test_injection.py",
            "noise/test_linear_transform.py",
        ),
        "pnoise_jax/noise/chain.py": (
            "noise/test_base.py",
            "noise/test_taps.py",
        ),
        "pnoise_jax/noise/config_fields.py": (
            "noise/test_presets.py",
            "noise/test_injection.py",
        ),
        "pnoise_jax/noise/erase.py": (
            "noise/test_erase.py",
            "noise/test_taps.py",
        ),
        "pnoise_jax/noise/inject_nnx.py": ("noise/test_inject_nnx.py",),
        "pnoise_jax/noise/injection.py": (
            "noise/test_injection.py",
            "noise/test_taps.py",
            "noise/test_presets.py",
        ),
        "pnoise_jax/noise/intercept.py": ("noise/test_intercept.py",),
        "pnoise_jax/noise/linear_transform.py": ("noise/test_linear_transform.py",),
        "pnoise_jax/noise/presets.py": (
            "noise/test_presets.py",
            "noise/test_injection.py",
        ),
        "pnoise_jax/noise/quality.py": (
            "noise/test_quality.py",
            "noise/test_linear_transform.py",
        ),
        "pnoise_jax/noise/rows.py": (
            "noise/test_stochastic.py",
            "noise/test_quality.py",
            "noise/test_linear_transform.py",
        ),
        "pnoise_jax/noise/several.py": (
            "noise/test_injection.py",
            "noise/test_taps.py",
        ),
        "pnoise_jax/noise/stochastic.py": ("noise/test_stochastic.py",),
        "pnoise_jax/noise/taps.py": (
            "noise/test_taps.py",
            "noise/test_intercept.py",
        ),
    },
    "models": {
        "pnoise_jax/models": (
            "models/test_layers.py",
            "models/test_vit.py",
            "models/test_registry.py",
            "models/test_own_model.py",
            "models/test_golden.py",
        ),
        "pnoise_jax/models/beit.py": (
            "models/test_beit.py",
            "models/test_golden.py",
        ),
        "pnoise_jax/models/convit.py": (
            "models/test_convit.py",
            "models/test_golden.py",
        ),
        "pnoise_jax/models/resnet.py": (
            "models/test_resnet.py",
            "models/test_golden.py",
        ),
        "pnoise_jax/models/swin.py": (
            "models/test_swin.py",
            "models/test_golden.py",
        ),
        "pnoise_jax/models/registry.py": ("models/test_registry.py",),
        "pnoise_jax/models/vit.py": (
            "models/test_vit.py",
            "models/test_deit.py",
            "models/test_golden.py",
        ),
        "pnoise_jax/models/transformer.py": (
            "models/test_vit.py",
            "models/test_deit.py",
            "models/test_golden.py",
        ),
        "pnoise_jax/models/layers.py": (
            "models/test_layers.py",
            "models/test_vit.py",
            "models/test_golden.py",
        ),
    },
    "evaluation": {
        "pnoise_jax/evaluation": (
            "evaluation/test_batch_composition.py",
            "evaluation/test_predictions.py",
            "evaluation/test_metrics.py",
            "evaluation/test_views.py",
            "evaluation/test_evaluate.py",
            "evaluation/test_statistics.py",
        ),
        "pnoise_jax/evaluation/statistics.py": ("evaluation/test_statistics.py",),
        "pnoise_jax/evaluation/clean_pass.py": ("evaluation/test_representations.py",),
        "pnoise_jax/evaluation/representations.py": ("evaluation/test_representations.py",),
    },
    "step": {
        "pnoise_jax/training/step.py": (
            "training/test_task.py::test_what_a_loss_returns_wrongly_is_said",
            "training/test_step.py",
        ),
        "pnoise_jax/training/random_streams.py": (
            "training/test_task.py::test_streams_have_their_own_keys",
            "training/test_step.py",
        ),
        "pnoise_jax/training/mixup.py": ("training/test_mixup.py",),
        "pnoise_jax/training/classification.py": (
            "training/test_mixup.py",
            "training/test_step.py",
        ),
    },
    "weights": {
        "pnoise_jax/weights": (
            "weights/test_loading.py",
            "weights/test_matching.py",
            "weights/test_files.py",
            "weights/test_mismatches.py",
        ),
        "pnoise_jax/weights/adapt": (
            "weights/test_matching.py",
            "weights/test_mismatches.py",
            "weights/test_deit_and_beit.py",
            "weights/test_parity.py",
            "weights/test_fine_tuning.py",
        ),
        "pnoise_jax/weights/export.py": (
            "weights/test_export.py",
            "weights/test_runs.py",
        ),
        "pnoise_jax/weights/formats": (
            "weights/test_files.py",
            "weights/test_damaged_files.py",
            "weights/test_descriptions.py",
            "weights/test_hostile_files.py",
        ),
        "pnoise_jax/weights/formats/hub.py": ("weights/test_hub.py",),
        "pnoise_jax/weights/formats/run_weights.py": (
            "weights/test_runs.py",
            "weights/test_fine_tuning.py",
        ),
        "pnoise_jax/weights/infer_model.py": (
            "weights/test_descriptions.py",
            "weights/test_matching.py",
        ),
        "pnoise_jax/weights/likely_model.py": (
            "weights/test_descriptions.py",
            "weights/test_matching.py",
            "weights/test_mismatches.py",
        ),
        "pnoise_jax/weights/model_properties.py": (
            "weights/test_descriptions.py",
            "weights/test_matching.py",
        ),
        "pnoise_jax/weights/stated_options.py": ("weights/test_descriptions.py",),
        "pnoise_jax/weights/mismatches.py": (
            "weights/test_mismatches.py",
            "weights/test_descriptions.py",
        ),
        "pnoise_jax/weights/errors.py": (
            "weights/test_mismatches.py",
            "weights/test_matching.py",
        ),
        "pnoise_jax/weights/names": (
            "weights/test_names.py",
            "weights/test_matching.py",
            "weights/test_other_families.py",
            "weights/test_deit_and_beit.py",
            "weights/test_parity.py",
        ),
        "pnoise_jax/weights/preprocessing.py": (
            "weights/test_preprocessing.py",
            "weights/test_descriptions.py",
        ),
    },
    "image": {
        "pnoise_jax/data/image": ("data/image/test_images.py", "data/image/test_transforms.py"),
        "pnoise_jax/data/image/arguments.py": (
            "data/image/test_arguments.py",
            "data/image/test_transforms.py",
        ),
        "pnoise_jax/data/image/augmentations.py": (
            "data/image/test_augmentations.py",
            "data/image/test_transforms.py",
        ),
        "pnoise_jax/data/image/conversion.py": ("data/image/test_conversion.py",),
        "pnoise_jax/data/image/crops.py": (
            "data/image/test_transforms.py",
            "data/image/test_crop_geometry.py",
        ),
        "pnoise_jax/data/image/headers.py": (
            "data/image/test_images.py",
            "data/image/test_conversion.py",
        ),
        "pnoise_jax/data/image/mean_image.py": ("data/image/test_mean_image.py",),
        "pnoise_jax/data/image/pixel_operations.py": ("data/image/test_augmentations.py",),
        "pnoise_jax/data/image/rand_augment.py": (
            "data/image/test_augmentations.py",
            "data/image/test_transforms.py",
        ),
        "pnoise_jax/data/image/transforms.py": (
            "data/image/test_transforms.py",
            "data/image/test_arguments.py",
        ),
    },
}


def files(package: str) -> list[pathlib.Path]:
    """The source files of a package, as paths from the root; those that only import left out."""
    found = {
        file.relative_to(ROOT)
        for path in PACKAGES[package]
        for file in ([ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("*.py"))
    }
    return sorted(file for file in found if file.name != "__init__.py")


def tests_of(package: str, file: pathlib.Path) -> tuple[str, ...]:
    """The tests that must notice a mistake in a file, as paths from the root."""
    paths = [path for path in PACKAGES[package] if file.is_relative_to(path)]
    return tuple(f"tests/{test}" for test in PACKAGES[package][max(paths, key=len)])
