"""DrNAS: Dirichlet Neural Architecture Search (Chen, Wang, Cheng, Tang, Hsieh, ICLR 2021)."""

import dataclasses
from typing import Annotated

from prdarts_jax.fields import at_least, each, whole
from prdarts_jax.refusals import shown
from prdarts_jax.search import relaxations, terms
from prdarts_jax.search.method import Method, Stage
from prdarts_jax.search.methods.darts import PAPER
from prdarts_jax.search.methods.named import named


@named(
    PAPER
    | {
        "weights.learning_rate": 0.1,
        "weights.end_learning_rate": 0.0,
        "logits.learning_rate": 6e-4,
        "space": "darts_no_none",
    }
)
def drnas(
    kl: Annotated[float, at_least(0)] = 0.0,
    partial: Annotated[tuple[int, ...], each(whole(1, 4096))] = (1,),
    ops: Annotated[tuple[int, ...], each(whole(2, 1000))] = (7,),
) -> Method:
    """Draws the op weights of an edge from a Dirichlet distribution whose concentration is trained.

    Args:
      kl: weight of the divergence from the uniform distribution. With 0, the authors' choice for CIFAR-10, weight decay
        of the logits does its work; in their code it is 0 if `kl` is not. Set `config.logits.weight_decay` accordingly.
      partial: K, one number per stage of the search: ops process 1/K of the channels. The authors' progressive search
        has (6, 4) with 36 channels. A config is refused if K does not divide its `channels`.
      ops: the number of candidate ops per edge, one number per stage; (7, 4) in the authors' progressive search. The
        first number has no effect. Each stage starts with new weights; in the authors' code the network grows.

    Raises:
      ValueError: the tuples differ in length.
    """
    if len(partial) != len(ops):
        raise ValueError(
            f"partial={shown(partial)} and ops={shown(ops)} must have the same length, one number per stage"
        )
    method = Method(relaxation=relaxations.Dirichlet(), terms=(terms.dirichlet_kl(kl),) if kl else ())
    stages = [dataclasses.replace(method, supernet={"partial": k} if k > 1 else {}) for k in partial]
    return dataclasses.replace(stages[0], stages=tuple(map(Stage, stages, ops)) if len(ops) > 1 else ())
