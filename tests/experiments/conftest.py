"""What stands in for searches, and for the accuracies of NAS-Bench-201."""

import dataclasses
import json

import numpy as np
import pytest
import scripts
from table import make_table

from prdarts_jax import spaces
from prdarts_jax.run import architecture, problems, reporting, run_log


@pytest.fixture
def made_up_searches(monkeypatch):
    """In place of searches: logits that are drawn anew in each epoch, and the cells derived from them."""

    def searching(config, workdir):
        rng, space = np.random.default_rng(config.seed), spaces.named(config.space)
        (workdir / "architecture").mkdir(parents=True)
        lines = []
        for epoch in range(config.epochs):
            logits = {t: rng.normal(size=space.shape) for t in space.cell_types}
            architecture.save(workdir, epoch, logits, {})
            genotype = problems.make_method(config).derive(space, logits)
            line = {"epoch": epoch, "genotype": dataclasses.asdict(genotype), "benchmark": {"accuracy": 50.0}}
            line |= {"skip_share": {"normal": 0.5}, "entropy": {"normal": 1.0}, "alignment_val": 0.1}
            lines.append(json.dumps(line) + "\n")
        reporting.write_bytes(workdir / run_log.METRICS, "".join(lines).encode())
        reporting.write_json(workdir / "doubts.json", [])
        return {config.seed: genotype}

    monkeypatch.setattr(scripts.load("family").search, "run", searching)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Of NAS-Bench-201's cells, made up."""
    return scripts.write_table(tmp_path_factory.mktemp("table") / "table.txt", "digits")


@pytest.fixture(scope="module")
def supernet_of_a_table():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "make_supernet", make_table)
        yield
