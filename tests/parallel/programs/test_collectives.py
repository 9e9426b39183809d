"""Exchanges between devices, read off compiled programs."""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from pnoise_jax import parallel
from pnoise_jax.parallel import Collective, find_collectives

P = PartitionSpec


def compiled(function, *shapes, specs):
    mesh = parallel.training_mesh(2)
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in zip(shapes, specs, strict=True)
    ]
    mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
    return find_collectives(jax.jit(mapped).lower(*arguments).compile().as_text(), 8)


@pytest.mark.parametrize(
    ("function", "expected", "sent"),
    [
        (lambda x: lax.psum(x, "data"), Collective("all-reduce", 4, 48, 1), 72),
        (lambda x: lax.psum(x, ("data", "fsdp")), Collective("all-reduce", 8, 48, 1), 84),
        (lambda x: lax.all_gather(x, "fsdp"), Collective("all-gather", 2, 96, 1), 48),
        (
            lambda x: lax.ppermute(x, "data", [(0, 1), (1, 0)]),
            Collective("collective-permute", 8, 48, 1),
            48,
        ),
        (
            lambda x: lax.psum_scatter(x, "data", tiled=True),
            Collective("reduce-scatter", 4, 48, 1),
            36,
        ),
    ],
    ids=["all-reduce of four", "of eight", "all-gather", "permute", "reduce-scatter"],
)
def test_what_a_program_exchanges(function, expected, sent):
    """Each device has (4, 3) float32: 48 bytes."""
    (collective,) = compiled(function, (32, 3), specs=(P(("data", "fsdp")),))
    assert collective == expected
    assert collective.sent == pytest.approx(sent)


def test_a_loop_counts_as_often_as_it_runs():
    def looped(x):
        return lax.scan(lambda x, _: (lax.psum(x, "data") / 4, None), x, length=7)[0]

    (collective,) = compiled(looped, (32, 3), specs=(P(("data", "fsdp")),))
    assert collective == Collective("all-reduce", 4, 48, 7)


@pytest.mark.parametrize(
    ("returned", "size"),
    [
        ("((f32[64]{0}), f32[64]{0})", 256),
        ("((f32[64]{0}, f32[32]{0}), (f32[64]{0}, f32[32]{0}))", 384),
        ("(f32[64]{0}, f32[32]{0})", 384),
        ("f32[64]{0}", 256),
    ],
)
def test_the_start_of_a_sum_may_return_its_operands_as_well(returned, size):
    text = (
        "ENTRY %main (x: f32[64]) -> f32[64] {\n  %x = f32[64]{0} parameter(0)\n"
        f"  %s = {returned} all-reduce-start(%x), replica_groups={{{{0,1,2,3}}}}\n}}\n"
    )
    assert find_collectives(text, 4) == [Collective("all-reduce", 4, size, 1)]


def test_one_device_exchanges_nothing():
    text = jax.jit(lambda x: x @ x).lower(jnp.ones((4, 4))).compile().as_text()
    assert find_collectives(text, 1) == []


# The forms that TPU programs have: one gather carried out by three kernels, a ring in a loop whose
# counter goes from 0 to 8 by steps of 2, of 16 devices named by the axes of a mesh, and a
# reduce-scatter that is written as an all-reduce of which a slice is kept.
TPU = pathlib.Path(__file__).with_name("tpu_program.txt").read_text()


