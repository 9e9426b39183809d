"""Figure 2 of the paper, a small ResNet on the digits: accuracy against strength and layer.

    python -m launch.sweep --config configs/figure2_resnet.py --workdir /tmp/figure2_resnet

The cyclic shift (eq. 17) at the input of a residual block, batches of 10 at inference, 5 seeds:
strengths 0.1 to 0.5 at the last block, and blocks 1 to 4 at strength 0.3; trained without the noise
(evaluated with it only), and with it, as in the paper. Mind that with an even number of examples
I+Q is singular at 0.5. The clean line is what the paper leaves out.

45 trainings of 180 steps (5 ms each on two idle cores, measured) serve 80 cells: about 2 minutes,
estimated from that. The result is in summary.csv and figure.svg of the work directory.
"""

from configs import digits_resnet
from pnoise_jax.studies import product

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5)
SEEDS = range(5)


def get_config():
    """configs/digits_resnet.py with the paper's noise."""
    config = digits_resnet.get_config()
    config.noise.preset = "paper_resnet"
    return config


def sweep():
    """Two panels, strengths and blocks, for each of the two ways to train."""
    last = {"noise.strength": STRENGTHS, "noise.layer": ("4",)}
    others = {"noise.strength": (0.3,), "noise.layer": ("1", "2", "3")}
    return [
        cell
        for train in (False, True)
        for where in (last, others)
        for cell in product({"noise.train": (train,), **where, "seed": SEEDS})
    ]
