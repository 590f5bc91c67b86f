"""Lambda-DARTS: Mitigating Performance Collapse by Harmonizing Operation Selection among Cells (Movahedi et al., ICLR
2023)."""

import dataclasses
from typing import Literal

import jax

from prdarts_jax.search import regularizers
from prdarts_jax.search.methods.base import Method

VARIANTS = ("cosine", "signcorr")


@dataclasses.dataclass(frozen=True)
class LambdaDarts(Method):
    """First order DARTS whose weights are also trained to make the layers' gradients agree.

    Attributes:
      strength: lambda at the end; it grows linearly from 0.
      variant: 'cosine': the mean cosine of two layers' gradients; 'signcorr': see `regularizers.sign_correlation`.
    """

    strength: float = 0.125
    variant: Literal["cosine", "signcorr"] = "cosine"

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant={self.variant!r} must be one of {', '.join(VARIANTS)}")

    @property
    def aligns(self) -> bool:
        """Yes."""
        return True

    def alignment(self, gradients: jax.Array) -> jax.Array:
        """Lambda of the variant."""
        measure = regularizers.layer_alignment if self.variant == "cosine" else regularizers.sign_correlation
        return measure(gradients)

    def alignment_weight(self, progress: jax.Array) -> jax.Array:
        """Linear in the progress."""
        return self.strength * progress
