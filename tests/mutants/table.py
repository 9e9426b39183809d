"""Which tests must notice a mistake in which file."""

import dataclasses
import pathlib

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Package:
    """Some files, and their tests.

    Attributes:
      source: their folder.
      tests: the folder of the tests, in tests/.
      by_path: the tests for a file or folder in the source, or for all of it, "": "base" is
        test_base.py, "base::test_name" is one test in it, and "launch/run" is another folder's
        test_run.py; quickest first. The longest path that fits a file counts.
    """

    source: str
    tests: str
    by_path: dict[str, str]


PACKAGES = {
    "noise": Package(
        "pnoise_jax/noise",
        "noise",
        {
            "": "base stochastic taps injection linear_transform",
            "chain.py": "base taps",
            "injecting/config_fields.py": "presets injection",
            "enclosing.py": "intercept inject_nnx",
            "erase.py": "erase taps",
            "information": "information",
            "injecting/inject_nnx.py": "inject_nnx",
            "injecting/injection.py": "injection taps presets",
            "injecting/intercept.py": "intercept",
            "injecting/paths.py": "intercept inject_nnx",
            "linear_transform.py": "linear_transform",
            "pixels.py": "pixels stochastic",
            "injecting/presets.py": "presets injection",
            "quality.py": "quality linear_transform",
            "rows.py": "stochastic quality linear_transform",
            "injecting/several.py": "injection taps",
            "stochastic.py": "stochastic",
            "injecting/taps.py": "taps intercept",
        },
    ),
    "models": Package(
        "pnoise_jax/models",
        "models",
        {
            "": "layers vit last_block registry own_model golden",
            "parts/attention.py": "attention attention_kernels last_block vit",
            "parts/attention_kernels.py": "attention_kernels",
            "beit.py": "beit golden registry",
            "convit.py": "convit last_block golden registry",
            "parts/convolutions.py": "convolutions davit maxvit resnet golden",
            "davit.py": "davit golden",
            "parts/device.py": "products attention_kernels",
            "parts/layers.py": "layers vit golden",
            "maxvit.py": "maxvit golden",
            "parallel_vit.py": "parallel_vit golden",
            "built_in.py": "registry",
            "parts/products.py": "products",
            "registry.py": "registry",
            "resnet.py": "resnet golden",
            "swin.py": "swin swin_v2 golden",
            "swin_v2.py": "swin_v2 golden",
            "transformer.py": "vit last_block deit golden denoising/decoder",
            "vit.py": "vit last_block deit golden",
            "parts/windows.py": "swin swin_v2 davit maxvit golden",
            "parts/winograd.py": "convolutions",
        },
    ),
    "evaluation": Package(
        "pnoise_jax/evaluation",
        "evaluation",
        {
            "": "batch_composition predictions metrics views statistics evaluate",
            "clean_pass.py": "representations",
            "correctness.py": "correctness evaluate",
            "corruption_error.py": "corruption_error",
            "evaluate.py": "views evaluate representations",
            "protocols.py": "evaluate training/draws",
            "representations.py": "representations",
            "statistics.py": "statistics",
        },
    ),
    "step": Package(
        "pnoise_jax/training",
        "training",
        {
            "classification.py": (
                "task::test_classification_smooths_and_mixes_as_the_config_says "
                "task::test_classification_is_the_default step noise_labels noise_label_steps"
            ),
            "step/mixup.py": "mixup",
            "step/random_streams.py": "task::test_streams_have_their_own_keys step",
            "step/step.py": "task::test_an_invalid_result_of_a_loss_is_named step parallel/fsdp",
        },
    ),
    "weights": Package(
        "pnoise_jax/weights",
        "weights",
        {
            "": "loading matching files mismatches",
            "adapt": "matching mismatches misnumbered deit_and_beit parity fine_tuning",
            "adapt/head.py": "descriptions matching",
            "errors.py": "mismatches matching",
            "export.py": "export runs launch/export",
            "formats": "files damaged_files descriptions hostile_files",
            "formats/hub.py": "hub",
            "formats/run_weights.py": "runs fine_tuning",
            "infer_model.py": "kinds_of_vit swin_v2 descriptions matching mismatches",
            "likely_model.py": "descriptions matching mismatches",
            "mismatches.py": "mismatches descriptions",
            "model_properties.py": "descriptions matching",
            "names/other_families.py": "other_families",
            "names": "names kinds_of_vit davit swin_v2 matching deit_and_beit parity",
            "names/timm_layout.py": "export names",
            "names/timm_models.py": "export",
            "preprocessing.py": "preprocessing descriptions",
            "stated_options.py": "kinds_of_vit swin_v2 descriptions",
        },
    ),
    "image": Package(
        "pnoise_jax/data/image",
        "data/image",
        {
            "": "images transforms",
            "arguments.py": "arguments transforms",
            "augmentations.py": "augmentations transforms",
            "conversion.py": "conversion",
            "crops.py": "transforms crop_geometry",
            "headers.py": "images conversion",
            "images.py": "images transforms crop_geometry",
            "mean_image.py": "mean_image",
            "pixel_operations.py": "augmentations",
            "rand_augment.py": "augmentations transforms",
            "transforms.py": "transforms arguments",
        },
    ),
}


def files(package: str) -> list[pathlib.Path]:
    """The source files of a package, as paths from the root, without `__init__.py`."""
    source, paths = ROOT / PACKAGES[package].source, PACKAGES[package].by_path
    all_files = source.rglob("*.py") if "" in paths else (source / path for path in paths)
    return sorted(file.relative_to(ROOT) for file in all_files if file.name != "__init__.py")


def tests_of(package: str, file: pathlib.Path) -> tuple[str, ...]:
    """The tests that must notice a mistake in a file, as arguments of pytest."""
    row = PACKAGES[package]
    inside = file.relative_to(row.source)
    names = row.by_path[max((path for path in row.by_path if inside.is_relative_to(path)), key=len)]
    return tuple(_path(row.tests, name) for name in names.split())


def _path(folder: str, name: str) -> str:
    module, colons, test = name.partition("::")
    other, _, module = module.rpartition("/")
    (file,) = (ROOT / "tests" / (other or folder)).rglob(f"test_{module}.py")
    return f"{file.relative_to(ROOT)}{colons}{test}"
