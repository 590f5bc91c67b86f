"""experiments/theory.md against the results that it reports: the table of findings, and every number by its key.

A number of the results is followed by a comment that names it: 0.63 <!-- CLAIM.PREDICTION.CASE.FIELD -->, where CASE is
'all' if there is only one, and FIELD is median, lowest, highest or share; or <!-- CLAIM.share -->.
"""

import json
import re
from pathlib import Path

import pytest

from prdarts_jax.theory import claims, report

FOLDER = Path(__file__).parents[2] / "experiments"
TEXT = (FOLDER / "theory.md").read_text()
RESULTS = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "theory" / "claims").glob("*.json")}
TABLE = report.table(RESULTS[name] for name in claims.read() if name in RESULTS)
KEY = r" ?<!-- ([^>]+) -->"


def prose():
    """The text without the table, code and pictures."""
    text = TEXT.replace(TABLE, "")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`]*`|!?\[([^\]]*)\]\([^)]*\)", r"\1", text)


def value_of(key):
    claim, *rest = key.split(".")
    found = RESULTS[claim]
    if len(rest) > 1:
        prediction, case, field = rest
        return found["findings"][prediction]["cases"][case][field]
    return found[rest[0]]


def test_the_table_is_that_of_the_results():
    assert TABLE in TEXT and (FOLDER / "theory" / "claims.md").read_text() == TABLE


def test_results_are_of_the_predictions_that_are_written_down():
    for name, claim in claims.read(thorough=True).items():
        if name not in RESULTS:
            continue
        written = RESULTS[name]["findings"]
        assert {key: of["says"] for key, of in written.items()} == {k: p.says for k, p in claim.predictions.items()}
        assert RESULTS[name]["statement"] == claim.statement


def test_every_number_has_a_key_and_is_its_value():
    text = prose()
    numbers = re.findall(rf"(?<![\w./])(-?\d+\.\d+)(?![\w.]*\d)(?:{KEY})?", text)
    shares = re.findall(rf"((?:holds|fails) \d+/\d+|inconclusive \(.*?\))(?:{KEY})?", text)
    assert len(shares) >= len(RESULTS) and len(numbers) >= len(RESULTS)
    for token, key in numbers:
        assert key, f"{token} has no key"
        decimals = len(token.partition(".")[2])
        assert abs(value_of(key) - float(token)) <= 0.5001 * 10**-decimals, (token, key, value_of(key))
    for token, key in shares:
        assert key, f"{token!r} has no key"
        assert value_of(key) == token, (token, key, value_of(key))


@pytest.mark.parametrize("name", claims.read())
def test_every_claim_is_spoken_of_or_said_to_have_not_been_run(name):
    assert f"<!-- {name}." in prose() if name in RESULTS else f"`{name}`" in TEXT
