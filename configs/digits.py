"""PR-DARTS on the handwritten digits that come with scikit-learn, and a comparison of the found cells with others: the
main job of `make search`.

It shows everything at work in about three minutes on two CPU cores, and reproduces no published result. The space is
that of NAS-Bench-201, with one cell of eight channels per stage. Twelve seeds are searched on 900 images, half for the
weights and half for the logits. Then the found cells, forty random cells and the cell of skip connections alone are
trained on the 900 images from scratch, and tested on the 897 images that no search has seen.

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
    config.seeds = 12
    config.epochs = 60
    config.batch_size = 32
    config.steps_per_call = 14  # the steps of an epoch
    config.augmentation.pad = 1
    config.augmentation.flip = False  # a mirrored digit is another shape
    config.augmentation.cutout = 0  # the images have only 8x8 pixels
    config.channels = 8
    config.cells = 1
    config.logits.learning_rate = 0.003  # larger steps, since there are 840 instead of tens of thousands

    config.evaluation.random_cells = 40
    config.evaluation.test_on_rest = True
    config.evaluation.channels = 8
    config.evaluation.cells = 1
    config.evaluation.drop_path = 0.0
    config.evaluation.epochs = 20
    config.evaluation.batch_size = 64
    config.evaluation.steps_per_call = 14  # the steps of an epoch
    config.evaluation.augmentation.update(config.augmentation.to_dict())
    return config
