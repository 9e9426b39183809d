"""What reaches a terminal: text without markup, names without escapes."""

from collections.abc import Iterable
from typing import IO, Any

from rich import console as rich_console
from rich.console import Console
from rich.segment import Segment
from rich.text import Text


def printable(text: str, *, multiline: bool = False) -> str:
    r"""Text that a terminal shows as it is, and that moves, colours or reorders nothing there.

    Control characters, ANSI escapes, marks of writing direction, line separators and lone
    surrogates become escapes as Python writes them: ``\x1b``, ``\u202e``, ``\n``. What is printable
    stays, so that doing it twice changes nothing.

    Args:
      text: a name, a path, a message.
      multiline: keep line feeds and tabs, for a whole message; not for a name within one.
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
    """The console that everything here prints on.

    Strings, in tables too, are text: no markup, no emoji codes, no highlighting. What is not
    printable is shown as `printable` shows it. What a `rich.text.Text` holds should go through
    `printable` before, because rich measures its width first.

    Args:
      quiet: print nothing, as hosts other than the first.
      stderr: print there, not on stdout.
      file: where to instead.
      **options: further ones of `rich.console.Console`, such as its width.
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
    """A console whose every string and segment is printable."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as text; here, so that a table's columns are as wide as what they show."""
        return super().render_str(printable(text, multiline=True), **options)

    def render(
        self,
        renderable: rich_console.RenderableType,
        options: rich_console.ConsoleOptions | None = None,
    ) -> Iterable[Segment]:
        """All segments; those that move the cursor, as a progress bar's, are rich's own."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=printable(segment.text, multiline=True))


def say(text: str, *, file: IO[str] | None = None) -> None:
    """`print` for a message of one or more lines, whatever names it has in it."""
    print(printable(text, multiline=True), file=file, flush=True)
