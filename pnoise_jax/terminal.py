"""Text from files and users on its way to a terminal."""


def printable(text: str) -> str:
    r"""The text with whatever a terminal would not print as it stands written as an escape.

    Control characters, ANSI escapes, line breaks, bidirectional overrides, invisible characters
    and bytes that are not UTF-8 become ``\x1b``, ``\n``, ``\u202e`` and the like. Meant for names;
    of a text of several lines, each is to be given alone.
    """
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
