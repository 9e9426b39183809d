"""Matrix products split over devices: tensor parallelism.

As in Megatron-LM (https://arxiv.org/abs/1909.08053), the first of two consecutive products is split
by the columns of its kernel and the second by the rows of its own. What lies between them is split
by features, and only the result of the second is summed over the devices.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pnoise_jax.parallel.mesh import MODEL_AXIS, batch_axes, batch_parts, is_split
from pnoise_jax.parallel.reducing import replaced_fields

_FREE = PartitionSpec.UNCONSTRAINED


@dataclasses.dataclass(frozen=True)
class MatmulSplit:
    """Which matrix products of a model devices can share, by the paths of its dense layers.

    A path is that within a block, such as "mlp/fc1". Its first part is the branch; the products of
    a branch are split together.

    Attributes:
      by_head: project to queries, keys and values side by side; split by heads. Its result is
        (batch, tokens, 3, heads, dim / heads) while products are split.
      columns: split by the features of the result.
      rows: split by the features of the input; their results are whole on every device.
      sizes: fields of the model, which the devices that share the products must divide.
    """

    by_head: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    sizes: Mapping[str, int] = dataclasses.field(hash=False)

    def axis(self, path: str, ndim: int) -> int | None:
        """Along which axis an array of the training's state is split; None if along none.

        Args:
          path: of a parameter, or of what the optimiser keeps of it, whose path ends alike.
          ndim: axes of the array.
        """
        if ndim == 2 and _ends(path, self.by_head, "kernel"):
            return 0  # heads are not consecutive columns; rows are exchanged for heads in use
        if _ends(path, self.columns, "kernel" if ndim == 2 else "bias"):
            return ndim - 1 if ndim in (1, 2) else None
        return 0 if ndim == 2 and _ends(path, self.rows, "kernel") else None

    def layout(
        self, path: str, method: str, shape: tuple[int, ...], devices: int
    ) -> tuple[Any, ...]:
        """How a module's result is split along its axes behind the batch.

        Args:
          path: of the module.
          method: that was called.
          shape: of the result.
          devices: of a group.
        """
        behind = len(shape) - 1
        if _ends(path, self.by_head) and behind == 4:
            return (None, None, MODEL_AXIS, None)
        if _ends(path, self.columns) and shape[-1] % devices == 0:
            return (*[None] * (behind - 1), MODEL_AXIS)
        if _ends(path, self.rows):
            return (None,) * behind
        branches = {each.partition("/")[0] for each in (*self.by_head, *self.columns, *self.rows)}
        *above, last = path.split("/")
        inside = branches & set(above) or (last in branches and method != "__call__")
        return (_FREE if inside else None,) * behind

    def require(self, devices: int) -> None:
        """Raises ValueError unless groups of ``devices`` devices can share the products."""
        for field, size in self.sizes.items():
            if size % devices:
                largest = math.gcd(*self.sizes.values())
                fits = ", ".join(str(n) for n in range(1, largest + 1) if largest % n == 0)
                raise ValueError(
                    f"tensor_parallel={devices} does not divide {field}={size} of the model: "
                    f"choose one of {fits}"
                )


def _ends(path: str, names: tuple[str, ...], *leaf: str) -> bool:
    wanted = "|".join(re.escape("/".join((name, *leaf))) for name in names)
    return re.search(f"(^|/)({wanted})$", path) is not None if names else False


@contextlib.contextmanager
def lay_out(mesh: Mesh, split: MatmulSplit | None = None) -> Iterator[None]:
    """While a step is traced, the results of Linen modules lie on the devices as they should.

    All stay split by examples. Without it the compiler may split activations as the parameters are
    split, and exchange these, which are larger. Where ``split`` is given and the mesh has a model
    axis, what lies between two products is split by features as well, and all else is whole on
    every device of a group. Does nothing on a mesh that splits no parameters.
    """
    if not is_split(mesh):
        yield
        return
    group = mesh.shape.get(MODEL_AXIS, 1)
    split = split if group > 1 else None

    def interceptor(
        call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        path = "/".join(context.module.path)

        def keep(x: Any) -> Any:
            if not isinstance(x, jax.Array) or x.ndim < 2 or x.shape[0] % batch_parts(mesh):
                return x
            behind: tuple[Any, ...] = (None,) * (x.ndim - 1)
            if split is not None:
                behind = split.layout(path, context.method_name, x.shape, group)
            place = NamedSharding(mesh, PartitionSpec(batch_axes(mesh), *behind))
            return jax.lax.with_sharding_constraint(x, place)

        if split is not None and _ends(path, split.by_head):
            call = _project_by_head(call, context.module, mesh)
        return jax.tree.map(keep, call(*args, **kwargs))

    with nn.intercept_methods(interceptor):
        yield


def _project_by_head(call: Callable, module: nn.Module, mesh: Mesh) -> Callable:
    """The call of a dense layer to queries, keys and values, whose result is split by heads.

    As it is where the layer or its attention are of another kind, or the heads do not divide.
    """
    heads = getattr(module.parent, "num_heads", None)
    if type(module) is not nn.Dense or heads is None or heads % mesh.shape[MODEL_AXIS]:
        return call
    place = NamedSharding(mesh, PartitionSpec(None, None, MODEL_AXIS, None))

    def by_head(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], 3, heads, x.shape[-1] // (3 * heads))

    def project(*args: Any, **kwargs: Any) -> jax.Array:
        biases = []
        promote = module.promote_dtype

        def promote_by_head(inputs: Any, kernel: Any, bias: Any, *, dtype: Any) -> tuple:
            inputs, kernel, bias = promote(inputs, kernel, bias, dtype=dtype)
            biases.append(bias)
            kernel = jax.lax.with_sharding_constraint(by_head(kernel), place)
            return inputs, kernel, None  # the layer would add it to a flat result

        with replaced_fields(module, promote_dtype=promote_by_head):
            result = call(*args, **kwargs)
        (bias,) = biases
        return result if bias is None else result + by_head(bias)

    return project
