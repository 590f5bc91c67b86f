"""The searches that a comparison compares, and how samples are told apart."""

import re

import numpy as np
import pytest
import scipy.stats
import scripts

from prdarts_jax.run import settings
from prdarts_jax.search import methods

family = scripts.load("family")


def test_fields_are_values_or_text():
    found = family.parse_fields("epochs=1,p_darts.cells=(1, 2),space=s2,data_dir=/a/b,logits.start=None")
    assert found == {"epochs": 1, "p_darts.cells": (1, 2), "space": "s2", "data_dir": "/a/b", "logits.start": None}
    assert family.parse_fields("") == {}
    with pytest.raises(ValueError, match="'epochs' must have the form FIELD=VALUE"):
        family.parse_fields("epochs")


def test_a_variant_is_the_base_with_a_method_its_settings_and_what_regularises():
    base = family.small_config("darts", "")
    for name, method in methods.NAMED.items():
        config = family.variant(base, name)
        expected = family.with_fields(base, {"method": name})
        for field in ("weight_decay", "nesterov"):
            expected.weights[field] = method.paper.get(f"weights.{field}", base.weights[field])
        expected.logits.weight_decay = method.paper.get("logits.weight_decay", base.logits.weight_decay)
        assert config.to_dict() == expected.to_dict()
    assert family.variant(base, "r_darts").weights.weight_decay == 27e-4
    assert family.variant(base, "beta_darts").logits.weight_decay == 0 < base.logits.weight_decay
    config = family.variant(base, "r_darts:drop_path=0.2,weights.weight_decay=3e-4")
    assert (config.r_darts.drop_path, config.weights.weight_decay) == (0.2, 3e-4)
    assert base.to_dict() == family.small_config("darts", "").to_dict()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("enas", "method='enas' must be one of pr_darts, "),
        ("darts:speed=1", "config.darts.speed is not a field of this config; the fields are "),
        ("lambda_darts:variant=sine", "config.lambda_darts.variant='sine' must be one of cosine, signcorr"),
        ("gdas:start_temperature=hot", "config.gdas.start_temperature='hot' must be of type float"),
    ],
)
def test_an_impossible_variant_is_refused(text, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        family.variant(settings.search(), text)


def test_variants_have_folders_of_their_own(tmp_path):
    folders = {family.workdir(tmp_path, name, seed) for name in family.VARIANTS for seed in (0, 1)}
    assert len(folders) == 2 * len(family.VARIANTS) and {folder.parent for folder in folders} == {tmp_path}
    assert family.workdir(tmp_path, "darts:second_order=True", 0).name == "darts_second_order_True_seed_0"


def test_samples_are_told_apart_by_intervals_that_hold_together():
    """Dunnett's critical value for two samples of equal size and 16 degrees of freedom is 2.42 (his table of 1964).
    Here the control is larger; the value is between that of a single t test and Bonferroni's."""
    rng = np.random.default_rng(0)
    samples = {"good": 3 + rng.normal(size=5), "control": rng.normal(size=9), "same": rng.normal(size=5)}
    pooled = sum(((values - values.mean()) ** 2).sum() for values in samples.values()) / 16
    error = (pooled * (1 / 5 + 1 / 9)) ** 0.5
    _, head, _, *found = family.beside(
        samples | {"good": [*samples["good"], np.nan], "none": [np.nan]}, "control", "accuracy"
    ).splitlines()
    assert head == "| | accuracy beside `control` | |"
    for row, (name, verdict) in zip(found, {"good": "better", "same": "cannot be told apart"}.items(), strict=True):
        kind, difference, said = row.strip("| ").split(" | ")
        mean, half = map(float, difference.split(" ± "))
        assert (kind, said) == (f"`{name}`", verdict)
        assert mean == pytest.approx(samples[name].mean() - samples["control"].mean(), abs=0.006)
        assert scipy.stats.t.ppf(0.975, 16) < half / error < scipy.stats.t.ppf(1 - 0.025 / 2, 16)
        assert half / error == pytest.approx(2.42, abs=0.05)


@pytest.mark.parametrize("samples", [{"a": [1.0, 2.0]}, {"a": [np.nan], "b": [1.0, 2.0]}, {"a": [1.0], "b": [2.0]}])
def test_samples_without_a_spread_or_another_are_not_compared(samples):
    assert family.beside(samples, "a", "accuracy") == ""
