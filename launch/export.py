"""Writes a run's weights for other programs: pnoise export --workdir DIR [--out FILE]

The file is safetensors with timm's names and PyTorch's layouts; timm loads it with strict=True and
computes the same logits. It contains the moving average of the weights if the run kept one. Its
metadata name timm's model and its arguments, and the mean, std, interpolation and crop for the
images. The run's data set is not needed. An existing file is never overwritten.

Among the methods of domain adaptation, runs of TVT and SSRT cannot be exported: no model of timm
has their layers.
"""

from absl import flags

from pnoise_jax import weights
from pnoise_jax.terminal import say

from . import main

_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of the run.", required=True)
_OUT = flags.DEFINE_string("out", None, "File to write; default: model.safetensors in --workdir.")
_FORMAT = flags.DEFINE_enum("format", "timm", ["timm"], "Naming scheme of the arrays.")


def describe(exported: weights.Exported) -> str:
    """Describes the file that was written, and how to load it."""
    size = exported.path.stat().st_size / 1e6
    lines = [
        f"wrote {exported.path}: {exported.arrays} arrays, {size:.1f} MB, {exported.title}",
    ]
    if exported.mean_image is not None:
        lines.append(
            "note: the run subtracts a mean image, for which timm has no field, so the file states "
            f"no mean: subtract data.mean_image={exported.mean_image!r} from pixels in [0, 1]"
        )
    if exported.reference is None:
        lines.append("note: timm has no such model; the arrays have timm's names for its family")
    else:
        name, arguments = exported.reference
        keywords = "".join(f", {argument}={value!r}" for argument, value in arguments.items())
        lines += [
            "in Python:",
            "  import safetensors.torch, timm",
            f"  model = timm.create_model({name!r}{keywords})",
            f"  model.load_state_dict(safetensors.torch.load_file({str(exported.path)!r}))",
        ]
    return "\n".join(lines)


def _export() -> None:
    say(describe(weights.export(_WORKDIR.value, _OUT.value)))


if __name__ == "__main__":
    flags.adopt_module_key_flags(main)  # for --help
    main.run(_export)
