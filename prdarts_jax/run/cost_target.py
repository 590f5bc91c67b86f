"""`config.cost.target`: what the networks of a cell cost, and the term that keeps the cost below the target."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from prdarts_jax import devices
from prdarts_jax.nets import costs
from prdarts_jax.run import reporting, settings
from prdarts_jax.search import terms
from prdarts_jax.search.method import Method


def costs_of(config: ConfigDict, workdir: Path, num_classes: int, image_shape: tuple[int, ...]) -> costs.Costs:
    """The costs of the networks that `config.evaluation` describes, in the unit of `config.cost.kind` (`costs.UNITS`).

    Measured latencies vary, so they are measured once: the first process writes them to costs.json in `workdir`, and
    all read them from there as long as it is of the same networks. `image_shape` is (height, width, channels).

    Raises:
      ValueError: costs.json is damaged.
    """
    if config.cost.kind != "latency":
        return _make(config, num_classes, image_shape)
    path, space = workdir / "costs.json", settings.space_of(config)
    network = [config.form, config.evaluation.channels, config.evaluation.cells, num_classes, *image_shape, *space.ops]
    if devices.is_main() and not (path.exists() and reporting.read_json(path).get("network") == network):
        made = _make(config, num_classes, image_shape)
        arrays = {cell_type: array.tolist() for cell_type, array in made.arrays().items()}
        reporting.write_json(path, {"network": network, "fixed": made.fixed, "of_ops": arrays})
    devices.barrier("costs")
    read = reporting.read_json(path)
    try:
        arrays = {t: np.array(read["of_ops"][t], float).reshape(space.shape).tolist() for t in space.cell_types}
        return costs.Costs(space, float(read["fixed"]), tuple((t, tuple(map(tuple, a))) for t, a in arrays.items()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}): use another --workdir") from error


def _make(config, num_classes, image_shape):
    section = config.evaluation
    return costs.of_network(
        settings.space_of(config),
        config.cost.kind,
        form=config.form,
        channels=section.channels,
        cells=section.cells,
        num_classes=num_classes,
        image_shape=image_shape,
    )


def with_target(config: ConfigDict, method: Method, of_ops: costs.Costs) -> Method:
    """The method with a term that keeps the cost of its cell at `config.cost.target` or below.

    Raises:
      ValueError: a network without any ops costs more than the target.
    """
    if of_ops.fixed >= config.cost.target:
        unit = costs.UNITS[config.cost.kind]
        raise ValueError(
            f"config.cost.target={config.cost.target:g} must be above {of_ops.fixed:g}, the {unit} of the network of "
            "config.evaluation without the ops of its cells"
        )
    strongest: Any = method.discretization  # `validation.validate` allows no other one
    term = terms.expected_cost(
        config.cost.weight,
        config.cost.target,
        of_ops,
        distinct_inputs=strongest.distinct_inputs,
        scores=method.relaxation.scores,
    )
    return dataclasses.replace(method, terms=(*method.terms, term))
