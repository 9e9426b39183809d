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
    if kind is str:  # rich measures a Text before it is escaped
        assert file.getvalue().count(SHOWN) == 6
        assert len({len(line) for line in file.getvalue().splitlines() if line[0] in "┃┏│"}) == 1


@pytest.mark.parametrize("width", [10, 40, 80, 200])
@pytest.mark.parametrize("no_wrap", [True, False])
def test_a_table_is_never_cut(width, no_wrap):
    file = io.StringIO()
    table = Table(title="a title of several words")
    table.add_column("cell")
    table.add_column("a_path", overflow="fold")
    for number in range(8):
        table.add_column(f"column_{number}", justify="right", no_wrap=no_wrap)
    numbers = [f"-{number}2.34 ± 11.8" for number in range(8)]
    table.add_row("optimizer.learning_rate=0.001, noise.strength=0.5", "/a/b" * 9, *numbers)
    create_console(file=file, width=width).print(table)
    words = file.getvalue().split()
    for number in range(8):
        assert f"-{number}2.34" in words
        assert f"column_{number}" in words
    assert words.count("11.8") == 8
    assert {"optimizer.learning_rate=0.001,", "noise.strength=0.5", "/a/b" * 9} <= {*words}


def test_a_table_wraps_between_words_to_fit():
    file = io.StringIO()
    table = Table("a", "b")
    table.add_row("some words " * 9, "1.25 more words")
    create_console(file=file, width=40).print(table)
    assert max(map(len, file.getvalue().splitlines())) <= 40


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
def test_output_that_nobody_reads_ends_the_program_silently(printing):
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
