"""What the files in configs/ hold: the numbers of the papers, for every method; and the flag `--config`."""

import importlib.util
import inspect
import math
import sys
from pathlib import Path

import pytest
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import config_flags
from shared import refused

from prdarts_jax import spaces
from prdarts_jax.data import sources
from prdarts_jax.run import problems, settings, validation
from prdarts_jax.search import methods, terms

# Of ml_collections, where it reads a file of the flag.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

FOLDER = Path(__file__).parents[1] / "configs"


def load(name):
    """A file of configs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = {path.stem: load(path.stem) for path in sorted(FOLDER.glob("*.py"))}
# Those that `--config=configs/cifar10.py:darts` gives a method.
OF_ANY_METHOD = [
    name for name, module in MODULES.items() if "method" in inspect.signature(module.get_config).parameters
]


def section(name, **fields):
    return {f"{name}.{field}": value for field, value in fields.items()}


SGD = section("weights", learning_rate=0.025, momentum=0.9, nesterov=False, weight_decay=3e-4, clip=5.0)
COMMON = SGD | {
    "job": "search",
    "dataset": "cifar10",
    "image_size": 0,
    "num_examples": 0,
    "logits.learning_rate": 3e-4,
    "logits.b1": 0.5,
    "logits.b2": 0.999,
    "logits.weight_decay": 1e-3,
    "logits.start": None,
    "augmentation.pad": 4,
    "augmentation.flip": True,
    "channels": 16,
    "cells": 8,
    "dtype": "float32",
    "space": "darts",
    "pool_norm": True,
    "head_norm": False,
    "running_statistics": True,
}
PR_DARTS = COMMON | {
    "epochs": 200,
    "batch_size": 128,
    "augmentation.cutout": 16,
    "weights.end_learning_rate": 0.0,
}
GATES = {"lambda_skip": 0.01, "lambda_nonskip": 0.005, "start_temperature": 10.0, "end_temperature": 0.1}
PATH = {"lambda_path": 0.005, "distinct_inputs": True}
DARTS = COMMON | {
    "epochs": 50,
    "batch_size": 64,
    "augmentation.cutout": 0,
    "weights.end_learning_rate": 0.001,
    "darts.second_order": False,
}
NO_NONE = {"space": "darts_no_none"}
PAPERS = {
    "pr_darts": PR_DARTS | section("pr_darts", **GATES | PATH),
    "pr_darts_gates": PR_DARTS | section("pr_darts_gates", **GATES, distinct_inputs=True),
    "pr_darts_path": PR_DARTS | section("pr_darts_path", **PATH),
    "pr_darts_released": PR_DARTS
    | section(
        "pr_darts_released",
        **GATES | PATH | {"distinct_inputs": False, "start_temperature": 1.0, "drop": 0.4, "threshold": 0.2},
    )
    | {
        "batch_size": 250,
        "augmentation.cutout": 0,
        "weights.end_learning_rate": 0.001,
        "weights.nesterov": True,
        "weights.weight_decay": 5e-4,
        "cells": 6,
        "pool_norm": False,
        "head_norm": True,
        "running_statistics": False,
    },
    "darts": DARTS,
    "idarts": DARTS | {"idarts.products": 2},
    "lambda_darts": DARTS | NO_NONE | {"lambda_darts.strength": 0.125, "lambda_darts.variant": "cosine"},
    "fair_darts": DARTS
    | NO_NONE
    | {
        "fair_darts.zero_one": 10.0,
        "fair_darts.threshold": 0.85,
        "batch_size": 128,
        "weights.learning_rate": 0.005,
        "logits.learning_rate": 3e-3,
        "logits.b1": 0.9,
    },
    "p_darts": DARTS
    | section("p_darts", cells=(5, 11, 17), ops=(8, 5, 3), skip_dropout=(0.0, 0.4, 0.7), most_skips=2, frozen=10 / 25)
    | {
        "epochs": 25,
        "batch_size": 96,
        "weights.end_learning_rate": 0.0,
        "logits.learning_rate": 6e-4,
    },
    "r_darts": DARTS
    | section("r_darts", drop_path=0.0, early_stopping=True, window=5, ratio=0.75, start=10)
    | {"weights.weight_decay": 27e-4},
    "sdarts_rs": DARTS | section("sdarts_rs", start_radius=0.03, end_radius=0.3),
    "sdarts_adv": DARTS | section("sdarts_adv", start_radius=0.03, end_radius=0.3, steps=7),
    "darts_minus": DARTS | section("darts_minus", auxiliary_skip=1.0),
    "beta_darts": DARTS | section("beta_darts", weight=50.0) | {"logits.weight_decay": 0.0},
    "drnas": DARTS
    | NO_NONE
    | section("drnas", kl=0.0, partial=(1,), ops=(7,))
    | {"weights.learning_rate": 0.1, "weights.end_learning_rate": 0.0, "logits.learning_rate": 6e-4},
    "snas": DARTS | section("snas", start_temperature=1.0, end_temperature=0.33) | {"epochs": 150},
    "reinmax": DARTS,
    "oles": DARTS | section("oles", threshold=0.4, window=20),
    "pc_darts": DARTS
    | {
        "pc_darts.partial": 4,
        "batch_size": 256,
        "weights.learning_rate": 0.1,
        "weights.end_learning_rate": 0.0,
        "logits.learning_rate": 6e-4,
    },
    "gdas": DARTS | {"gdas.start_temperature": 10.0, "gdas.end_temperature": 0.1, "epochs": 250},
    "random_search": DARTS | {"random_search.samples": 100},
    "reinforce": DARTS | {"reinforce.start_baseline": 2.3, "logits.learning_rate": 3e-3},
}
# What a file changes of the method's paper.
CHANGES = {
    "images": {"dataset": "images", "image_size": 32, "epochs": 30, "batch_size": 16, "channels": 8, "cells": 5}
    | {"augmentation.cutout": 0, "logits.learning_rate": 0.003},
    "cifar10": {},
    "cifar100": {"dataset": "cifar100"},
    "fashion_mnist": {"dataset": "fashion_mnist"},
    "svhn": {"dataset": "svhn", "augmentation.flip": False},
    "digits": {"dataset": "digits", "num_examples": 900, "space": "nas_bench_201", "seeds": 12}
    | {"epochs": 60, "batch_size": 32, "channels": 8, "cells": 1}
    | {"augmentation.pad": 1, "augmentation.flip": False, "augmentation.cutout": 0, "logits.learning_rate": 0.003},
}
IMAGENET = PAPERS["pc_darts"] | {
    "dataset": "imagenet",
    "form": "imagenet",
    "image_size": 224,
    "weights_share": 0.1,
    "logits_share": 0.025,
    "batch_size": 1024,
    "logits.learning_rate": 6e-3,
    "logits.start": 0.7,
    "weights.learning_rate": 0.5,
    "weights.warmup_epochs": 5,
    "pc_darts.partial": 2,
}
SUITE = DARTS | {"num_examples": 25_000, "epochs": 100, "evaluation.epochs": 0, "evaluation.batch_size": 512}
SUITE |= {"evaluation.drop_path": 0.3, "evaluation.auxiliary_weight": 0.0, "evaluation.augmentation.cutout": 16}
BENCHMARK = DARTS | {"space": "nas_bench_201", "cells": 5, "weights.nesterov": True, "weights.weight_decay": 5e-4}
CIFAR10_EVAL = SGD | {
    "job": "train",
    "dataset": "cifar10",
    "form": "cifar",
    "genotype": "PRDARTS",
    "channels": 36,
    "cells": 20,
    "auxiliary_weight": 0.0,
    "drop_path": 0.3,
    "label_smoothing": 0.0,
    "epochs": 600,
    "batch_size": 128,
    "augmentation.pad": 4,
    "augmentation.flip": True,
    "augmentation.cutout": 16,
    "weights.end_learning_rate": 0.0,
    "weights.schedule": "cosine",
}
OF_ONE_JOB = {
    "cifar10_eval": CIFAR10_EVAL,
    "cifar100_eval": CIFAR10_EVAL | {"dataset": "cifar100", "drop_path": 0.4},
    "svhn_eval": CIFAR10_EVAL | {"dataset": "svhn", "augmentation.flip": False},
    "imagenet": IMAGENET | {"method": "pc_darts"},
    "images_eval": CIFAR10_EVAL
    | {"dataset": "images", "image_size": 32, "channels": 16, "cells": 5, "drop_path": 0.0, "epochs": 60}
    | {"batch_size": 16, "augmentation.cutout": 8},
    "imagenet_eval": CIFAR10_EVAL
    | {
        "dataset": "imagenet",
        "form": "imagenet",
        "image_size": 224,
        "jitter": True,
        "augmentation.cutout": 0,
        "channels": 48,
        "cells": 14,
        "auxiliary_weight": 0.4,
        "drop_path": 0.0,
        "label_smoothing": 0.1,
        "epochs": 250,
        "batch_size": 256,
        "weights.learning_rate": 0.1,
        "weights.schedule": "linear",
        "weights.weight_decay": 3e-5,
    },
    "nas_bench_201_eval": CIFAR10_EVAL
    | {"genotype": "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"}
    | {"channels": 16, "cells": 5, "epochs": 200, "batch_size": 256, "drop_path": 0.0, "augmentation.cutout": 0}
    | section("weights", learning_rate=0.1, nesterov=True, weight_decay=5e-4, clip=math.inf),
    "bench_suite": SUITE | {"channels": 7, "cells": 18},
    "own_method": DARTS
    | {"method": f"{FOLDER}/own_method.py:annealed_darts", "dataset": "digits", "epochs": 10}
    | {"augmentation.pad": 1, "augmentation.flip": False, "channels": 4, "cells": 3, "logits.learning_rate": 0.01},
    "theory": {"job": "theory", "claim": "", "claims": "", "sizes": "", "thorough": False},
}


def flat(config):
    return flatten_dict(config.to_dict(), sep=".")


def check(config, expected):
    assert {field: value for field, value in flat(config).items() if field in expected} == expected


@pytest.fixture
def parsed(monkeypatch):
    """The config that arguments of the command line give."""

    def parse(*arguments):
        monkeypatch.setattr(sys, "argv", ["prdarts", *arguments])
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values)
        values(sys.argv)
        return values.config

    return parse


def test_every_method_and_every_file_is_here():
    assert PAPERS.keys() <= methods.NAMED.keys() and len(PAPERS) > 12
    assert sorted(OF_ANY_METHOD) == sorted([*CHANGES, "nas_bench_201"])
    assert MODULES.keys() == {*OF_ANY_METHOD, *OF_ONE_JOB}


@pytest.mark.parametrize("method", PAPERS)
def test_a_method_s_own_settings_are_those_of_its_paper(method):
    config = settings.search(method)
    validation.validate(config)
    check(config, PAPERS[method] | {"method": method})


@pytest.mark.parametrize("name", OF_ANY_METHOD)
def test_a_file_takes_every_method_with_the_settings_of_its_paper_but_for_what_it_is_about(name, parsed):
    for method in methods.NAMED:
        config = parsed(f"--config={FOLDER}/{name}.py:{method}")
        validation.validate(config)
        check(
            config,
            (BENCHMARK if name == "nas_bench_201" else PAPERS.get(method, methods.NAMED[method].paper) | CHANGES[name])
            | {"method": method},
        )


@pytest.mark.parametrize("name", OF_ONE_JOB)
def test_a_file_of_one_job_has_the_published_numbers(name):
    config = MODULES[name].get_config()
    if name != "theory":
        validation.validate(config)
    check(config, OF_ONE_JOB[name])


@pytest.mark.parametrize("name", MODULES)
def test_a_file_says_its_command(name):
    assert f"python -m prdarts_jax.main --config=configs/{name}.py --workdir=runs/{name}" in MODULES[name].__doc__


@pytest.mark.parametrize("name", OF_ANY_METHOD)
def test_another_method_changes_nothing_else_and_has_the_defaults_of_its_function(name, parsed):
    before = MODULES[name].get_config()
    for method in methods.NAMED:
        config = parsed(f"--config={FOLDER}/{name}.py", f"--config.method={method}")
        assert config.to_dict() == before.to_dict() | {"method": method}
        validation.validate(config)
        assert problems.make_method(config) == methods.NAMED[method]()


@pytest.mark.parametrize("name", OF_ANY_METHOD)
def test_a_file_takes_every_space(name):
    for space in spaces.NAMED:
        config = MODULES[name].get_config()
        config.space = space
        validation.validate(config)


@pytest.mark.parametrize("ops", ["regular", "no_skip", "all_skip"])
@pytest.mark.parametrize(
    "network, space, channels, cells, batch_size",
    [("deep", "darts", 7, 18, 64), ("wide", "darts", 18, 4, 96), ("single_cell", "single_cell", 26, 1, 96)],
)
def test_the_nine_benchmarks_of_the_suite(network, space, channels, cells, batch_size, ops, parsed):
    suffix = "" if ops == "regular" else f"_{ops}"
    sizes = {"channels": channels, "cells": cells} | section("evaluation", channels=channels, cells=cells)
    for method in ("darts", "pr_darts"):
        config = parsed(f"--config={FOLDER}/bench_suite.py:{network}_{ops}:{method}")
        validation.validate(config)
        check(config, SUITE | sizes | {"space": space + suffix, "batch_size": batch_size, "method": method})
    assert parsed(f"--config={FOLDER}/bench_suite.py:{network}_{ops}").method == "darts"


def test_another_benchmark_is_refused():
    names = [
        f"{network}_{ops}" for network in ("deep", "wide", "single_cell") for ops in ("regular", "no_skip", "all_skip")
    ]
    with refused(
        f"benchmark 'deep_no_skp' is unknown; allowed are {', '.join(names)}; "
        "did you mean 'deep_no_skip' or 'wide_no_skip' or 'deep_all_skip'?"
    ):
        MODULES["bench_suite"].get_config("deep_no_skp")


OWN = """
from typing import Annotated
import prdarts_jax as pdx
from prdarts_jax.fields import at_least

