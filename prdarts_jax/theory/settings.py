"""Sizes of the networks with which claims are checked, and numbers of draws."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes and numbers of draws of the checks."""

    samples: int = 8  # n
    channels: int = 4  # c of the inputs
    positions: int = 6  # p of the inputs
    nodes: int = 5  # h, in claims that have a single h
    width: int = 64  # m, in claims that have a single m
    widths: tuple[int, ...] = (64, 128, 256)  # m of the networks of Theorem 1 that differ in width
    activations: tuple[str, ...] = ("softplus",)  # sigma of the claims about Gram matrices
    draws: int = 32  # of weights, data and alpha, unless another field here gives the number
    runs: int = 3  # draws of a gradient descent, for each width
    steps: int = 30  # of a gradient descent
    depths: tuple[int, ...] = (4, 6)  # h of Theorem 4
    gate_draws: int = 12  # of Theorem 2; for each draw there is a training for every gate
    gate_steps: int = 300  # until convergence, in Theorem 2
    gate_samples: int = 20_000  # of each distribution of Theorem 3
    searches: int = 3  # number of seeds of Lambda-DARTS's claims
    epochs: int = 6  # of those searches


QUICK = Settings()

THOROUGH = Settings(
    width=128,
    widths=(64, 128, 256, 512, 1024, 2048, 4096),
    activations=("softplus", "sigmoid", "tanh"),
    draws=100,
    runs=4,
    depths=(4, 6, 8),
    gate_draws=32,
    gate_steps=1000,
    gate_samples=200_000,
    searches=5,
    epochs=20,
)
