"""PR-DARTS on the handwritten digits that scikit-learn embeds, and what the found cells are worth: the main job of
`make search`.

No published result: about two minutes on two CPU cores, to see everything work, in the space of NAS-Bench-201 with one
cell of eight channels a stage. Eight seeds are searched on 900 images, half for the weights and half for the logits.
Then the found cells, twenty random ones and one of skip connections alone are trained on the 900 images from scratch
and tested on the 897 that no search has seen.

    python -m prdarts_jax.main --config=configs/digits.py --workdir=runs/digits
    python -m prdarts_jax.main --config=configs/digits.py:darts --workdir=runs/digits_darts
    python -m prdarts_jax.main --config=configs/digits.py --workdir=runs/digits_cells --config.space=darts \
        --config.cells=5 --config.evaluation.cells=3
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config(method: str = "pr_darts") -> ConfigDict:
    """The settings of a method's paper, scaled down to the digits."""
    config = settings.search(method)
    config.dataset = "digits"
    config.num_examples = 900
    config.space = "nas_bench_201"
    config.seeds = 8
    config.epochs = 60
    config.batch_size = 32
    config.steps_per_call = 14  # an epoch
    config.augmentation.pad = 1
    config.augmentation.flip = False  # a mirrored digit is another shape
    config.augmentation.cutout = 0  # the images have eight pixels a side
    config.channels = 8
    config.cells = 1
    config.logits.learning_rate = 0.003  # 840 steps instead of the published 20,000: larger ones

    config.evaluation.random_cells = 20
    config.evaluation.test_on_rest = True
    config.evaluation.channels = 8
    config.evaluation.cells = 1
    config.evaluation.drop_path = 0.0
    config.evaluation.epochs = 20
    config.evaluation.batch_size = 64
    config.evaluation.steps_per_call = 14  # an epoch
    config.evaluation.augmentation.update(config.augmentation.to_dict())
    return config
