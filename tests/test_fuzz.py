"""Whatever stands in a file, on the command line or in a call is taken, or refused by one short sentence, and soon.

In `make test` each kind of input is drawn a few times, the same in every run; `make fuzz` draws others for minutes.
"""

import time

import hypothesis
import pytest
import wrong_files
import wrong_images
import wrong_texts

pytestmark = pytest.mark.filterwarnings("ignore")

FEW, MANY = 10, 500  # examples at once
SECONDS = 20  # of an input

KINDS = [wrong_texts.genotype_texts, wrong_texts.genotype_notations, wrong_texts.calls, wrong_texts.configs]
KINDS += [wrong_texts.command_lines, wrong_texts.config_files]
KINDS += [wrong_files.metrics, wrong_files.checkpoint_files, wrong_files.architectures, wrong_files.tables]
KINDS += [wrong_files.pytorch_files, wrong_files.runs]
KINDS += [wrong_images.tfds_folders, wrong_images.image_folders, wrong_images.npz_files, wrong_images.cifar_folders]
KINDS += [wrong_images.image_files]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_wrong_is_refused_by_one_sentence(kind, tmp_path, request, monkeypatch):
    more = [request.getfixturevalue("command"), monkeypatch] if kind is wrong_texts.command_lines else []
    inputs, read = kind(tmp_path, *more)
    minutes, count, start = request.config.getoption("fuzz"), 0, time.monotonic()

    def once(value):
        nonlocal count
        count, begin = count + 1, time.monotonic()
        read(value)
        assert time.monotonic() - begin < SECONDS

    number = time.time_ns() if minutes else 0
    checks = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
    examples = hypothesis.settings(
        max_examples=MANY if minutes else FEW, deadline=None, database=None, suppress_health_check=checks
    )
    while not count or time.monotonic() - start < 60 * minutes / len(KINDS):
        hypothesis.seed(number)(examples(hypothesis.given(inputs)(once)))()
        number += 1
    print(f"\n{kind.__name__}: {count} inputs in {time.monotonic() - start:.0f} s")