def mine(strength: Annotated[float, at_least(0)] = 0.5) -> pdx.Method:
    return pdx.Method(terms=(pdx.terms.zero_one(strength),))
"""


def test_a_method_of_ones_own_is_named_by_its_file(parsed, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    method = f"{tmp_path}/own.py:mine"
    made = parsed(f"--config={FOLDER}/cifar10.py:{method}", "--config.mine.strength=2.0")
    switched = parsed(f"--config={FOLDER}/cifar10.py", f"--config.method={method}")
    for config, strength in ((made, 2.0), (switched, 0.5)):
        validation.validate(config)
        assert problems.make_method(config).terms == (terms.zero_one(strength),)
    check(made, {"epochs": 200, "batch_size": 128, "method": method, "mine.strength": 2.0})
    switched.method += "s"
    with pytest.raises(
        ValueError, match=f"^config.method='{method}s' cannot be imported as MODULE:FUNCTION or FILE.py"
    ):
        validation.validate(switched)


def test_cells_found_in_ones_own_images_are_compared_as_images_eval_trains_them():
    section, training = flat(MODULES["images"].get_config().evaluation), flat(MODULES["images_eval"].get_config())
    same = section.keys() & training.keys() - {"epochs"}
    assert {name: section[name] for name in same} == {name: training[name] for name in same}


def test_sections_of_the_digits_config_are_their_own():
    config = MODULES["digits"].get_config()
    config.evaluation.augmentation.cutout = 2
    assert config.augmentation.cutout == 0 and config.evaluation.augmentation.pad == config.augmentation.pad == 1


@pytest.mark.parametrize("method", methods.NAMED)
def test_the_digits_config_fits_its_data_and_its_calls_are_epochs(method):
    config, digits = MODULES["digits"].get_config(method), sources.load("digits", num_examples=900)
    validation.validate_against_data(config, digits)
    assert len(digits.labels) // 2 // config.batch_size == config.steps_per_call
    assert len(digits.labels) // config.evaluation.batch_size == config.evaluation.steps_per_call
