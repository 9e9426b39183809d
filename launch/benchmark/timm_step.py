"""timm's forward pass and training step in PyTorch, for pnoise benchmark models."""

import functools
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def prepare(
    name: str,
    arguments: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    *,
    learning_rate: float,
    weight_decay: float,
    bfloat16: bool = False,
    compiled: bool = False,
    gpu: bool = False,
) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]:
    """Returns functions that make forward passes and training steps, several in a row.

    The first returns logits (batch, classes), the second the loss of its last step, and with
    ``norm=True`` also the norm of its gradient, (1,) or (2,). Each model is created when its
    function is first called.

    Args:
      name, arguments: arguments of `timm.create_model`.
      state: the state dict, loaded strictly.
      batch: "image" uint8 (batch, height, width, channels), "label" int32 (batch,).
      learning_rate, weight_decay: options of AdamW.
      bfloat16: whether both run under `torch.autocast`, as with timm's --amp-dtype bfloat16.
      compiled: whether to use `torch.compile` with its defaults, as timm's scripts do with
        --torchcompile; the first call of each function then takes minutes.
      gpu: whether they run on the first GPU, in channels-last layout and with PyTorch's options for
        speed: cuDNN's search for algorithms, TF32, and the fused AdamW.
    """
    # The extra "benchmark" installs them.
    import timm  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    device = torch.device("cuda" if gpu else "cpu")
    layout = torch.channels_last if gpu else torch.contiguous_format
    if gpu:
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    tensors = {key: torch.from_numpy(np.array(x)) for key, x in state.items()}
    pixels = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)
    images = pixels.contiguous(memory_format=layout).to(device)
    labels = torch.from_numpy(batch["label"]).long().to(device)
    loss_of = torch.nn.CrossEntropyLoss()

    def autocast():
        return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)

    def create() -> Any:
        model: Any = timm.create_model(name, drop_path_rate=0.0, **arguments)
        model.load_state_dict(tensors, strict=True)
        model = model.to(device=device, memory_format=layout)
        if compiled:
            model.compile()
        return model

    def normalise() -> Any:
        return (images.float() / 255 - 0.5) / 0.5

    @functools.cache
    def evaluated() -> Any:
        return create().eval(), normalise()

    @functools.cache
    def trained() -> Any:
        model = create().train()
        decayed = [x for x in model.parameters() if x.ndim > 1]
        others = [x for x in model.parameters() if x.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0},
        ]
        return model, torch.optim.AdamW(groups, lr=learning_rate, fused=gpu or None)

    @torch.inference_mode()
    def forward(times: int, *, norm: bool = False) -> np.ndarray:
        del norm  # a forward pass has no gradient
        model, normalised = evaluated()
        for _ in range(times):
            with autocast():
                logits = model(normalised)
        return logits.float().cpu().numpy()

    def advance(times: int, *, norm: bool = False) -> np.ndarray:
        model, optimizer = trained()
        for _ in range(times):
            optimizer.zero_grad()
            with autocast():
                loss = loss_of(model(normalise()), labels)
            loss.backward()
            optimizer.step()
        results = [loss.detach()]
        if norm:
            gradients = [x.grad for x in model.parameters() if x.grad is not None]
            results.append(torch.nn.utils.get_total_norm(gradients))
        return torch.stack(results).cpu().numpy()

    return forward, advance


def peak_memory(call: Callable[[], Any]) -> int:
    """The bytes on the GPU at the peak of a call, including what was allocated before it.

    Memory that PyTorch caches but does not use is released before and after the call.
    """
    import torch  # pyright: ignore[reportMissingImports]

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    return peak


def require_gpu() -> None:
    """Raises ValueError unless PyTorch sees a GPU."""
    import torch  # pyright: ignore[reportMissingImports]

    if not torch.cuda.is_available():
        raise ValueError(
            f"JAX runs on a GPU, which PyTorch {torch.__version__} does not see: install a "
            "PyTorch for CUDA, or set JAX_PLATFORMS=cpu to compare on the CPU"
        )


def require_compiler() -> None:
    """Raises ValueError if there is no compiler that torch.compile would find.

    torch.compile translates models for a CPU into C++, and calls GPU kernels from compiled C.
    """
    named = shlex.split(os.environ.get("CXX", ""))  # such as "ccache g++"
    names = named[:1] or ["g++", "clang++"]
    if not any(map(shutil.which, names)):
        raise ValueError(
            f"--timm=compiled: there is no {' or '.join(names)}, which torch.compile needs; "
            "install one"
        )
