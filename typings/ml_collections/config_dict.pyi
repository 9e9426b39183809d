"""What this package uses of ml_collections.config_dict."""

from typing import Any

from . import ConfigDict as ConfigDict

class FieldReference:
    def __init__(self, default: Any, field_type: type | None = None) -> None: ...
    def set(self, value: Any, type_safe: bool = True) -> None: ...

def placeholder(field_type: type, required: bool = False) -> Any: ...
