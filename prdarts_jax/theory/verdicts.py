"""Measuring a claim in all of its cases and replicates, and judging the draws.

from prdarts_jax.theory import claims, verdicts
claim = claims.read()["theorem4_constants"]
print(verdicts.judge(claim, verdicts.measure(claim)).share)
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from prdarts_jax import refusals
from prdarts_jax.theory.claims import Claim, Draws, Role
from prdarts_jax.theory.findings import LEVEL, TESTS, Result, Verdict

AGREE = 0.8  # the share of the replicates that a verdict needs


class Finding(NamedTuple):
    """A prediction in one case, and what its test found in each replicate.

    Attributes:
      name: of the prediction.
      says: the prediction.
      role: 'claim' or 'context'.
      case: the sizes of the case, in words; '' if there is only one case.
      test: name and arguments of the test, in words.
      results: of the replicates.
    """

    name: str
    says: str
    role: Role
    case: str
    test: str
    results: tuple[Result, ...]

    @property
    def verdicts(self) -> list[Verdict]:
        """Of the replicates."""
        return [result.verdict for result in self.results]


class ClaimReport(NamedTuple):
    """A claim with its findings, by prediction and then by case, and the sizes of the replicates in words."""

    claim: str
    statement: str
    setting: str
    replicates: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def verdicts(self) -> list[Verdict]:
        """For each replicate 'fails' if a finding of the role 'claim' does, 'holds' if all do, else 'inconclusive'."""
        deciding = [finding.verdicts for finding in self.findings if finding.role == "claim"]
        return [
            "fails" if "fails" in found else "inconclusive" if "inconclusive" in found else "holds"
            for found in zip(*deciding, strict=True)
        ]


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of at least 80 % of the replicates, else 'inconclusive'."""
    agreed: tuple[Verdict, ...] = ("holds", "fails")
    return next((of for of in agreed if verdicts.count(of) >= AGREE * len(verdicts)), "inconclusive")


def share(verdicts: Sequence[Verdict]) -> str:
    """The overall verdict with the number of replicates that have it.

    >>> share(["holds"] * 9 + ["inconclusive"]), share(["holds", "fails", "inconclusive"])
    ('holds 9/10', 'inconclusive (1 holds, 1 fails, of 3)')
    """
    verdict, number = overall(verdicts), len(verdicts)
    if verdict == "inconclusive":
        return f"inconclusive ({verdicts.count('holds')} holds, {verdicts.count('fails')} fails, of {number})"
    return f"{verdict} {verdicts.count(verdict)}/{number}"


def _combinations(values: Mapping[str, tuple]) -> list[dict[str, Any]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _words(sizes: Mapping[str, Any]) -> str:
    return ", ".join(value if isinstance(value, str) else f"{name} {value}" for name, value in sizes.items())


def steps(claim: Claim) -> Iterator[dict[str, Any]]:
    """The sizes of each measurement, with `seed` and `replicate`, the number of the replicate: case by case."""
    for case in _combinations(claim.for_all):
        for number, replicate in enumerate(_combinations(claim.replicates)):
            yield {**claim.sizes, **case, **replicate, "replicate": number}


def measure_one(claim: Claim, sizes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The draws of one of the `steps`, in float64, which is enabled only during this call.

    All replicates have different random numbers; the cases of a replicate have the same.
    """
    others = {name: value for name, value in sizes.items() if name not in ("seed", "replicate")}
    with jax.enable_x64(True):
        key = jax.random.fold_in(jax.random.key(sizes["seed"]), sizes["replicate"])
        return {name: np.asarray(values) for name, values in claim.measure(key, **others).items()}


def measure(claim: Claim) -> list[Draws]:
    """The draws of all `steps`."""
    return [measure_one(claim, sizes) for sizes in steps(claim)]


def judge(claim: Claim, draws: Sequence[Draws]) -> ClaimReport:
    """Tests all predictions on the draws of the `steps`.

    The predictions of the role 'claim', in all cases together, give a false verdict with a probability of at most 5 %
    in a replicate (Bonferroni); each of the role 'context' has 5 % to itself.

    Raises:
      ValueError: a prediction is about something that was not measured.
    """
    cases, replicates = _combinations(claim.for_all), _combinations(claim.replicates)
    deciding = len(cases) * sum(prediction.role == "claim" for prediction in claim.predictions.values())
    findings = []
    for name, prediction in claim.predictions.items():
        for of in prediction.of:
            if of not in draws[0]:
                known = refusals.listed(of, sorted(draws[0]))
                raise ValueError(
                    f"prediction {name} of claim {claim.name} is of {of!r}, but what is measured is {known}"
                )
        level = LEVEL / deciding if prediction.role == "claim" else LEVEL
        arguments = ", ".join(f"{argument} {value:g}" for argument, value in prediction.arguments.items())
        for number, case in enumerate(cases):
            of_case = draws[number * len(replicates) : (number + 1) * len(replicates)]
            results = tuple(
                TESTS[prediction.test](*(one[of] for of in prediction.of), level=level, **prediction.arguments)
                for one in of_case
            )
            test = f"{prediction.test} {arguments}".strip()
            findings.append(Finding(name, prediction.says, prediction.role, _words(case), test, results))
    return ClaimReport(
        claim.name, claim.statement, _words(claim.sizes), tuple(map(_words, replicates)), tuple(findings)
    )
