"""The fields of the configs of searches and trainings: their defaults, ranges and meanings.

Files in configs/ start from `search(method)` or `training()`, so each shows only what it changes.
"""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from prdarts_jax import fields, refusals, spaces
from prdarts_jax.data import sources
from prdarts_jax.fields import LARGEST, SEED, Range, above, at_least, below, from_to, one_of
from prdarts_jax.nets import costs, discrete
from prdarts_jax.search import methods

_CLIP = Range(lambda value: 0 < value <= LARGEST or value == math.inf, lambda: f"above 0 and at most {LARGEST}, or inf")
# Upper limits of whole numbers: more than anyone needs, and too small to make a machine hang or crash.
_MANY, _SOME, _PIXELS, _IMAGES = 10**6, 1000, sources.LARGEST, 2**31 - 1
_OPEN = Range(lambda value: 0 < value < 1, lambda: "above 0 and below 1")
_DTYPES = ("float32", "bfloat16")
_SIZE = Range(
    sources.is_size,
    lambda: f"0, from 1 to {_PIXELS}, or a (height, width) of two numbers from 1 to {_PIXELS}",
)
_SPACE = Range(
    lambda name: name in spaces.NAMED or ":" in name,
    lambda: f"one of {', '.join(spaces.NAMED)}, or MODULE:FUNCTION or FILE.py:FUNCTION of your own",
    spaces.NAMED,
)
Discretization = Literal["own", "perturbation", "best_of"]


@dataclasses.dataclass(frozen=True)
class _Images:
    dataset: Annotated[
        str,
        "a key of `sources.DATASETS`, another name in TFDS, or the path of a folder, an .npz or cifar-10-batches-py",
    ] = "cifar10"
    data_dir: Annotated[str, "where TFDS keeps its data; '' is TFDS's own default"] = ""
    image_size: Annotated[
        int | tuple[int, ...], _SIZE, "side, or (height, width), that images are resized to; 0 leaves them as they are"
    ] = 0
    num_examples: Annotated[int, from_to(0, _IMAGES), "number of training images to use; 0 is all"] = 0
    test_share: Annotated[
        float, _OPEN, "share of each class that is held out for the test if the data set has no test images"
    ] = 0.2
    test_seed: Annotated[int, SEED, "decides which images are held out"] = 0
    memory: Annotated[
        float, at_least(0), "GB that images may take in memory; larger data sets are streamed, and ImageNet always is"
    ] = 4.0
    workers: Annotated[
        int, from_to(0, _SOME), "number of processes that read streamed images; 0 reads them in the main process"
    ] = 4
    jitter: Annotated[bool, "change the colours of streamed images, as DARTS does for ImageNet"] = False


OF_IMAGES = tuple(field.name for field in dataclasses.fields(_Images))  # shared by a search and what it trains


@dataclasses.dataclass(frozen=True)
class _Augmentation:
    pad: Annotated[
        int, from_to(0, _PIXELS), "black pixels on each side before a random crop; streamed images get none"
    ] = 4
    flip: Annotated[bool, "mirror left and right with probability 1/2"] = True
    cutout: Annotated[int, from_to(0, _PIXELS), "side in pixels of the square that is cut out; 0 is none"] = 16


