"""Methods composed in TOML files: equal to those composed in Python, searched, and refused by one sentence."""

import pytest
from shared import read_records, tiny_config, without_pictures

import prdarts_jax as pdx
from prdarts_jax.run import problems, search, settings, validation
from prdarts_jax.search import methods
from prdarts_jax.search.methods import composed
from prdarts_jax.search.schedules import Linear
from prdarts_jax.spaces import genotypes

DEEP = """
weights_first = true
logits_start = 0.25

[relaxation]
part = "AuxiliarySkip"
relaxation = {part = "HardConcrete", temperature = {part = "Linear", start = 5, end = 0.1}, draw = "largest"}

[[terms]]
part = "path_depth"
weight = 0.005

[[terms]]
part = "scheduled"
term = {part = "beta_decay", weight = 1}
schedule = {part = "Linear", start = 0, end = 2}

[inner]
part = "Alignment"
weight = {part = "Linear", start = 0, end = 0.1}
measure = {part = "sign_correlation"}

[hypergradient]
part = "Neumann"
products = 1

[smoothing]
part = "RandomSmoothing"

[freezing]
part = "OperationEarlyStopping"
window = 2

[discretization]
part = "strongest"
distinct_inputs = false

[after_epoch]
part = "Pruning"
ops = {part = "Linear", start = 3, end = 2}

[supernet]
partial = 2
dropout = "skip"

[dropout_rate]
part = "Linear"
start = 0.2
end = 0.0

[paper]
"logits.learning_rate" = 0.05
epochs = 1
"""


LINEAR = 'such as {part = "Linear", start = ..., end = ...}'


def linear(start, end):
    return f'{{part = "Linear", start = {start}, end = {end}}}'


