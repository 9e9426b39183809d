"""Memory traffic, counted in the text of small programs and of compiled ones."""

import jax
import jax.numpy as jnp
import pytest

from pnoise_jax.parallel import count_traffic

KB = 4 * 1024  # of x, (32, 32) float32

FUSED = """
%half (p.0: f32[32,32]) -> f32[32,32] {
  %p.0 = f32[32,32]{1,0} parameter(0)
  ROOT %n = f32[32,32]{1,0} negate(%p.0)
}

%rows (p.1: f32[32,32], i: s32[]) -> f32[2,32] {
  %p.1 = f32[32,32]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  %view = f32[32,32]{1,0} bitcast(%p.1)
  %first = f32[2,32]{1,0} dynamic-slice(%view, %i, %zero), dynamic_slice_sizes={2,32}
  ROOT %n.1 = f32[2,32]{1,0} negate(%first)
}

%update (p.2: f32[32,32], p.3: f32[2,32], i.1: s32[]) -> f32[32,32] {
  %p.2 = f32[32,32]{1,0} parameter(0)
  %p.3 = f32[2,32]{1,0} parameter(1)
  %i.1 = s32[] parameter(2)
  %n.2 = f32[2,32]{1,0} negate(%p.3)
  %new = f32[32,32]{1,0} dynamic-update-slice(%p.2, %n.2, %i.1, %i.1)
  ROOT %seen = f32[32,32]{1,0} bitcast(%new)
}
"""


def program(*lines: str, more: str = FUSED) -> str:
    entry = ["  %x = f32[32,32]{1,0} parameter(0)", "  %i = s32[] parameter(1)"]
    entry += ["  " + line for line in lines]
    arguments = "(x: f32[32,32], i: s32[]) -> f32[32,32]"
    return more + "\nENTRY %main.1 " + arguments + " {\n" + "\n".join(entry) + "\n}\n"


ROWS = 2 * 32 * 4


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["ROOT %y = f32[32,32]{1,0} fusion(%x), kind=kLoop, calls=%half"], 2 * KB),
        # An operand that is used twice is read once.
        (["ROOT %y = f32[32,32]{1,0} add(%x, %x)"], 2 * KB),
        (["%b = f32[1024]{0} bitcast(%x)", "ROOT %t = (f32[1024]{0}) tuple(%b)"], 0),
        (["ROOT %y = f32[2,32]{1,0} fusion(%x, %i), kind=kLoop, calls=%rows"], 2 * ROWS + 4),
        (["ROOT %y = f32[2,32]{1,0} slice(%x), slice={[0:2], [0:32]}"], 2 * ROWS),
        (
            [
                "%r = f32[2,32]{1,0} slice(%x), slice={[0:2], [0:32]}",
                "ROOT %y = f32[32,32]{1,0} fusion(%x, %r, %i), kind=kLoop, calls=%update",
            ],
            2 * ROWS + 2 * ROWS + 4,
        ),
        # The scratch memory of a library's kernel does not count.
        (
            [
                "%g = (f32[32,32]{1,0}, s8[4194304]{0}) custom-call(%x, /*index=1*/%x), "
                'custom_call_target="__cublas$gemm"',
                "ROOT %y = f32[32,32]{1,0} get-tuple-element(%g), index=0",
            ],
            2 * KB,
        ),
        # The start has its operand's type beside the result's; the end moves nothing.
        (
            [
                "%s = (f32[32,32]{1,0}, f32[64,32]{1,0}) all-gather-start(%x), dimensions={0}",
                "ROOT %y = f32[64,32]{1,0} all-gather-done(%s)",
            ],
            3 * KB,
        ),
        # A copy into a TPU's vector memory only reads.
        (["ROOT %y = f32[32,32]{1,0:T(8,128)S(1)} copy(%x)"], KB),
    ],
    ids=["fusion", "twice", "views", "rows", "slice", "in place", "scratch", "start", "vmem"],
)
def test_what_instructions_move(lines, expected):
    assert count_traffic(program(*lines)) == expected


def test_loops_and_calls_count_what_runs_inside():
    inside = """
%body (t: (f32[32,32])) -> (f32[32,32]) {
  %t = (f32[32,32]{1,0}) parameter(0)
  %e = f32[32,32]{1,0} get-tuple-element(%t), index=0
  %m = f32[32,32]{1,0} fusion(%e), kind=kLoop, calls=%half
  ROOT %u = (f32[32,32]{1,0}) tuple(%m)
}

%condition (t.1: (f32[32,32])) -> pred[] {
  %t.1 = (f32[32,32]{1,0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

%called (z: f32[32,32]) -> f32[32,32] {
  %z = f32[32,32]{1,0} parameter(0)
  ROOT %m.1 = f32[32,32]{1,0} fusion(%z), kind=kLoop, calls=%half
}
"""
    text = program(
        "%c = f32[32,32]{1,0} call(%x), to_apply=%called",
        "%s = (f32[32,32]{1,0}) tuple(%c)",
        "ROOT %w = (f32[32,32]{1,0}) while(%s), condition=%condition, body=%body, "
        'backend_config={"known_trip_count":{"n":"5"}}',
        more=FUSED + inside,
    )
    assert count_traffic(text) == (1 + 5) * 2 * KB


def text_of(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*arrays).compile().as_text()


def test_compiled_programs():
    x = (256, 256)
    size = 4 * 256**2
    assert count_traffic(text_of(lambda x: jnp.sin(x) * 2 + 1, x)) == 2 * size
    assert count_traffic(text_of(lambda x, y: x @ y, x, x)) == pytest.approx(3 * size, rel=0.01)
    picked = text_of(lambda x: x[:16] * 2, x)
    assert count_traffic(picked) == 2 * size / 16

    def stacked(x):
        return jax.lax.scan(lambda x, _: (jnp.sin(x), x), x, length=10)

    # Ten sines and ten copies into the stack, each with a copy at most of what is carried, and
    # the zeros of the stack; ten times the whole stack would be 200.
    counted = count_traffic(text_of(stacked, x)) / size
    assert 40 <= counted <= 75
