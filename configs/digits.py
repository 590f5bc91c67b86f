"""PR-DARTS on the handwritten digits that scikit-learn embeds, and what the found cell is worth: the main job of
`make search`.

No published result: five and a half minutes on two CPU cores, to see everything work. The released form unless another
method is named, five cells of eight channels. Then the found cell, ten random ones and one of skip connections alone
are trained from scratch for 20 epochs.

    python -m prdarts_jax.main --config=configs/digits.py --workdir=runs/digits
    python -m prdarts_jax.main --config=configs/digits.py:darts --workdir=runs/digits_darts
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config(method: str = "pr_darts_released") -> ConfigDict:
    """The settings of a method's paper, scaled down to the digits."""
    config = settings.search(method)
    config.dataset = "digits"
    config.epochs = 50
    config.batch_size = 64
    config.steps_per_call = 11  # an epoch
    config.augmentation.pad = 1
    config.augmentation.flip = False  # a mirrored digit is another shape
    config.augmentation.cutout = 0  # the images have eight pixels a side
    config.channels = 8
    config.cells = 5
    config.logits.learning_rate = 0.01  # 550 steps instead of the published 20,000: larger ones

    config.evaluation.channels = 8
    config.evaluation.cells = 3
    config.evaluation.drop_path = 0.0
    config.evaluation.epochs = 20
    config.evaluation.batch_size = 64
    config.evaluation.steps_per_call = 22  # an epoch
    config.evaluation.augmentation.update(config.augmentation.to_dict())
    return config
