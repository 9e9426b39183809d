"""Makes golden/*.npz with PyTorch: the terms of each method and their gradients, from the formulas.

Independent of this package: ``python -m tests.adaptation.make_golden`` from the repository's root,
in an environment with PyTorch. A small ViT, no dropout, everything in float64.
"""

import pathlib

import numpy as np
import torch

from tests.adaptation.pytorch import cdtrans, ssrt, tvt


def main():
    torch.set_default_dtype(torch.float64)
    folder = pathlib.Path(__file__).parent / "golden"
    for name, method in (("tvt", tvt), ("ssrt", ssrt), ("cdtrans", cdtrans)):
        np.savez_compressed(folder / f"{name}.npz", **method.compute())


if __name__ == "__main__":
    main()
