"""Parses the values of flags: None unsets a flag, and errors state the expected kind of value."""

import ast
from typing import Any

from absl import flags
from ml_collections import config_flags

# "none" does not unset text fields: it is a value of some, such as a transform or a noise.
_UNSET = {int: ("None", "none"), float: ("None", "none"), bool: ("None", "none"), str: ("None",)}
_PATHS = ("workdir", "data_dir", "manual_dir", "out")
_WANTED = {int: "a whole number", float: "a number", bool: "true or false"}


class Parser(flags.ArgumentParser):
    """An absl parser that reads None as "not set"."""

    def __init__(self, kind: type, parser: flags.ArgumentParser):
        """Parses None, and everything that ``parser`` parses.

        Args:
          kind: the type of the values: int, float, bool or str.
          parser: the parser of such values.
        """
        self._kind, self._parser = kind, parser
        self.syntactic_help = parser.syntactic_help

    def parse(self, argument: Any) -> Any:
        """The value, or None.

        Raises:
          ValueError: the text is not of this kind; absl names the flag.
        """
        if isinstance(argument, str) and argument.strip() in _UNSET[self._kind]:
            return None
        try:
            return self._parser.parse(argument)
        except (TypeError, ValueError) as error:
            if self._kind not in _WANTED:
                raise
            said = "" if self._kind is bool else f"{error}: "
            raise ValueError(f"{said}give {_WANTED[self._kind]}{_hint(argument)}") from error

    def flag_type(self) -> str:
        """The type that --help shows."""
        return self._parser.flag_type()


def _hint(argument: Any) -> str:
    try:
        several = isinstance(ast.literal_eval(str(argument)), tuple | list)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    return ", not several" if several else ""


def let_none_unset_fields() -> None:
    """Makes ``--config.FIELD=None`` set a field to None, whatever its type."""
    for kind, parser in (
        (int, flags.IntegerParser()),
        (float, flags.FloatParser()),
        (bool, flags.BooleanParser()),
        (str, flags.ArgumentParser()),
    ):
        config_flags.register_flag_parser_for_type(kind, Parser(kind, parser))


def unset_flags(values: flags.FlagValues) -> None:
    """Treats flags that are set to None as not set.

    Raises:
      flags.IllegalFlagValueError: such a flag is required; or a path is blank, for example from an
        unset shell variable, which should not mean the current directory.
    """
    for name in values:
        flag = values[name]
        if flag.present and flag.value in ("None", ["None"]):
            flag.value, flag.present = flag.default, 0
        if name in _PATHS and flag.present and not str(flag.value).strip():
            raise flags.IllegalFlagValueError(
                f"flag --{name}={flag.value!r}: give a path, or leave the flag out"
            )
    values.validate_all_flags()
