"""Runs the authors' published ViT code in place: python their_code.py JOB.json

For a Python with torch, torchvision, timm and safetensors; `comparison` starts it and describes the
job. None of their files is changed or copied, and none of their lines is replaced. Only objects
that their code imports are replaced, in memory, by `replace_imports` and `run_program`.
"""

import importlib
import json
import os
import random
import runpy
import sys
import types
import warnings

import numpy as np
import torch
from safetensors.torch import load_file

# Their code imports these, but calls none of them in what is run here.
UNUSED = (
    "accelerate",
    "accelerate.logging",
    "albumentations",
    "cv2",
    "einops",
    "einops.layers",
    "einops.layers.torch",
    "matplotlib",
    "matplotlib.pyplot",
    "networkx",
    "seaborn",
)
# Where timm 0.6 had what timm 1.0 has in timm.layers.
OLD_TIMM = ("timm.models.layers.helpers", "timm.models.layers.weight_init")


class Unused(types.ModuleType):
    """A module from which anything can be imported and nothing can be called."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_, **__):
            raise RuntimeError(f"{self.__name__}.{name} was called, and only a stand-in is here")

        return refuse


class Writer:
    """Stands in for TensorBoard's SummaryWriter: keeps the values in `logged`."""

    logged = {}  # noqa: RUF012 - one for all writers

    def __init__(self, *_):
        pass

    def add_scalar(self, name, value, step):
        self.logged[f"{name}/{step}"] = float(value)

    def close(self):
        pass


def module(name, **contents):
    """Registers a module with only ``contents`` in it."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)


def set_seed(seed):
    """What accelerate.utils.set_seed does on one CPU."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - theirs is the global state
    torch.manual_seed(seed)


def import_torchvision():
    """Imports torchvision, even a build for CUDA beside a torch for CPUs.

    Its compiled operators do not load then, and registering fakes of operators that were never
    defined fails. None is called here.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        import_torchvision.library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            import_torchvision.library.define(operator + schema)
        import torchvision  # noqa: F401


def replace_imports():
    """Stand-ins for modules that are not needed, or that timm has moved."""
    for name in UNUSED:
        sys.modules[name] = Unused(name)
    module("accelerate.utils", set_seed=set_seed)
    module("tqdm", tqdm=lambda iterable, **_: iterable)
    module("torch.utils.tensorboard", SummaryWriter=Writer)
    warnings.filterwarnings("ignore", category=FutureWarning)  # timm's, about its old paths
    for name in OLD_TIMM:
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = importlib.import_module("timm.layers")


def run_model(job):
    """Logits of their model class on given images in given orders, (n, classes) by case."""
    vit = importlib.import_module("ViT")
    model = vit.NoiseViT(
        patch_size=job["patch_size"], num_classes=job["num_classes"], **job["sizes"]
    )
    model.load_state_dict(load_file(job["weights"]))
    model.eval()
    stored = np.load(job["images"])["test_images"]
    images = (torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    logits_by_case = {}
    with torch.no_grad():
        for name, case in job["cases"].items():
            batches = images[torch.tensor(case["order"])].split(job["batch_size"])
            options = {"noise_layer_index": job["sizes"]["depth"] - 1, "noise_type": "linear"}
            logits = [model(batch, train=case["noise"], **options) for batch in batches]
            logits_by_case[name] = torch.cat(logits).numpy()
    np.savez(job["out"], **logits_by_case)


class Stored(torch.utils.data.Dataset):
    """Stands in for torchvision's CIFAR10: other images, read in their own order as it does."""

    file = ""

    def __init__(self, root, train, transform, download):
        del root, download
        split = "train" if train else "test"
        with np.load(self.file) as arrays:
            self.images, self.labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i])), int(self.labels[i])


def run_program(job):
    """Runs all of Main.py, with what it imports replaced, and saves the results."""
    import timm
    from torchvision import datasets, transforms

    vit, weights = importlib.import_module("ViT"), load_file(job["weights"])
    original, built, logits = vit.NoiseViT, [], []

    def model_of_our_size(**arguments):
        model = original(**(arguments | job["sizes"]))
        model.register_forward_hook(
            lambda model, _, output: None if model.training else logits.append(output.detach())
        )
        built.append(model)
        return model

    vit.NoiseViT = model_of_our_size
    timm.create_model = lambda *_, **__: types.SimpleNamespace(state_dict=lambda: dict(weights))
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor
    if job["order"] is not None:  # of the test set only; the data loader itself is theirs
        torch.utils.data.SequentialSampler = lambda _: job["order"]
    if job["cifar"]:  # in this branch, the code of their program contains the side 224
        Stored.file, datasets.CIFAR10 = job["images"], Stored
        for name in ("Resize", "RandomResizedCrop"):
            resize = getattr(transforms, name)
            setattr(transforms, name, lambda _, r=resize, **k: r((job["side"],) * 2, **k))
    runpy.run_path(os.path.join(job["code"], "Main.py"), run_name="__main__")
    (model,) = built
    unchanged = all(torch.equal(tensor, weights[k]) for k, tensor in model.state_dict().items())
    logged = {name.replace("/", "_"): value for name, value in Writer.logged.items()}
    np.savez(job["out"], logits=torch.cat(logits).numpy(), unchanged=unchanged, **logged)


def main():
    """Runs the job whose file is named on the command line."""
    with open(sys.argv[1]) as file:
        job = json.load(file)
    sys.dont_write_bytecode = True  # their directory stays as it is
    sys.path[0] = job["code"]
    sys.argv = ["Main.py", *job["arguments"]]
    import_torchvision()
    replace_imports()
    if job["program"]:
        run_program(job)
    else:
        run_model(job)


if __name__ == "__main__":
    main()