@pytest.fixture
def write(tmp_path):
    def write(text, name="deep.toml"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_a_file_is_the_method_that_python_composes(write):
    expected = pdx.Method(
        relaxation=pdx.relaxations.AuxiliarySkip(
            relaxation=pdx.relaxations.HardConcrete(temperature=Linear(5, 0.1), draw="largest")
        ),
        terms=(pdx.terms.path_depth(0.005), pdx.terms.scheduled(pdx.terms.beta_decay(1), Linear(0, 2))),
        inner=pdx.alignment.Alignment(Linear(0, 0.1), pdx.alignment.sign_correlation),
        hypergradient=pdx.hypergradients.Neumann(products=1),
        smoothing=pdx.smoothing.RandomSmoothing(),
        freezing=pdx.OperationEarlyStopping(window=2),
        discretization=pdx.discretizations.strongest(distinct_inputs=False),
        weights_first=True,
        logits_start=0.25,
        after_epoch=pdx.Pruning(Linear(3, 2)),
        supernet={"partial": 2, "dropout": "skip"},
        dropout_rate=Linear(0.2, 0.0),
    )
    config = settings.search(write(DEEP))
    assert (config.logits.learning_rate, config.epochs) == (0.05, 1)
    assert problems.make_method(config) == expected == methods.find(write(DEEP))()
    assert methods.find(write("", "plain.toml"))() == pdx.Method()


def test_all_of_its_parts_are_searched_together(write, tmp_path):
    few = {"nodes": 3, "ops": "skip_connect,dil_conv_3x3"}  # which compile fastest
    config = tiny_config(write(DEEP), "darts", channels=4, cells=1, epochs=1, **few)
    with without_pictures():
        found = search.run(config, tmp_path / "run")
    (record,) = read_records(tmp_path / "run")
    assert found[config.seed] == genotypes.load(tmp_path / "run/genotype.json")
    assert {"temperature", "auxiliary_skip", "l_path", "l_beta", "alignment_train", "frozen"} <= record.keys()


def test_every_part_that_a_file_may_name_is_there():
    for field, parts in composed.PARTS.items():
        assert parts and all(callable(part) for part in parts.values()), field
    public = {name for name in pdx.relaxations.__all__ if name not in ("Arch", "Metrics", "Relaxation", "keys")}
    assert set(composed.PARTS["relaxation"]) == public


def test_every_term_that_a_file_may_name_can_be_written(write):
    others = {
        "scheduled": 'term = {part = "entropy", weight = 1}\nschedule = {part = "Linear", start = 0, end = 1}',
        "score_function": "",
    }
    assert {"beta_decay", "path_depth", *others} < set(composed.PARTS["terms"])
    for name in composed.PARTS["terms"]:
        text = f'[relaxation]\npart = "Policy"\n[[terms]]\npart = "{name}"\n{others.get(name, "weight = 1")}'
        assert len(methods.find(write(text))().terms) == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("weights_first = 1", "weights_first=1 must be of type bool"),
        ("logits_start = 2.0", "logits_start=2.0 must be from 0 to 1"),
        ("logits_start = nan", "logits_start=nan must be from 0 to 1"),
        ("relaxatoin = 1", "relaxatoin is not a field of a method; the fields are relaxation, "),
        (
            '[relaxation]\npart = "AuxiliarySkip"\nnoise = 0.1',
            "relaxation: got an unexpected keyword argument 'noise'; the arguments of AuxiliarySkip are relaxation, ",
        ),
        ('relaxation = "Softmax"', "relaxation='Softmax' must be a table with an entry part, one of AuxiliarySkip, "),
        ('[relaxation]\npart = "Sofmax"', "relaxation.part='Sofmax' must be one of .*; did you mean 'Softmax'"),
        (
            '[relaxation]\npart = "Softmax"\ntau = 1',
            "relaxation: got an unexpected keyword argument 'tau'; the arguments of Softmax are initial, noise$",
        ),
        ('[relaxation]\npart = "Gumbel"\ntemperature = 1.0', f"relaxation.temperature=1.0 must be a table .*{LINEAR}$"),
        (
            '[relaxation]\npart = "HardConcrete"\ndraw = "all"',
            "relaxation.draw='all' must be one of uniform, largest",
        ),
        ('[terms]\npart = "entropy"', "terms={.*} must be a list of parts, written as .*"),
        ('[[terms]]\npart = "entropy"', r"terms\[0\]: missing a required .*; the arguments of entropy are weight$"),
        ('[[terms]]\npart = "entropy"\nweight = "big"', r"terms\[0\].weight='big' must be of type float"),
        (
            '[[terms]]\npart = "entropy"\nweight = {part = "Linear", start = 0, end = 1}',
            r"terms\[0\].weight={.*} must be of type float; over time: {part = \"scheduled\", term = ..., schedule",
        ),
        ('[[terms]]\npart = "Linear"\nstart = 1\nend = 0', r"terms\[0\].part='Linear' must be one of beta_decay, "),
        ("[supernet]\ncells = 3", "supernet.cells is not a field that a method sets; the fields are partial, dropout"),
        ('[supernet]\ndropout = "all"', "supernet.dropout='all' must be one of '', skip, path, nonskip"),
        ("[supernet]\npartial = 0", "supernet.partial=0 must be from 1 to"),
        ('[supernet]\ndropout = "skip"', "supernet.dropout and dropout_rate must be given together"),
        (f"logits_start = 1{'0' * 400}", "logits_start=an integer of 1329 bits must be from 0 to 1"),
        (
            '[[terms]]\npart = "scheduled"\nterm = {part = "Softmax"}\nschedule = 1979-05-27',
            r"terms\[0\].term.part='Softmax' must be one of beta_decay",
        ),
        ('[hypergradient]\npart = "Unrolled"\nsteps = 0', "hypergradient.steps=0 must be from 1 to 1000"),
        ('[smoothing]\npart = "AdversarialSmoothing"\nsteps = 0', "smoothing.steps=0 must be from 1 to 1000"),
        ('[freezing]\npart = "OperationEarlyStopping"\nwindow = 0', "freezing.window=0 must be from 1 to 1000000"),
        ('[[terms]]\npart = "score_function"', "terms: score_function must be with relaxation.part='Policy'"),
        ("paper = 3", "paper=3 must be of type dict"),
        (
            '[inner]\npart = "Alignment"\nweight = 0.125',
            f"inner.weight=0.125 must be a table .*, one of Linear, {LINEAR}$",
        ),
        (
            f'[inner]\npart = "Alignment"\nweight = {linear(0, 1)}\nmeasure = "cosine"',
            "inner.measure='cosine' must be a table with an entry part, one of cosine, sign_correlation, such as",
        ),
        (
            '[[terms]]\npart = "path_depth"\nweight = 1\n[[terms]]\npart = "scheduled"\n'
            f'term = {{part = "path_depth", weight = 1}}\nschedule = {linear(0, 1)}',
            "terms must be different parts, not path_depth, path_depth$",
        ),
        ('[[terms]]\npart = "expected_cost"\nweight = 1', r"terms\[0\].part=.*; set config.cost.target instead$"),
        (
            '[relaxation]\npart = "Gumbel"\n[smoothing]\npart = "AdversarialSmoothing"',
            "smoothing has no effect with relaxation.part='Gumbel'",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named(write, text, message):
    with pytest.raises(ValueError, match=r"^method='.*deep.toml': " + message) as error:
        methods.find(write(text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            f'[relaxation]\npart = "Concrete"\ntemperature = {linear(1, 0.0)}',
            "relaxation.temperature.end=0.0 must be above 0 and",
        ),
        (
            '[relaxation]\npart = "AuxiliarySkip"\n'
            f'relaxation = {{part = "HardConcrete", temperature = {linear(-1, 1)}}}',
            "relaxation.relaxation.temperature.start=-1 must be above 0 and",
        ),
        (
            f'[relaxation]\npart = "Gumbel"\ntemperature = {linear(1, 0.0)}',
            "relaxation.temperature.end=0.0 must be above 0 and",
        ),
        (
            f'[relaxation]\npart = "AuxiliarySkip"\nweight = {linear(1, -1)}',
            "relaxation.weight.end=-1 must be from 0 to",
        ),
        ('[relaxation]\npart = "Softmax"\nnoise = -0.1', "relaxation.noise=-0.1 must be from 0 to"),
        (
            f'[smoothing]\npart = "RandomSmoothing"\nradius = {linear(-0.1, 1)}',
            "smoothing.radius.start=-0.1 must be from 0 to",
        ),
        (
            f'[smoothing]\npart = "AdversarialSmoothing"\nradius = {linear(0, -1)}',
            "smoothing.radius.end=-1 must be from 0 to",
        ),
        (f'[inner]\npart = "Alignment"\nweight = {linear(0, -1)}', "inner.weight.end=-1 must be from 0 to"),
        (f'[after_epoch]\npart = "Pruning"\nops = {linear(8, -1)}', "after_epoch.ops.end=-1 must be from 0 to"),
        (
            f'dropout_rate = {linear(0, 1.4)}\n[supernet]\ndropout = "skip"',
            "dropout_rate.end=1.4 must be at least 0 and below 1",
        ),
        (
            'dropout_rate = {part = "LinearThenExponential", start = 1.4, knee = 0, rate = 1}\n'
            '[supernet]\ndropout = "skip"',
            "dropout_rate.start=1.4 must be at least 0 and below 1",
        ),
        (
            'dropout_rate = {part = "LinearThenExponential", start = 0.4, knee = 2, rate = 1}\n'
            '[supernet]\ndropout = "skip"',
            "dropout_rate.knee=2 must be from 0 to 1",
        ),
        (
            'dropout_rate = {part = "LinearThenExponential", start = 0.4, knee = 0, rate = -1}\n'
            '[supernet]\ndropout = "skip"',
            "dropout_rate.rate=-1 must be from 0 to",
        ),
        *(
            (f'[[terms]]\npart = "{term}"\nweight = -1', r"terms\[0\].weight=-1 must be from 0 to")
            for term in ("beta_decay", "dirichlet_kl", "nonskip_sparsity", "path_depth", "skip_sparsity", "zero_one")
        ),
        (
            '[[terms]]\npart = "skip_sparsity"\nweight = 1\nthreshold = -1',
            r"terms\[0\].threshold=-1 must be from 0 to 1",
        ),
    ],
)
def test_a_number_out_of_range_is_named(write, text, message):
    with pytest.raises(ValueError, match=r"^method='.*deep.toml': " + message):
        methods.find(write(text))


def test_a_file_that_is_none_is_refused(write, tmp_path):
    with pytest.raises(ValueError, match=r"^method='.*deep.toml' is not a TOML file: "):
        methods.find(write("[relaxation"))
    with pytest.raises(FileNotFoundError, match=r"^method .*none.toml does not exist or is not a file$"):
        methods.find(str(tmp_path / "none.toml"))
    config = tiny_config()
    config.method = str(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="^config.method='.*none.toml': "):
        validation.validate(config)


@pytest.mark.parametrize(
    "paper", ["epohcs = 3", '"logits.learning_rate" = "fast"', '"logits.speed" = 1', "epochs = -1"]
)
def test_settings_of_its_paper_are_checked_like_others(write, paper):
    with pytest.raises(ValueError, match=r"^(config\.|method=)"):
        validation.validate(settings.search(write(f"[paper]\n{paper}")))


def test_a_method_may_be_a_value_of_a_module(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import prdarts_jax as pdx\nDEEP = pdx.Method(terms=(pdx.terms.path_depth(0.1),))\n"
    )
    name = f"{tmp_path / 'mine.py'}:DEEP"
    assert methods.find(name)() == pdx.Method(terms=(pdx.terms.path_depth(0.1),))
    assert problems.make_method(settings.search(name)) == methods.find(name)()
