"""The theory lab: the convergence claims of PR-DARTS and Lambda-DARTS, both sides of each computed.

`model`, `gram` and `rates` are pure functions of arrays of any precision; `claims` puts numbers and verdicts beside
what the papers state, in float64.
"""
