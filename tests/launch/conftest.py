"""Every program takes seconds to start, so only the first few bad inputs are tried by default."""

import pathlib

import pytest

_TRIED = 4


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items):
    for item in items:
        here = item.path.parent == pathlib.Path(__file__).parent
        if here and "bad_input" in item.name and max(item.callspec.indices.values()) >= _TRIED:
            item.add_marker(pytest.mark.slow)
