"""Safe output to a terminal: text without markup, names without escape sequences."""

from collections.abc import Iterable
from typing import IO, Any

from rich import console as rich_console
from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_UNLIMITED = 10**6  # characters of a line


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

    A table is printed wider than the console rather than with any word or number cut short.

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
    """A console that makes every string and segment printable, and cuts no table."""

    def print(self, *objects: Any, crop: bool = True, **options: Any) -> None:
        """Prints as `Console.print` does, but keeps every word of a table whole.

        rich itself shortens words to fit a narrow console, and then cuts off the right edge.
        """
        tables = [each for each in objects if isinstance(each, Table)]
        for table in tables:
            self._keep_words_whole(table)
        super().print(*objects, crop=crop and not tables, **options)

    def _keep_words_whole(self, table: Table) -> None:
        """Makes each column as wide as its longest word, or its longest line if it cannot wrap."""
        unlimited = self.options.update(width=_UNLIMITED)
        for column in table.columns:
            parts = [part for part in (column.header, *column.cells) if part]
            sizes = [Measurement.get(self, unlimited, part) for part in parts]
            needed = (size.maximum if column.no_wrap else size.minimum for size in sizes)
            column.min_width = max(column.min_width or 0, *needed, 1)
        width = Measurement.get(self, unlimited, table).minimum
        if width > self.width:
            table.width = width
            for column in table.columns:
                column.width = column.min_width

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
