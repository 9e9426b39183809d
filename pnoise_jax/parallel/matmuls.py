"""Matrix products split over devices: tensor parallelism.

As in Megatron-LM (https://arxiv.org/abs/1909.08053), the first of two consecutive products is split
by the columns of its kernel and the second by the rows of its kernel. Activations between them are
split by features, and only the result of the second is summed over the devices.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatmulSplit:
    """Which matrix products of a model devices can share, by the paths of its dense layers.

    Paths are relative to a block, such as "mlp/fc1".

    Attributes:
      by_head: layers that project to queries, keys and values side by side; split by heads. While
        products are split, the result is (batch, tokens, 3, heads, dim / heads).
      fused: like `by_head`, with `sizes["mlp_dim"]` hidden features of an MLP before the queries.
        While products are split, there are two results, the hidden features and the rest.
      columns: layers split by the features of the result.
      rows: layers split by the features of the input; their results are whole on every device.
      between: modules whose results lie between two products, or that contain both.
      sizes: fields of the model that the number of devices sharing the products must divide:
        "num_heads" and "mlp_dim".
    """

    by_head: tuple[str, ...] = ()
    fused: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    sizes: Mapping[str, int] = dataclasses.field(hash=False)

    def axis(self, path: str, ndim: int) -> int | None:
        """The axis along which an array of the training state is split; None if it is not split.

        Args:
          path: of a parameter, or of its optimiser state, whose path ends the same way.
          ndim: number of axes of the array.
        """
        kernel = ndim == 2
        if kernel and _ends(path, self.by_head + self.fused, "kernel"):
            return 0  # heads are not consecutive columns; in use, rows are exchanged for heads
        if kernel and _ends(path, self.columns, "kernel"):
            return 1
        if ndim == 1 and _ends(path, self.columns, "bias"):
            return 0
        return 0 if kernel and _ends(path, self.rows, "kernel") else None

    def layout(self, path: str, shape: tuple[int, ...], devices: int) -> tuple[Any, ...]:
        """How a module's result is split along its axes after the batch.

        Args:
          path: of the module.
          shape: of the result.
          devices: number of devices in a group.
        """
        trailing = len(shape) - 1
        if _ends(path, self.by_head + self.fused) and trailing == 4:
            return (None, None, MODEL_AXIS, None)
        if _ends(path, self.columns + self.fused) and shape[-1] % devices == 0:
            return (*[None] * (trailing - 1), MODEL_AXIS)
        if _ends(path, self.rows):
            return (None,) * trailing
        return (_FREE if set(self.between) & set(path.split("/")) else None,) * trailing

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
    """While a step is traced, constrains how the results of Linen modules lie on the devices.

    All stay split by examples. Otherwise the compiler might split activations the way parameters
    are split, and exchange the activations, which are larger. If ``split`` is given and the mesh
    has a model axis, results between two products are split by features as well, and all others are
    whole on every device of a group. On a mesh that splits no parameters, nothing is constrained; a
    mesh of one device becomes JAX's abstract mesh, so that noise knows where all rows are.
    """
    if mesh.size == 1:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            yield
        return
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
            trailing: tuple[Any, ...] = (None,) * (x.ndim - 1)
            if split is not None:
                trailing = split.layout(path, x.shape, group)
            place = NamedSharding(mesh, PartitionSpec(batch_axes(mesh), *trailing))
            return jax.lax.with_sharding_constraint(x, place)

        if split is not None and _ends(path, split.by_head):
            heads = getattr(context.module.parent, "num_heads", 0)
            call = _project_by_head(call, context.module, mesh, heads)
        elif split is not None and _ends(path, split.fused):
            sizes = split.sizes
            call = _project_by_head(
                call, context.module, mesh, sizes["num_heads"], hidden=sizes["mlp_dim"]
            )
        return jax.tree.map(keep, call(*args, **kwargs))

    with nn.intercept_methods(interceptor):
        yield


def _project_by_head(
    call: Callable, module: nn.Module, mesh: Mesh, heads: int, *, hidden: int = 0
) -> Callable:
    """Changes the call of a layer for queries, keys and values to split its result by heads.

    Returns the call unchanged if the layer is not an `nn.Dense`, or if the devices do not divide
    the heads and hidden features.

    Args:
      call: the call of the layer.
      module: the layer.
      mesh: a mesh with a model axis.
      heads: number of heads of the attention.
      hidden: number of features before the queries, which become a separate result, split as well.
    """
    devices = mesh.shape[MODEL_AXIS]
    if not isinstance(module, nn.Dense) or not heads or heads % devices or hidden % devices:
        return call

    def keep(x: jax.Array, *axes: Any) -> jax.Array:
        place = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.lax.with_sharding_constraint(x, place)

    def by_head(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], 3, heads, x.shape[-1] // (3 * heads))

    def project(*args: Any, **kwargs: Any) -> Any:
        biases = []
        promote, product = module.promote_dtype, module.dot_general or jax.lax.dot_general

        def promote_kernel(inputs: Any, kernel: Any, bias: Any, *, dtype: Any) -> tuple:
            inputs, kernel, bias = promote(inputs, kernel, bias, dtype=dtype)
            biases.append(bias)
            # Split by rows, so the gradient is split by rows as well before the optimiser reads it.
            return inputs, keep(kernel, MODEL_AXIS, _FREE), None

        def products(x: jax.Array, kernel: jax.Array, *options: Any, **named: Any) -> Any:
            head_kernel = keep(by_head(kernel[:, hidden:]), None, None, MODEL_AXIS, None)
            results = (product(x, head_kernel, *options, **named),)
            if hidden:
                columns = keep(kernel[:, :hidden], None, MODEL_AXIS)
                results = product(x, columns, *options, **named), *results
            return results

        with replaced_fields(module, promote_dtype=promote_kernel, dot_general=products):
            *before, result = call(*args, **kwargs)
        (bias,) = biases  # the layer would add it to a flat result
        if bias is not None:
            result += by_head(bias[hidden:])
            before = [each + bias[:hidden] for each in before]
        return (*before, result) if hidden else result

    return project
