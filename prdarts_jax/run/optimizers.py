"""The optimizers that a config describes."""

import optax
from ml_collections import ConfigDict


def weight_optimizer(
    weights: ConfigDict, total_steps: int, schedule: str = "cosine", warmup_steps: int = 0
) -> optax.GradientTransformation:
    """SGD with momentum; as in PyTorch, weight decay is part of what momentum sees, and is not clipped.

    Args:
      weights: the section of a config.
      total_steps: when the learning rate has reached its end, warm-up included.
      schedule: how it falls, 'cosine' or 'linear'.
      warmup_steps: it first grows for so many steps, linearly from 0.
    """
    start, end, steps = weights.learning_rate, weights.end_learning_rate, max(total_steps - warmup_steps, 1)
    if schedule == "cosine":
        rate = optax.cosine_decay_schedule(start, steps, alpha=end / start)
    else:
        rate = optax.linear_schedule(start, end, steps)
    if warmup_steps:
        rate = optax.join_schedules([optax.linear_schedule(0.0, start, warmup_steps), rate], [warmup_steps])
    return optax.chain(
        optax.clip_by_global_norm(weights.clip),
        optax.add_decayed_weights(weights.weight_decay),
        optax.sgd(rate, momentum=weights.momentum, nesterov=weights.nesterov),
    )


def in_pieces(optimizer: optax.GradientTransformation, pieces: int) -> optax.GradientTransformation:
    """The optimizer, moving once in so many steps, by the mean of their gradients."""
    return optimizer if pieces == 1 else optax.MultiSteps(optimizer, pieces).gradient_transformation()
