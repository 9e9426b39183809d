"""Self-attention, equal to timm's."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import parallel
from pnoise_jax.models.parts import attention_kernels, products
from pnoise_jax.models.parts.layers import normal_init


class Attention(nn.Module, kw_only=True):
    """Multi-head self-attention, with one projection for queries, keys and values.

    Attributes:
      num_heads: number of heads; must divide the features of a token.
      qkv_bias: which projections have a bias: "all" of queries, keys and values; "query and value",
        as in BEiT; or "none", as in ConViT.
      qkv_init: initial values of the kernel of queries, keys and values.
      proj_init: initial values of the output projection.
      qk_norm: makes a norm over the features of a head, given its `name` and `dtype`; queries and
        keys have one each. None for no norms.
      dropout: rate of the dropout after the output projection.
      key_gate: makes a module, given `train` and its `name`, that maps the keys (batch, tokens,
        heads, dim / heads) to factors (batch, tokens, heads) by which the first token's attention
        to each token is multiplied after the softmax; None for no factors.
      queries: how many tokens, from the first on, attend to all tokens and are returned; None for
        all.
      kernel: the kernel that computes it, one of `attention_kernels.KERNELS`. With `queries`, XLA
        always computes it, but the requested kernel must be possible.
      train: whether dropout is on.
      dtype: dtype of the computation; parameters are float32.
    """

    num_heads: int
    qkv_bias: str = "all"
    qkv_init: nn.initializers.Initializer = normal_init
    proj_init: nn.initializers.Initializer = normal_init
    qk_norm: Callable[..., nn.Module] | None = None
    key_gate: Callable[..., nn.Module] | None = None
    queries: int | None = None
    dropout: float = 0.0
    kernel: str = "xla"
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (batch, tokens, dim) to the same shape, or to (batch, queries, dim)."""
        return self.attend(x)

    @nn.nowrap
    def attend(self, x: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """Attention with a bias added to its logits, such as one for positions.

        Args:
          x: (batch, tokens, dim).
          bias: (batch or 1, heads or 1, tokens or queries, tokens).

        Returns:
          (batch, tokens or queries, dim).
        """
        dim = x.shape[-1]
        if self.queries is not None:
            self._require_kernel(x, bias)
            if self._can_fold(bias):
                return self._attend_folded(x)
        qkv = products.dense(
            3 * dim,
            use_bias=self.qkv_bias == "all",
            kernel_init=self.qkv_init,
            dtype=self.dtype,
            name="qkv",
        )(x)
        qkv = self._by_head(qkv)
        if self.qkv_bias == "query and value":
            qkv = qkv + self._by_head(self._query_and_value_bias(dim)[None, None])
        return self.attend_projected(qkv, bias)

    @nn.nowrap
    def _require_kernel(self, x: jax.Array, bias: jax.Array | None) -> None:
        """Raises ValueError if the requested kernel could not compute the attention of x."""
        shape = (*x.shape[:2], self.num_heads, x.shape[-1] // self.num_heads)
        keys = jax.ShapeDtypeStruct(shape, self.dtype)
        choose_kernel(self.kernel, keys, bias, train=self.train, weighted=self.key_gate is not None)

    @nn.nowrap
    def _can_fold(self, bias: jax.Array | None) -> bool:
        """Whether nothing comes between projections and attention, or needs the projections."""
        plain = self.qk_norm is None and self.key_gate is None and bias is None
        return plain and self.qkv_bias != "query and value" and not parallel.reduces_kernels()

    @nn.nowrap
    def _attend_folded(self, x: jax.Array) -> jax.Array:
        """`attend` for few queries: the tokens themselves are keys and values, of a single head.

        A query's product with a key, q · (K x), is (Kᵀ q) · x, and a weighted sum of values is V
        times the weighted sum of the tokens. So two products per query replace two per token.
        """
        batch, _, dim = x.shape
        projection = FoldedProjection(
            dim=dim,
            num_heads=self.num_heads,
            use_bias=self.qkv_bias == "all",
            kernel_init=self.qkv_init,
            dtype=self.dtype,
            name="qkv",
        )
        x = x.astype(self.dtype)
        query = projection.fold(x[:, : self.queries])
        # `weigh_values` divides by the root of dim, not of dim / heads.
        query = math.sqrt(self.num_heads) * query.reshape(batch, -1, 1, dim)
        tokens = x[:, :, None]
        x = self.weigh_values(query, tokens, tokens, None, None)
        x = projection.unfold(x.reshape(batch, -1, self.num_heads, dim))
        return self._projected_back(x)

    @nn.nowrap
    def attend_projected(self, qkv: jax.Array, bias: jax.Array | None = None) -> jax.Array:
        """`attend`, given queries, keys and values, (batch, tokens, 3, heads, dim / heads)."""
        dim = math.prod(qkv.shape[3:])
        query, key, value = jnp.unstack(qkv, axis=2)
        query = query[:, : self.queries]
        if self.qk_norm is not None:
            query = self.qk_norm(dtype=self.dtype, name="q_norm")(query)
            key = self.qk_norm(dtype=self.dtype, name="k_norm")(key)
        gate = None
        if self.key_gate is not None:
            gate = self.key_gate(train=self.train, name="key_gate")(key)
        x = self.weigh_values(query, key, value, bias, gate).reshape(*query.shape[:2], dim)
        return self._projected_back(x)

    @nn.nowrap
    def _projected_back(self, x: jax.Array) -> jax.Array:
        """The output projection of the heads' results, (batch, tokens or queries, dim)."""
        dim = x.shape[-1]
        x = products.dense(dim, kernel_init=self.proj_init, dtype=self.dtype, name="proj")(x)
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)

    def weigh_values(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        bias: jax.Array | None,
        gate: jax.Array | None,
    ) -> jax.Array:
        """The attention itself; a separate method, so that an interceptor can change it.

        Args:
          query: (batch, tokens or queries, heads, dim / heads). With few queries and folded
            projections, (batch, queries * heads, 1, dim).
          key, value: (batch, tokens, heads, dim / heads), or the tokens, (batch, tokens, 1, dim).
          bias: as in `attend`.
          gate: factors (batch, tokens, heads) of the first token's attention, or None.

        Returns:
          An array with the shape of the queries.
        """
        kernel = "xla"  # cuDNN's was not tested with few queries
        if self.queries is None:
            kernel = choose_kernel(
                self.kernel, key, bias, train=self.train, weighted=gate is not None
            )
        if gate is None:
            return attention_kernels.attend(query, key, value, bias, kernel=kernel)
        scale = jnp.float32(query.shape[-1] ** -0.5)
        logits = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32)
        logits = scale * logits if bias is None else scale * logits + bias
        weights = nn.softmax(logits)
        gate = gate.astype(jnp.float32).transpose(0, 2, 1)
        weights = weights.at[:, :, 0].multiply(gate).astype(self.dtype)
        return jnp.einsum("bhts,bshd->bthd", weights, value)

    @nn.nowrap
    def _by_head(self, qkv: jax.Array) -> jax.Array:
        """Reshapes (batch, tokens, 3 * dim) to (batch, tokens, 3, heads, dim / heads).

        If matrix products are split over devices, the projection already returns that shape.
        """
        features = math.prod(qkv.shape[2:])
        return qkv.reshape(*qkv.shape[:2], 3, self.num_heads, features // (3 * self.num_heads))

    def _query_and_value_bias(self, dim: int) -> jax.Array:
        """The bias of queries, keys and values, (3 * dim,), zero for the keys."""
        query = self.param("q_bias", nn.initializers.zeros, (dim,), jnp.float32)
        value = self.param("v_bias", nn.initializers.zeros, (dim,), jnp.float32)
        return jnp.concatenate([query, jnp.zeros_like(query), value]).astype(self.dtype)


class FoldedProjection(nn.Module, kw_only=True):
    """The projection to queries, keys and values of an `Attention` that has few queries.

    Its parameters are the same as those of the dense layer that projects all tokens, in name and
    value.

    Attributes:
      dim: features of a token.
      num_heads: number of heads.
      use_bias: whether there is a bias. The keys' bias adds the same number to all logits of a
        query, which the softmax ignores, so it is never read.
      kernel_init: initial values of the kernel.
      dtype: dtype of the computation; parameters are float32.
    """

    dim: int
    num_heads: int
    use_bias: bool
    kernel_init: nn.initializers.Initializer
    dtype: Any = jnp.float32

    def setup(self) -> None:
        size = 3 * self.dim
        self.kernel = self.param("kernel", self.kernel_init, (self.dim, size), jnp.float32)
        if self.use_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (size,), jnp.float32)

    def fold(self, x: jax.Array) -> jax.Array:
        """The queries of x (batch, queries, dim), multiplied by the kernel of the keys.

        Returns:
          (batch, queries, heads, dim): their products with tokens equal those of the queries with
          the tokens' keys.
        """
        query = jnp.einsum("bqi,iho->bqho", x, self._kernel(0)) + self._bias(0)
        return jnp.einsum("bqho,iho->bqhi", query, self._kernel(1))

    def unfold(self, x: jax.Array) -> jax.Array:
        """The weighted sums of values, (batch, queries, dim), where the weights sum to 1.

        Args:
          x: the weighted sums of tokens, with the same weights, (batch, queries, heads, dim).
        """
        value = jnp.einsum("bqhi,iho->bqho", x, self._kernel(2)) + self._bias(2)
        return value.reshape(*value.shape[:2], self.dim)

    def _kernel(self, part: int) -> jax.Array:
        """The kernel of queries (part 0), keys (1) or values (2), (dim, heads, dim / heads)."""
        kernel = self.kernel.reshape(self.dim, 3, self.num_heads, -1)
        return kernel[:, part].astype(self.dtype)

    def _bias(self, part: int) -> jax.Array | float:
        """The bias of queries (part 0) or values (2), (1, 1, heads, dim / heads), or 0."""
        if not self.use_bias:
            return 0.0
        bias = self.bias.reshape(1, 1, 3, self.num_heads, -1)
        return bias[:, :, part].astype(self.dtype)


def choose_kernel(
    name: str, key: Any, bias: jax.Array | None, *, train: bool, weighted: bool = False
) -> Any:
    """The `kernel` argument for `attention_kernels.attend`.

    Args:
      name: one of `attention_kernels.KERNELS`.
      key: (batch, tokens, heads, dim / heads), or its shape and dtype.
      bias: as in `Attention.attend`.
      train: whether the model trains. An attack differentiates a model that does not train, so
        "auto" treats every attention as trained.
      weighted: whether weights are changed after the softmax.

    Raises:
      ValueError: as in `attention_kernels.choose`.
    """
    case = attention_kernels.case_here(
        key, bias=bias is not None, weighted=weighted, training=train or name == "auto"
    )
    return attention_kernels.choose(name, case)
