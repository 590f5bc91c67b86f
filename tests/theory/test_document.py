"""experiments/theory.md against the results that it reports: the table of findings, and every decimal number in it."""

import json
import re
from pathlib import Path

from prdarts_jax.theory import job

FOLDER = Path(__file__).parents[2] / "experiments"
TEXT = (FOLDER / "theory.md").read_text()


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) else []


def test_the_table_is_that_of_the_results():
    table = job.table(FOLDER / "theory")
    assert table in TEXT and (FOLDER / "theory" / "claims.md").read_text() == table


def test_every_decimal_number_is_one_of_the_results():
    reports = [json.loads(path.read_text()) for path in sorted((FOLDER / "theory" / "claims").glob("*.json"))]
    known = [
        abs(number)
        for report in reports
        for number in numbers([[f["measured"], f["low"], f["high"], f["margin"]] for f in report["findings"]])
        + numbers(report["details"])
    ]
    prose = TEXT.replace(job.table(FOLDER / "theory"), "")
    tokens = re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", prose)
    assert len(tokens) > 50
    for token in tokens:
        decimals = len(token.partition(".")[2])
        assert any(abs(number - float(token)) <= 0.5001 * 10**-decimals for number in known), token
