"""The theory lab: numerical checks of the convergence claims of PR-DARTS and Lambda-DARTS.

`model`, `gram` and `rates` are pure functions of arrays of any precision. `claims` computes both sides of what the
papers state, in float64, and gives a verdict.
"""
