"""PyTorch itself: modules, functions of tensors, loaders; if it is installed."""

import numpy as np
import pytest

from pnoise_jax import studies
from pnoise_jax.studies.leak.audited.examples import read_examples
from pnoise_jax.studies.leak.audited.frameworks import as_numpy

torch = pytest.importorskip("torch")
nn = torch.nn

X = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)


def test_modules_of_pytorch():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    image = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))
    for model, x in ((flat, torch.from_numpy(X)), (image, torch.randn(6, 1, 5, 5))):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(AssertionError, match=r"example \d depends on its batch: with other"):
            studies.assert_independent_of_batch(model, x)
        assert model.training
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        model.eval()
        for examples in (x, x.numpy(), x.double()):
            studies.assert_independent_of_batch(model, examples)
        assert not model.training
        studies.assert_independent_of_batch(model.bfloat16(), x)
        studies.assert_independent_of_batch(model.bfloat16(), x.bfloat16())


class Memory(nn.Module):
    """Adds the mean of earlier batches, like a memory bank or adaptation at test time."""

    def __init__(self, *, grows: bool):
        super().__init__()
        self.grows = grows
        self.register_buffer("kept", torch.zeros(1, 6))

    def forward(self, x):
        outputs = x + self.kept.mean(axis=0)
        if self.grows:
            self.kept = torch.cat([self.kept, x])
        else:
            self.kept.mul_(0.3).add_(0.7 * x.mean(axis=0))
        return outputs


@pytest.mark.parametrize("grows", [False, True])
def test_the_memory_of_a_module_is_not_reset(grows):
    with pytest.raises(ValueError, match="not deterministic"):
        studies.assert_independent_of_batch(Memory(grows=grows).eval(), X)
    labels = np.arange(60) % 2
    inputs = np.random.default_rng(0).normal(size=(60, 6)) + labels[:, None]
    settings = studies.AuditSettings(batch_sizes=(6,), orders=20, purity_steps=0)
    audit = studies.audit(
        Memory(grows=grows).eval(), (np.float32(inputs), labels), settings=settings
    )
    assert "independent" not in audit.verdict.kinds


def test_functions_of_tensors():
    x = torch.from_numpy(X)
    weights = torch.ones(6, 3, requires_grad=True)
    studies.assert_independent_of_batch(lambda x: torch.tanh(x) @ weights, x)
    studies.assert_independent_of_batch(lambda x: {"logits": x.bfloat16(), "x": x}, x)
    np.testing.assert_array_equal(as_numpy([weights[0, 0], weights[1, 1]]), [1, 1])
    normalise = torch.nn.BatchNorm1d(6)

    def fails_alone(x):
        return x if len(x) > 1 else normalise(x)

    with pytest.raises(AssertionError, match=r"but not alone .*Expected more than 1 value per cha"):
        studies.assert_independent_of_batch(fails_alone, x)
    with pytest.raises(ValueError, match=r"not deterministic: .* turn off its dropout"):
        studies.assert_independent_of_batch(torch.nn.Dropout(), x)


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_over_the_batch(batch_first):
    torch.manual_seed(0)

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 16)
            self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=batch_first)
            self.head = nn.Linear(16, 3)

        def forward(self, ids):  # (batch, tokens)
            return {"logits": self.head(self.block(self.embed(ids)).mean(dim=1))}

    model, ids = Classifier().eval(), torch.randint(0, 20, (8, 5))
    if batch_first:
        studies.assert_independent_of_batch(model, ids)
    else:
        pattern = r"example \d depends on its batch: .* Replacing example \d alone .* attention"
        with pytest.raises(AssertionError, match=pattern):
            studies.assert_independent_of_batch(model, ids)


def test_loaders_of_pytorch():
    data = torch.utils.data
    x, labels = torch.arange(60.0).reshape(30, 2), torch.arange(30)
    examples = data.TensorDataset(x, labels)
    read = read_examples(data.DataLoader(examples, batch_size=8))
    np.testing.assert_array_equal(read.inputs, x)
    assert read.labels.tolist() == list(range(30))
    assert read.note is None
    assert torch.equal(read.wrap(read.inputs[:2]), x[:2])
    torch.manual_seed(0)
    shuffling = data.DataLoader(examples, batch_size=8, shuffle=True)
    assert "it shuffles" in read_examples(shuffling).note
    with pytest.raises(ValueError, match="single label 0; give a loader of batches"):
        read_examples(examples)
    model = torch.nn.BatchNorm1d(2)
    with pytest.raises(AssertionError, match=r"^batch 0 of the loader: example"):
        studies.assert_independent_of_batch(model, shuffling)
    studies.assert_independent_of_batch(model.eval(), shuffling)
