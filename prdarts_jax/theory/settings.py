"""How large the networks of the claims are, and how many are drawn."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the claims are checked on.

    Attributes:
      samples: n.
      channels: c of the inputs.
      positions: p of the inputs.
      nodes: h, where a claim has one.
      width: m, where a claim has one.
      widths: m of the runs of Theorem 1 over the width.
      activations: sigma of the claims about Gram matrices.
      draws: of weights, data and alpha, where nothing more special is said.
      runs: draws of a gradient descent, for each width.
      steps: of a gradient descent.
      depths: h of Theorem 4.
      gate_draws: draws of Theorem 2, each of which is trained once for every gate.
      gate_steps: until convergence, in Theorem 2.
      gate_samples: of each distribution of Theorem 3.
      searches: seeds of Lambda-DARTS's claims.
      epochs: of those searches.
    """

    samples: int = 8
    channels: int = 4
    positions: int = 6
    nodes: int = 5
    width: int = 64
    widths: tuple[int, ...] = (64, 128, 256)
    activations: tuple[str, ...] = ("softplus",)
    draws: int = 32
    runs: int = 3
    steps: int = 30
    depths: tuple[int, ...] = (4, 6)
    gate_draws: int = 12
    gate_steps: int = 300
    gate_samples: int = 20_000
    searches: int = 3
    epochs: int = 6


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
