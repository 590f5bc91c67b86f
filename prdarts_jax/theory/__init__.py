"""The theory lab: numerical checks of the convergence claims of PR-DARTS and Lambda-DARTS.

`model`, `gram` and `rates` are pure functions of arrays of any precision. `claims` reads what the papers state, each
claim's module measures both sides, and `verdicts` judges them.
"""
