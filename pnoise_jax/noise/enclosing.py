"""Which of JAX's and Flax's transforms a module is called inside, read from the call stack."""

import sys
import types
from collections.abc import Callable, Collection
from typing import Any

# (module, function) of the frames that each transform leaves on the stack.
NN_JIT = {("flax.core.lift", "jitted")}
VMAP = {("jax._src.api", "vmap_f")}
LOOPS = {
    ("jax._src.lax.control_flow.loops", "scan"),  # lax.map calls it, too
    ("jax._src.lax.control_flow.loops", "while_loop"),  # and fori_loop this one
}
CUSTOM_DERIVATIVES = {  # while jax.jit, jax.checkpoint and others trace the function
    ("jax._src.interpreters.partial_eval", "process_custom_jvp_call"),
    ("jax._src.interpreters.partial_eval", "process_custom_vjp_call"),
}


def call(model: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls ``model``. `is_inside` does not look further out than the innermost such call."""
    return model(*args, **kwargs)


def is_inside(transforms: Collection[tuple[str, str]], *, lifted: bool = True) -> bool:
    """Whether the model that `call` calls has applied one of these transforms around this line.

    Args:
      transforms: such as `VMAP`, or a union of several.
      lifted: count those that Linen's transforms apply, such as ``nn.scan``, which hands each
        step its own keys.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not call.__code__:
        if (_module(frame), frame.f_code.co_name) in transforms and (
            lifted or not _by_linen(frame)
        ):
            return True
        frame = frame.f_back
    return False


def _by_linen(frame: types.FrameType | None) -> bool:
    """Whether the first caller outside JAX is one of Linen's transforms."""
    while frame is not None and _module(frame).startswith("jax."):
        frame = frame.f_back
    return frame is not None and _module(frame).startswith("flax.core.")


def _module(frame: types.FrameType) -> str:
    return frame.f_globals.get("__name__", "")