def test_programs_for_tpus():
    collectives = find_collectives(TPU, 32)
    assert collectives == [
        Collective("reduce-scatter", 16, 2 * 2048 * 2048, 1),
        Collective("collective-permute", 32, 2 * 96 * 384, 4),
        Collective("all-gather", 16, 2 * 384 * 384, 1),
        Collective("all-reduce", 16, 4 * 128, 1),
    ]
    assert collectives[0].sent == 2 * 2048 * 2048 * 15 / 16


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ALL_REDUCE", Collective("all-reduce", 2, 2 * 16 * 2 * 128, 3)),
        ("ALL_GATHER", Collective("all-gather", 2, 2 * 2 * 16 * 2 * 128, 3)),
        ("ONE_TO_ONE", Collective("collective-permute", 2, 2 * 16 * 2 * 128, 3)),
    ],
)
def test_what_hosts_send_to_other_slices_of_tpus(kind, expected):
    """Not an exchange in the text, but a device's message to its host, in a loop of three here."""
    host = f'''channel_id=18, is_host_transfer=true, frontend_attributes={{\
_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{{1,2}}x{{0:7}}",\
_xla_megascale_transfer_type="{kind}"}}'''
    array = "bf16[16,2,128]{2,1,0:T(2,128)(2,1)}"
    trips = 'backend_config={"known_trip_count":{"n":"3"}}'
    text = f"""%body (p: {array}) -> {array} {{
  %send.8 = ({array}, u32[], token[]) send(%p, %token), {host}
  %recv.8 = ({array}, u32[], token[]) recv(%token), {host}
  %done = token[] send-done(%send.8), {host}
}}

ENTRY %main (p: {array}) -> {array} {{
  ROOT %loop = {array} while(%p), condition=%limit, body=%body, {trips}
}}
"""
    (collective,) = find_collectives(text, 16)
    assert (collective, collective.dtype) == (expected, "bf16")
    assert collective.groups == tuple((place, place + 8) for place in range(8))
    assert collective.is_between(2, 16)
    assert collective.sent_between(2, 16) == 3 * 2 * 16 * 2 * 128


def test_operations_of_one_channel_all_count():
    """As `lax.psum` under `shard_map` makes them; only kernels of one chain are one operation."""
    line = "  %x = f32[8]{0} all-reduce(%y), channel_id=1, replica_groups={{0,1}}, to_apply=%add"
    (collective,) = find_collectives(f"ENTRY %main () -> f32[8] {{\n{line}\n{line}\n}}\n", 2)
    assert (collective.count, collective.dtype) == (2, "f32")


FORMS = {
    "listed": "replica_groups={{0,2,4,6},{1,3,5,7}}",
    "by shape": "replica_groups=[2,4]<=[4,2]T(1,0)",
    "by axes": "replica_groups=mesh['data'=4,'fsdp'=2] {'data'}",
    "by axes of renumbered devices": (
        "replica_groups=mesh['a'=2,'b'=1,'c'=4], device_ids=([4,2]T(1,0)) {'c'}"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_groups_are_read_in_every_form(form):
    line = f"  %x = f32[8]{{0}} all-reduce(%y), channel_id=1, {FORMS[form]}, to_apply=%add"
    (collective,) = find_collectives(f"ENTRY %main () -> f32[8] {{\n{line}\n}}\n", 8)
    assert collective.groups == ((0, 2, 4, 6), (1, 3, 5, 7))
    assert collective.devices == 4


@pytest.mark.parametrize(
    ("result", "kind", "size"),
    [
        ("(f32[8]{0}, f32[64]{0:T(128)}, u32[]{:S(2)}, u32[]{:S(2)})", "all-gather", 256),
        ("((f32[8]{0}, f32[2]{0}), (f32[64]{0}, f32[16]{0}))", "all-gather", 320),
        ("((f32[8]{0}, f32[16]{0}), (f32[8]{0}, f32[16]{0}), u32[])", "collective-permute", 96),
        ("(f32[8]{0}, f32[16]{0})", "all-reduce", 96),
    ],
)
def test_the_start_of_an_operation_counts_its_results(result, kind, size):
    line = f"  %x = {result} {kind}-start(%y), channel_id=1, replica_groups={{{{0,1}},{{2,3}}}}"
    (collective,) = find_collectives(f"ENTRY %main () -> f32[8] {{\n{line}\n}}\n", 4)
    assert collective.size == size


@pytest.mark.parametrize(
    ("kind", "groups", "between"),
    [
        ("all-reduce", ((0, 4), (1, 5), (2, 6), (3, 7)), 1000),  # one device of each slice
        ("all-reduce", (tuple(range(8)),), 250),  # four of each: each sends a quarter
        ("all-gather", (tuple(range(8)),), 125),
        ("all-reduce", ((0, 1, 2, 3), (4, 5, 6, 7)), 0),  # within slices
        ("collective-permute", ((0, 1), (1, 0)), 0),
        ("collective-permute", ((3, 4), (4, 3)), 1000),
    ],
)
def test_what_is_sent_between_slices(kind, groups, between):
    """Two slices of four devices; 1000 bytes."""
    each = Collective(kind, max(map(len, groups)), 1000, 1, groups)
    assert each.sent_between(2, 8) == pytest.approx(between)
