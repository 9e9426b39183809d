# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Audit any function
#
# A test accuracy is honest only if each prediction depends on its own example. This notebook audits
# a small classifier of handwritten digits twice: as it should be, and with a fault that reads the
# labels of the test set. Any function from a batch of inputs to a batch of logits can take its
# place: a PyTorch or Keras model, a scikit-learn pipeline, a call to a server.
#
# To open this file as a notebook: `pip install -e ".[docs]"` in a clone, then
# `jupytext --to ipynb audit_any_function.py`. As a script it runs in seconds on two CPU cores.

# %%
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from pnoise_jax import studies

# %% [markdown]
# ## A model
#
# Random features and a linear classifier, trained on 200 digits and tested on 1 000.

# %%
images, labels = load_digits(return_X_y=True)
generator = np.random.default_rng(0)
train, test = np.split(generator.permutation(1200), [200])
projection = generator.normal(size=(64, 128)) / 128


def features(batch):
    return np.maximum(batch @ projection, 0)


head = LogisticRegression(max_iter=5000).fit(features(images[train]), labels[train])


def classify(batch):
    return head.decision_function(features(batch))


print(f"top-1: {100 * head.score(features(images[test]), labels[test]):.1f} %")

# %% [markdown]
# ## The audit of a sound function
#
# An audit takes the function and the test set. It evaluates the function in batches of one class,
# in random order, and sorted by the model's own predictions; it also replaces the other examples of
# a batch by hand. It then says in one or more *kinds* what it found.

# %%
settings = studies.AuditSettings(batch_sizes=(10,))
examples = images[test], labels[test]
sound = studies.audit(classify, examples, settings=settings, model="the sound model")
print(sound.verdict.kinds)
print(sound.verdict)

# %% [markdown]
# `independent` is checked, not estimated: no prediction changes with the order of the test set or
# with the other examples of a batch.
#
# ## The audit of a function that leaks
#
# Now the features of a batch are averaged, as by noise that mixes examples or attention along the
# wrong axis. If the test set is read class by class, an example is averaged with others that share
# its label.


# %%
def leaky(batch):
    mixed = features(batch)
    return head.decision_function((mixed + mixed.sum(axis=0)) / (len(mixed) + 1))


by_class = test[np.argsort(labels[test], kind="stable")]
batches = np.split(by_class, 100)
predictions = np.concatenate([leaky(images[rows]).argmax(axis=1) for rows in batches])
top1 = 100 * (predictions == labels[by_class]).mean()
print(f"top-1, as a program prints it that reads the test set class by class: {top1:.1f} %")

leak = studies.audit(leaky, examples, clean=classify, settings=settings, model="the leaky model")
print(leak.verdict.kinds)
print(leak.verdict)

# %% [markdown]
# `clean=` is the same function without the part under suspicion. The audit scores both in the same
# orders, so an honest gain can be told from accuracy that the labels of batch mates bring:

# %%
for row in leak.rows:
    noise = "mixed" if row["noise"] else "clean"
    print(f"{noise}, {row['order']}: {row['top1']:.1f} %")

shown = {f"{'mixed' if r['noise'] else 'clean'},\n{r['order']}": r["top1"] for r in leak.rows}
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.bar(list(shown), list(shown.values()))
axes.set_ylabel("top-1, %")
plt.show()

# %% [markdown]
# ## The report
#
# `write` makes one page that opens in any browser, `audit.html`, and beside it the numbers and the
# figures.

# %%
with tempfile.TemporaryDirectory() as directory:
    for path in leak.write(directory):
        print(path.name)

# %% [markdown]
# ## A test that keeps it sound
#
# `assert_independent_of_batch` belongs in a test suite. It needs no labels and no trained weights,
# and fails with the example and the batch mate that matters most.

# %%
studies.assert_independent_of_batch(classify, images[test][:16])
try:
    studies.assert_independent_of_batch(leaky, images[test][:16])
except AssertionError as error:
    print(error)

# %% [markdown]
# ## Your own function
#
# Replace `classify` by your function, exactly as in the evaluation that you report, `examples` by
# your test inputs and labels, and `batch_sizes` by the batch size of your evaluation.
# [Is my number real?](../is-my-number-real.md) says what each kind of verdict means and what to do
# about it.