@dataclasses.dataclass(frozen=True)
class _Weights:
    learning_rate: Annotated[float, above(0), "at the start, after the warm-up; then it falls"] = 0.025
    end_learning_rate: Annotated[float, at_least(0), "at the end"] = 0.0
    momentum: Annotated[float, below(1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, at_least(0)] = 3e-4
    clip: Annotated[float, _CLIP, "largest norm of the gradient; PR-DARTS's paper names none, its code has 5"] = 5.0
    schedule: Annotated[str, one_of(("cosine", "linear")), "how the learning rate falls"] = "cosine"
    warmup_epochs: Annotated[int, from_to(0, _MANY), "number of epochs in which the learning rate grows from 0"] = 0


@dataclasses.dataclass(frozen=True)
class _Logits:
    learning_rate: Annotated[float, above(0)] = 3e-4
    b1: Annotated[float, below(1)] = 0.5
    b2: Annotated[float, below(1)] = 0.999
    weight_decay: Annotated[float, at_least(0)] = 1e-3
    start: Annotated[
        float | None, below(1), "fraction of the search after which the logits are trained; None: the method's own"
    ] = None


@dataclasses.dataclass(frozen=True)
class _Selection:
    val_batches: Annotated[
        int,
        from_to(1, _MANY),
        "number of validation batches over which accuracies are averaged, if there are so many",
    ] = 100
    finetuning_steps: Annotated[
        int, from_to(0, _MANY), "'perturbation': training steps after each decision; the authors' code has five epochs"
    ] = 100
    samples: Annotated[int, from_to(1, _MANY), "'best_of': number of cells that are drawn"] = 100


@dataclasses.dataclass(frozen=True)
class _Cost:
    target: Annotated[
        float, at_least(0), "largest cost of the found cell's network, which `evaluation` describes; 0: no limit"
    ] = 0.0
    kind: Annotated[
        costs.Kind,
        "'params': number of weights; 'macs': multiply-adds per image; 'latency': seconds per image, measured here",
    ] = "macs"
    weight: Annotated[
        float, above(0), "of the cost beyond the target, as a share of the target, in the loss of the logits"
    ] = 10.0


@dataclasses.dataclass(frozen=True)
class _Network:
    channels: Annotated[int, from_to(2, 4096), "of the first cells"] = 36
    cells: Annotated[int, from_to(1, _SOME)] = 20
    auxiliary_weight: Annotated[float, at_least(0), "of the auxiliary head's loss; 0: no auxiliary head"] = 0.0
    drop_path: Annotated[float, below(1), "probability at the end; it grows linearly from 0"] = 0.3
    label_smoothing: Annotated[float, below(1)] = 0.0
    ema: Annotated[
        float, below(1), "decay per step of a running mean of the weights, which is tested in their place; 0 is none"
    ] = 0.0
    dtype: Annotated[str, one_of(_DTYPES), "of the computation"] = "float32"
    test_on_rest: Annotated[bool, "test also on the training images that num_examples leaves out"] = False
    epochs: Annotated[int, from_to(0, _MANY)] = 600
    batch_size: Annotated[int, from_to(1, _MANY)] = 128
    accumulate: Annotated[
        int, from_to(1, _MANY), "number of pieces that a batch is split into; each is a step and normalised by itself"
    ] = 1
    steps_per_call: Annotated[
        int, from_to(1, _MANY), "as in a search; each call computes the order of its epoch's images again"
    ] = 10
    augmentation: _Augmentation = _Augmentation()
    weights: _Weights = _Weights()


@dataclasses.dataclass(frozen=True)
class _Evaluation(_Network):
    epochs: Annotated[
        int, from_to(0, _MANY), "of the training of the found cell and of those to compare it with; 0: no training"
    ] = 0
    random_cells: Annotated[int, from_to(0, _SOME), "number of random cells to compare the found cell with"] = 10
    trainings: Annotated[int, from_to(1, _SOME), "number of trainings of each cell, each with its own seed"] = 1


@dataclasses.dataclass(frozen=True)
class Search(_Images):
    """The fields of a search that all methods share."""

    job: Annotated[str, one_of(("search",))] = "search"
    weights_share: Annotated[float, _OPEN, "share of the training images that trains the weights"] = 0.5
    logits_share: Annotated[
        float, _OPEN, "share of the training images that trains the logits; both are 0.5 unless images are streamed"
    ] = 0.5
    split_seed: Annotated[int, SEED, "decides which images train the weights and which the logits"] = 0
    seed: Annotated[int, SEED, "decides everything else that is random"] = 0
    seeds: Annotated[int, from_to(1, _SOME), "number of searches at once, with this seed and the next ones"] = 1
    epochs: Annotated[int, from_to(1, _MANY)] = 200
    batch_size: Annotated[int, from_to(1, _MANY)] = 128
    accumulate: Annotated[
        int, from_to(1, _MANY), "number of pieces that a batch is split into; each is a step with its own gates"
    ] = 1
    steps_per_call: Annotated[
        int, from_to(1, _MANY), "steps between two updates of the progress bar, and two checks for SIGTERM and Ctrl-C"
    ] = 1
    augmentation: _Augmentation = _Augmentation()
    space: Annotated[str, _SPACE, "the search space; a function of your own returns a SearchSpace"] = "darts"
    nodes: Annotated[int, from_to(0, 20), "number of nodes of a cell, its inputs included; 0: that of the space"] = 0
    ops: Annotated[str, "the candidates of each edge, separated by commas; '': those of the space"] = ""
    table: Annotated[str, "a file of NAS-Bench-201's accuracies; each epoch then reports that of the derived cell"] = ""
    method: Annotated[
        str, "one of `methods.NAMED`, or MODULE:FUNCTION; its settings are in the section of its name"
    ] = "pr_darts"
    discretization: Annotated[
        Discretization, "how the supernet becomes a cell; 'own': the method's own way, by the logits"
    ] = "own"
    hessian: Annotated[bool, "report the dominant eigenvalue of the validation loss's Hessian in the logits"] = False
    channels: Annotated[int, from_to(2, 4096), "of the first cells"] = 16
    cells: Annotated[
        int, from_to(1, _SOME), "number of cells in all; in NAS-Bench-201's network, in each of its three stages"
    ] = 8
    dtype: Annotated[str, one_of(_DTYPES), "of the computation"] = "float32"
    form: Annotated[
        str, one_of(discrete.FORMS), "'imagenet': three convolutions of stride 2 come before the cells, for 224 pixels"
    ] = "cifar"
    pool_norm: Annotated[bool, "batch normalisation after pools"] = True
    head_norm: Annotated[
        bool, "batch normalisation and ReLU before the global pool, as NAS-Bench-201's network always has"
    ] = False
    running_statistics: Annotated[bool, "keep running statistics of batch normalisation, for use outside training"] = (
        True
    )
    weights: _Weights = _Weights()
    logits: _Logits = _Logits()
    selection: _Selection = _Selection()
    cost: _Cost = _Cost()
    evaluation: _Evaluation = _Evaluation()


@dataclasses.dataclass(frozen=True)
class Training(_Network, _Images):
    """The fields of the training of a cell."""

    job: Annotated[str, one_of(("train",))] = "train"
    genotype: Annotated[str, "the name of a published cell, the path of a genotype's file, or its text"] = "PRDARTS"
    torch_checkpoint: Annotated[str, "start from the weights of a checkpoint of the authors' code"] = ""
    init_from: Annotated[
        str, "start from the weights of the finished training in this folder; its network may have other classes only"
    ] = ""
    form: Annotated[str, one_of(discrete.FORMS), "'imagenet': three convolutions of stride 2 come before the cells"] = (
        "cifar"
    )
    seed: Annotated[int, SEED] = 0


def search(method: str = "pr_darts") -> ConfigDict:
    """The config of a search on CIFAR-10 with the settings of the method's paper.

    For a method of your own (MODULE:FUNCTION) the settings are those of PR-DARTS.

    Raises:
      ValueError, OSError: there is no such method, or a setting of its paper is unknown or out of range.

    >>> search("darts").batch_size
    64
    """
    schema, paper = search_schema(method), dict(methods.find(method).paper)
    config, flat = fields.defaults(schema), flatten_dict(schema, sep=".")
    fields.check_names(paper, flat.keys() - {"method", "job"}, f"a search, which method={refusals.shown(method)} sets")
    for name, value in paper.items():
        fields.check(flat[name], f"config.{name}", value)
    config.method = method
    config.update_from_flattened_dict(paper)
    return config


def training() -> ConfigDict:
    """The config of the training of a found cell on CIFAR-10 with the settings of PR-DARTS's released code.

    These are those of DARTS (Liu et al., 2019, section 3.2), except for the batch size, drop-path and the auxiliary
    head.
    """
    return fields.defaults(fields.schema_of(Training))


def section_of(method: str) -> str:
    """The name of the section that holds a method's settings: 'mine' for 'my_module:mine'; a method of a TOML file has
    none, but a name.

    >>> section_of("pr_darts"), section_of("my_module:mine"), section_of("some/deep.toml")
    ('pr_darts', 'mine', 'deep')
    """
    return Path(method).stem if method.endswith(".toml") else method.rpartition(":")[2]


def settings_of(config: ConfigDict) -> dict[str, Any]:
    """The settings of the method of a search: its arguments, as the config's section of its name has them."""
    section = config.get(section_of(config.method), {})
    return {name: section[name] for name in methods.find(config.method).schema if name in section}


def search_schema(method: str) -> dict[str, Any]:
    """The fields of a search, those of `Search` and of each method in a section of its name, for `fields.check_config`.

    Raises:
      ValueError, OSError: there is no such method.
    """
    own, section = methods.find(method).schema, section_of(method)
    others = fields.schema_of(Search) | {name: named.schema for name, named in methods.NAMED.items()}
    if own and method != section and section in others:
        raise ValueError(f"method={refusals.shown(method)} must have another name than the field {section} of a config")
    return others | ({section: own} if own else {})


def seed_folders(config: ConfigDict, workdir: Path) -> list[Path]:
    """The folder of each seed's results in a search: `workdir` itself for one seed, else a folder in it for each."""
    if config.seeds == 1:
        return [workdir]
    return [workdir / f"seed_{seed}" for seed in range(config.seed, config.seed + config.seeds)]


def space_of(config: ConfigDict) -> spaces.SearchSpace:
    """The space of a search: the one that `config.space` names, with `config.nodes` and `config.ops` if given.

    Raises:
      ValueError: there is no such space, the nodes or ops do not fit it, or an op is not registered.

    >>> config = search()
    >>> config.update({"nodes": 4, "ops": "skip_connect,sep_conv_3x3"})
    >>> space_of(config).shape
    (5, 2)
    """
    try:
        space = spaces.named(config.space)
    except ValueError as error:
        raise ValueError(f"config.{error}") from error
    if (config.nodes or config.ops) and space.edge_ops:
        raise ValueError(
            f"config.nodes={config.nodes} and config.ops={refusals.shown(config.ops)} must be 0 and '' in the space "
            f"{space.name}, whose edges have candidates of their own"
        )
    least = space.inputs + max(space.outputs, 1)
    if 0 < config.nodes < least:
        raise ValueError(f"config.nodes={config.nodes} must be at least {least} in the space {space.name}; or 0")
    names = tuple(name.strip() for name in config.ops.split(",")) if config.ops else space.ops
    try:
        return dataclasses.replace(space, nodes=config.nodes or space.nodes, ops=names)
    except ValueError as error:
        raise ValueError(
            f"config.ops={refusals.shown(config.ops)} must be '' or the names of ops, separated by commas: {error}"
        ) from error
