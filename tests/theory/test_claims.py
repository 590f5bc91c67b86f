"""How a claim is checked: in float64, which is switched on for it alone, from one seed."""

import chain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import arrays, assert_identical

from prdarts_jax.search.step import search_step
from prdarts_jax.theory import claims
from prdarts_jax.theory.settings import Settings

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_a_check_is_in_float64_and_leaves_a_search_in_float32(monkeypatch):
    problem, train_batch, val_batch = chain.make_problem(), chain.make_batch(4), chain.make_batch(5)
    state = chain.start(problem, jax.random.key(1), train_batch["image"])
    step = jax.jit(search_step, static_argnums=0)
    before = step(problem, state, train_batch, val_batch)
    inside = []

    def probe(key, settings):
        inside.append((jax.random.normal(key).dtype, jnp.zeros(()).dtype, settings))
        if settings.draws == 0:
            raise RuntimeError("in the middle")
        return "checked"

    monkeypatch.setitem(claims.NAMED, "probe", probe)
    settings = Settings()
    assert claims.check("probe", 0, settings) == "checked"
    assert inside == [(np.dtype(np.float64), np.dtype(np.float64), settings)]
    with pytest.raises(RuntimeError, match="in the middle"):
        claims.check("probe", 0, Settings(draws=0))
    assert jnp.zeros(()).dtype == np.float32 and not jax.config.jax_enable_x64

    again = step(problem, state, train_batch, val_batch)
    anew = jax.jit(lambda *given: search_step(problem, *given))(state, train_batch, val_batch)  # traced only now
    for after in (again, anew):
        assert_identical(after, before)
        assert {a.dtype for a in arrays(after)} == {np.dtype(kind) for kind in ("float32", "int32", "uint32")}
    assert {leaf.dtype for leaf in jax.tree.leaves((anew[0].params, anew[0].arch, anew[1]))} == {np.dtype(np.float32)}
