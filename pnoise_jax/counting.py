"""Numbers of things, in words."""


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """Returns "1 example", "2 examples"; a number that is not whole is rounded.

    Args:
      number: how many.
      noun: the singular.
      plural: the plural, if it is not the singular with an s.
    """
    number = round(number)
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
