"""Safe output to a terminal: text without markup, names without escape sequences."""

from collections.abc import Iterable
from typing import IO, Any

from rich import console as rich_console
from rich.console import Console
from rich.segment import Segment
from rich.text import Text


def printable(text: str, *, multiline: bool = False) -> str:
    r"""Text that a terminal shows literally, without moving, colouring or reordering anything.

    Control characters, ANSI escapes, bidirectional marks, line separators and lone surrogates
    become Python escapes: ``\x1b``, ``\u202e``, ``\n``. Printable characters stay, so applying the
    function twice has the same result as applying it once.

    Args:
      text: a name, a path or a message.
      multiline: keep line feeds and tabs; for a whole message, not for a name within one.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if multiline else ""
    return "".join(c if c.isprintable() or c in kept else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def create_console(
    *, quiet: bool = False, stderr: bool = False, file: IO[str] | None = None, **options: Any
) -> Console:
    """The console that all programs print on.

    Strings, including those in tables, are plain text: no markup, no emoji codes, no highlighting.
    `printable` escapes all other characters. Call it on the content of a `rich.text.Text` first,
    because rich measures the width of that before the console escapes it.

    Args:
      quiet: print nothing; for hosts other than the first.
      stderr: print to stderr instead of stdout.
      file: print to this file instead.
      **options: further options of `rich.console.Console`, such as its width.
    """
    return _Console(
        quiet=quiet,
        stderr=stderr,
        file=file,
        markup=False,
        highlight=False,
        emoji=False,
        **options,
    )


class _Console(Console):
    """A console that makes every string and segment printable."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Escapes a string early, so that table columns are as wide as their content."""
        return super().render_str(printable(text, multiline=True), **options)

    def render(
        self,
        renderable: rich_console.RenderableType,
        options: rich_console.ConsoleOptions | None = None,
    ) -> Iterable[Segment]:
        """Escapes all segments except rich's own control segments, which move the cursor."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=printable(segment.text, multiline=True))


def say(text: str, *, file: IO[str] | None = None) -> None:
    """Prints a message of one or more lines, which may contain any names.

    Raises:
      SystemExit: stdout is closed, as after ``| head``; a console raises it as well.
    """
    try:
        print(printable(text, multiline=True), file=file, flush=True)
    except BrokenPipeError:
        if file is not None:
            raise
        Console().on_broken_pipe()
