"""ImageNet-V2 as torchvision's ImageFolder reads it: folders 0 to 999 sorted as strings."""

import types

import numpy as np
import pytest

from pnoise_jax.studies.leak.audited.labels import in_columns
from pnoise_jax.weights.adapt.head import HeadClasses

AS_STRINGS = sorted(str(i) for i in range(1000))
SYNSETS = [f"n{i:08d}" for i in range(1000)]


@pytest.mark.parametrize("theirs", [None, SYNSETS])
def test_a_head_is_not_kept_for_such_labels(theirs):
    file = types.SimpleNamespace(path="vit.safetensors", class_names=theirs)
    assert "label 2 is the class called '10'" in HeadClasses(file, AS_STRINGS).conflict(1000)
    in_order = [str(i) for i in range(1000)]
    assert HeadClasses(file, in_order).conflict(1000) == ""


def test_an_audit_of_a_function_says_so_or_matches_by_name():
    labels = np.array([0, 2, 999], np.int32)
    same, doubt = in_columns(labels, AS_STRINGS, None)
    np.testing.assert_array_equal(same, labels)
    assert "label 2 is class '10'" in doubt
    columns, note = in_columns(labels, AS_STRINGS, [str(i) for i in range(1000)])
    np.testing.assert_array_equal(columns, [0, 10, 999])
    assert "matched by name" in note
    with pytest.raises(ValueError, match="label 2 is the class called '10'"):
        in_columns(labels, AS_STRINGS, SYNSETS)
    assert in_columns(labels, [str(i) for i in range(1000)], None)[1] is None
