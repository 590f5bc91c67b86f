"""Reading claims from a file: those of the papers, one of one's own, and what is refused."""

import inspect
import re

import pytest

from prdarts_jax.theory import claims

OWN = """
[large]
statement = "Wide networks have large Gram matrices."
measure = "my_measures.py:trace"
for_all = {activation = ["softplus", "tanh"]}
replicates = {width = [2, 3], seed = [1, 2]}
sizes = {draws = 5, scale = 1.5}
quick = {draws = 3, activation = ["tanh"]}

[large.predictions.above]
says = "the trace is above 1"
role = "claim"
of = ["trace"]
test = "mean_above"
threshold = 1.0

[small]
statement = "They are small."
like = "large"

[small.predictions.below]
says = "the trace is below 1"
role = "claim"
of = ["trace"]
test = "mean_within"
above = 0.0
below = 1.0
"""

MEASURE = """
import jax
def trace(key, *, activation, width, draws, scale):
    return {"trace": width * scale + jax.random.uniform(key, (draws,))}
"""


@pytest.fixture
def own(tmp_path):
    """Writes a file of claims beside its module, and returns its path."""
    (tmp_path / "my_measures.py").write_text(MEASURE)

    def write(text=OWN):
        path = tmp_path / "my_claims.toml"
        path.write_text(text)
        return path

    return write


def test_a_claim_of_ones_own_is_read_with_its_function_and_sizes(own):
    found = claims.read(own(), thorough=True)
    large, small = found["large"], found["small"]
    assert large.for_all == {"activation": ("softplus", "tanh")} and large.sizes == {"draws": 5, "scale": 1.5}
    assert large.measure.__name__ == "trace" and list(large.predictions) == ["above"]
    above = large.predictions["above"]
    assert (above.role, above.of, above.test, above.arguments) == (
        "claim",
        ("trace",),
        "mean_above",
        {"threshold": 1.0},
    )
    assert (small.measure, small.replicates, small.sizes) == (large.measure, large.replicates, large.sizes)
    assert small.statement == "They are small." and list(small.predictions) == ["below"]


def test_a_quick_check_has_its_own_sizes_and_a_caller_may_give_others(own):
    for claim in claims.read(own()).values():
        assert claim.for_all == {"activation": ("tanh",)} and claim.sizes == {"draws": 3, "scale": 1.5}
        other = claim.with_sizes({"width": [7], "draws": 9})
        assert other.replicates == {"width": (7,), "seed": (1, 2)} and other.sizes == {"draws": 9, "scale": 1.5}


@pytest.mark.parametrize(
    "sizes, said",
    [
        (
            {"widths": [3]},
            "size 'widths' of claim large must be one of activation, width, seed, draws, scale; did you ",
        ),
        ({"width": 3}, "width=3 of claim large must be a list of int"),
        ({"width": []}, "width=[] of claim large must be a list of int"),
        ({"width": [3, "4"]}, "width=[3, '4'] of claim large must be a list of int"),
        ({"draws": [3]}, "draws=[3] of claim large must be of type int"),
        ({"draws": "3"}, "draws='3' of claim large must be of type int"),
        ({"activation": [1]}, "activation=[1] of claim large must be a list of str"),
        ({"draws": 0}, "draws=0 of claim large must be from 1 to 1000000000"),
        ({"width": [3, -1]}, "width=[3, -1] of claim large must be from 1 to"),
        ({"seed": [2**40]}, "seed=[1099511627776] of claim large must be from 0 to 4294967295"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, said, own):
    with pytest.raises(ValueError, match=re.escape(said)):
        claims.read(own())["large"].with_sizes(sizes)


@pytest.mark.parametrize(
    "old, new, said",
    [
        (OWN, "", "my_claims.toml must have a table for each claim"),
        (OWN, "[large", "my_claims.toml is no TOML file: "),
        (OWN, "large = 3", "claim 'large' of .* must be a table"),
        ('statement = "Wide', 'statements = "Wide', "'statements' of claim 'large' of .* must be one of statement, "),
        (
            'statement = "Wide networks have large Gram matrices."\n',
            "",
            "claim 'large' of .* must have statement, a text",
        ),
        ("sizes = {draws = 5, scale = 1.5}", "sizes = 3", "sizes=3 of claim 'large' of .* must be a table"),
        ("width = [2, 3]", "width = 2", "width=2 of claim 'large' of .* must be a list of values of one type"),
        ("width = [2, 3]", 'width = [2, "a"]', "must be a list of values of one type"),
        (", seed = [1, 2]", "", "replicates of claim 'large' of .* must have seed, a list of whole numbers"),
        ("seed = [1, 2]", "seed = [1.5, 2.0]", "must have seed, a list of whole numbers"),
        ("threshold = 1.0", 'threshold = "high"', "threshold='high' of prediction .* must be a number"),
        (", scale = 1.5", "", "must give the sizes that my_measures.py:trace takes, but scale differ"),
        ("my_measures.py:trace", "my_measures.py:none", "measure='.*:none' cannot be imported as MODULE:FUNCTION or "),
        (
            "my_measures.py:trace",
            "trace",
            "measure='.*trace' cannot be imported as MODULE:FUNCTION or FILE.py:FUNCTION",
        ),
        (
            'role = "claim"',
            'role = "side"',
            "role='side' of prediction 'above' of claim 'large' of .* must be one of claim",
        ),
        ('test = "mean_above"', 'test = "mean"', "test='mean' of prediction 'above' of .* must be one of mean_above, "),
        (
            "threshold = 1.0",
            "thresh = 1.0",
            "prediction 'above' of .* does not fit its test mean_above: got an unexpected",
        ),
        ('of = ["trace"]', 'of = ["a", "b"]', "prediction 'above' of .* does not fit its test mean_above: too many"),
        ('says = "the trace is above 1"\n', "", "prediction 'above' of claim 'large' of .* must have says, a text"),
        (
            'role = "claim"',
            'role = "context"',
            "predictions of claim 'large' of .* must have one whose role is 'claim'",
        ),
        ('like = "large"', 'like = "larg"', "like='larg' of claim 'small' of .* must be the name of another claim"),
        ("draws = 3", "draws = 3.5", "draws=3.5 of claim large must be of type int"),
    ],
)
def test_what_cannot_be_a_file_of_claims_is_refused_in_one_sentence(old, new, said, own):
    assert old in OWN
    with pytest.raises(ValueError, match=said) as error:
        claims.read(own(OWN.replace(old, new, 1)))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="file of claims .*none.toml does not exist or is not a file"):
        claims.read(tmp_path / "none.toml")


@pytest.mark.parametrize("name, claim", claims.read(thorough=True).items())
def test_claims_of_the_papers_have_five_seeds_and_two_widths(name, claim):
    """Or as many draws, where a draw is a search of its own; or no width, where there is no network."""
    replicates = {size: len(values) for size, values in claim.replicates.items()}
    assert replicates.pop("seed") >= 5 or claim.sizes["draws"] >= 5
    takes_width = {"width", "channels"} & set(inspect.signature(claim.measure).parameters)
    assert not takes_width or max(replicates.values()) >= 2
    if "activation" in {**claim.for_all, **claim.sizes}:
        assert claim.for_all["activation"] == ("softplus", "sigmoid", "tanh")


def test_a_quick_check_measures_less_of_the_same():
    quick, thorough = claims.read(), claims.read(thorough=True)
    assert list(quick) == list(thorough)
    for name, claim in quick.items():
        assert claim.predictions == thorough[name].predictions
        assert claim.measure is thorough[name].measure
