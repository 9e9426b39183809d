"""Tests of pnoise_jax.terminal."""

import io
import subprocess
import sys

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pnoise_jax.terminal import create_console, printable

HOSTILE = "[/red] [a-z]+ :smile: \x1b[31mred\x1b]0;title\x9b2J \u202etxt.exe\u2028 \ud800 \x7f"
SHOWN = "[/red] [a-z]+ :smile: \\x1b[31mred\\x1b]0;title\\x9b2J \\u202etxt.exe\\u2028 \\ud800 \\x7f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{CJK UNIFIED IDEOGRAPH-4E2D} $x_1$ a\\b", None),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x00\x07\x08", "\\x00\\x07\\x08"),
        ("\u2066\u200f\ufeff", "\\u2066\\u200f\\ufeff"),
        ("\U000e0041", "\\U000e0041"),  # an invisible tag
        (HOSTILE, SHOWN),
    ],
)
def test_printable_shows_what_a_terminal_would_act_on(text, shown):
    assert printable(text) == (text if shown is None else shown)
    assert printable(printable(text)) == printable(text)
    printable(text).encode()


def test_a_message_keeps_its_lines():
    assert printable("a\n\tb\x1b\r\n", multiline=True) == "a\n\tb\\x1b\\r\n"


@pytest.mark.parametrize("kind", [str, Text])
def test_a_console_prints_text_as_it_is(kind):
    file = io.StringIO()
    console = create_console(file=file, force_terminal=True, width=200, color_system=None)
    table = Table(title=kind(HOSTILE))
    table.add_column(kind(HOSTILE))
    table.add_row(kind(HOSTILE))
    console.print(table)
    console.print(kind(HOSTILE))
    console.print(kind(HOSTILE), style="red")
    console.rule(kind(HOSTILE))
    assert file.getvalue().count(SHOWN[:9]) == 6
    assert not set("\x1b\x9b\u202e\u2028\ud800") & {*file.getvalue()}
    if kind is str:  # of a Text, rich measures what it holds
        assert file.getvalue().count(SHOWN) == 6
        assert len({len(line) for line in file.getvalue().splitlines() if line[0] in "┃┏│"}) == 1


def test_a_progress_bar_moves_the_cursor_and_its_text_does_not():
    file = io.StringIO()
    console = create_console(file=file, force_terminal=True, width=200, color_system=None)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task(printable(HOSTILE))
        progress.add_task(HOSTILE)
    assert SHOWN in file.getvalue()
    assert "\x1b[31m" not in file.getvalue()
    assert "\x1b[2K" in file.getvalue()  # rich's own


def test_a_quiet_console_prints_nothing(capsys):
    create_console(quiet=True).print("x")
    create_console(stderr=True).print("y")
    assert capsys.readouterr() == ("", "y\n")


@pytest.mark.parametrize("printing", ["say('x')", "create_console().print('x')"])
def test_output_that_nobody_reads_ends_the_program_in_silence(printing):
    """As after ``| head``."""
    program = f"from pnoise_jax.terminal import create_console, say; input(); {printing}"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate("\n", timeout=100)
    assert (process.returncode, errors) == (1, "")
