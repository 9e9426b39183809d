"""What reaches a terminal: names without escapes."""


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
