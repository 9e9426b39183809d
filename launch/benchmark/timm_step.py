"""timm's part of launch.benchmark models: the forward pass and training step in PyTorch."""

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
    compiled: bool = False,
) -> tuple[Callable[[], np.ndarray], Callable[[], float]]:
    """A call of the forward pass, which returns logits, and of a step, which returns its loss.

    Args:
      name, arguments: of `timm.create_model`.
      state: the state dict, loaded strictly.
      batch: "image" uint8 (batch, height, width, channels), "label" int32 (batch,).
      learning_rate, weight_decay: of AdamW.
      compiled: by `torch.compile` with its defaults, as timm's scripts do with --torchcompile; the
        first call of each then takes minutes.
    """
    # The extra "benchmark" has them.
    import timm  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    tensors = {key: torch.from_numpy(np.array(x)) for key, x in state.items()}
    evaluated = timm.create_model(name, drop_path_rate=0.0, **arguments).eval()
    trained = timm.create_model(name, drop_path_rate=0.0, **arguments).train()
    for model in (evaluated, trained):
        model.load_state_dict(tensors, strict=True)
        if compiled:
            model.compile()
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(batch["label"]).long()
    normalised = (images.float() / 255 - 0.5) / 0.5
    loss_of = torch.nn.CrossEntropyLoss()
    decayed = [x for x in trained.parameters() if x.ndim > 1]
    others = [x for x in trained.parameters() if x.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0}],
        lr=learning_rate,
    )

    @torch.inference_mode()
    def forward() -> np.ndarray:
        return evaluated(normalised).numpy()

    def advance() -> float:
        optimizer.zero_grad()
        loss = loss_of(trained((images.float() / 255 - 0.5) / 0.5), labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return forward, advance


def require_compiler() -> None:
    """torch.compile translates models for a CPU into C++.

    Raises:
      ValueError: there is no compiler that it would find.
    """
    named = shlex.split(os.environ.get("CXX", ""))  # such as "ccache g++"
    names = named[:1] or ["g++", "clang++"]
    if not any(map(shutil.which, names)):
        raise ValueError(
            f"--compiled: there is no {' or '.join(names)}, which torch.compile needs; install one"
        )
