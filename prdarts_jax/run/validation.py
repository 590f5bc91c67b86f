"""Refuses configs of searches and trainings that cannot be run, before any long work starts."""

from ml_collections import ConfigDict

from prdarts_jax import fields, refusals
from prdarts_jax.data import sources
from prdarts_jax.run import problems, settings
from prdarts_jax.search import hypergradients, methods
from prdarts_jax.spaces import discretizations, tabular

_STARTS = {"search": "settings.search()", "train": "settings.training()"}


def validate(config: ConfigDict, job: str = "") -> None:
    """Refuses a config with an unknown or missing field, a value of another type, or one out of range.

    Args:
      config: of a search or a training.
      job: if given, the job that it must be of, 'search' or 'train'.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    if not isinstance(config, ConfigDict):
        raise ValueError(f"config={refusals.shown(config)} must be a ConfigDict, such as {_STARTS[job or 'search']}")
    if job and config.get("job") != job:
        raise ValueError(f"config.job={refusals.shown(config.get('job'))} must be {job!r}: start from {_STARTS[job]}")
    if config.get("job") == "search":
        method = config.get("method")
        fields.check(fields.schema_of(settings.Search)["method"], "config.method", method)
        try:
            schema = settings.search_schema(method)
        except ValueError as error:
            raise ValueError(f"config.{error}") from error
        except OSError as error:
            raise ValueError(f"config.method={refusals.shown(method)}: {error}") from error
        section = settings.section_of(method)
        if method not in methods.NAMED and section not in config:
            schema.pop(section, None)  # a config made for another method: the user's own gets its defaults
        for name, value in config.items():
            if isinstance(value, ConfigDict) and name not in schema:
                raise ValueError(
                    f"config.{refusals.cut(name, 100)} is the section of another method than config.method="
                    f"{refusals.shown(method)}: leave it out, or start from the config of this method"
                    f"{refusals.near(name, schema)}"
                )
        fields.check_config(schema, config)
        _check_search(config)
    elif config.get("job") == "train":
        fields.check_config(fields.schema_of(settings.Training), config)
        if config.torch_checkpoint and config.init_from:
            raise ValueError(
                f"config.init_from={refusals.shown(config.init_from)} must be '' with config.torch_checkpoint, since a "
                "training starts from one of them"
            )
        _check_batches("", config, config.num_examples)
    else:
        raise ValueError(f"config.job={refusals.shown(config.get('job'))} must be search or train")


def _check_search(config):
    space = settings.space_of(config)
    _ = space.genotype_class  # refuses a space whose cells no class of genotypes can describe
    if config.evaluation.epochs:
        _check_batches("evaluation.", config.evaluation, config.num_examples)
    _check_batches("", config, config.num_examples)
    if config.form != "cifar" and (space.macro != "darts" or config.evaluation.epochs):
        raise ValueError(
            f"config.form={config.form!r} must be 'cifar' in the space {space.name} with config.evaluation.epochs="
            f"{config.evaluation.epochs}: the form 'imagenet' is for networks like DARTS's, whose found cells are "
            "trained by a job of their own, such as configs/imagenet_eval.py"
        )
    if config.weights_share + config.logits_share > 1:
        raise ValueError(
            f"config.weights_share={config.weights_share} and config.logits_share={config.logits_share} must be 1 or "
            "less together"
        )
    if config.table and not tabular.covers(space):
        raise ValueError(
            f"config.table={refusals.shown(config.table)} must be '' in the space {space.name}: its cells are not in it"
        )
    if config.seed + config.seeds > 2**32:
        most = 2**32 - config.seed
        raise ValueError(f"config.seeds={config.seeds} must be at most {most}, the number of seeds from config.seed on")
    section = settings.section_of(config.method)
    try:
        searches = [stage.method for stage in problems.stages_of(problems.make_method(config))]
    except ValueError as error:
        raise ValueError(f"config.{section}: {error}") from error
    if config.cost.target:
        _check_cost(config, searches)
    ahead = (hypergradients.Unrolled, hypergradients.Neumann)
    if config.accumulate > 1 and any(isinstance(search.hypergradient, ahead) for search in searches):
        raise ValueError(
            f"config.accumulate={config.accumulate} must be 1 with config.method={config.method!r}, whose "
            "hypergradient looks ahead to the weights after each step"
        )
    for partial in {search.supernet.get("partial", 1) for search in searches}:
        if config.channels % partial:
            where = f"config.{section}.partial" if "partial" in settings.settings_of(config) else "supernet.partial"
            raise ValueError(f"config.channels={config.channels} must be a multiple of {where}={partial}")


def _check_cost(config, searches):
    """Refuses a target for the cost if the cell is not that of the strongest ops by the logits."""
    by_logits = all(
        isinstance(m.discretization, discretizations.strongest) and not (m.after_epoch or m.after_search)
        for m in searches
    )
    if not by_logits:
        raise ValueError(
            f"config.cost.target={config.cost.target:g} must be 0 with config.method={config.method!r} and "
            f"config.discretization={config.discretization!r}, since the cell is not that of the strongest ops alone"
        )


def _check_batches(prefix, section, num_examples):
    warmup = section.weights.warmup_epochs
    if section.epochs and warmup >= section.epochs:
        raise ValueError(
            f"config.{prefix}weights.warmup_epochs={warmup} must be below config.{prefix}epochs={section.epochs}"
        )
    if section.get("test_on_rest") and not num_examples:
        raise ValueError(
            f"config.num_examples={num_examples} must be above 0 with config.{prefix}test_on_rest=True, which tests on "
            "the training images that it leaves out"
        )
    if section.batch_size % section.accumulate:
        raise ValueError(
            f"config.{prefix}accumulate={section.accumulate} must divide config.{prefix}batch_size={section.batch_size}"
        )


def validate_against_data(config: ConfigDict, dataset: sources.LoadedSplit, section: str = "") -> None:
    """Refuses a batch or a crop that is too large for the data set.

    `section` is put before field names in messages: 'evaluation.' if the config was made from this section of another.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    images, size = len(dataset.labels), min(dataset.images.shape[1:3])
    in_use = f"images of {dataset.name} in use"
    sections = [(section, config, images, f"the {in_use}")]
    if config.job == "search":
        half = f"half of the {images} {in_use}: one half trains the weights, the other the logits"
        sections = [("", config, images // 2, half)]
        if config.evaluation.epochs:
            sections.append(("evaluation.", config.evaluation, images, f"the {in_use}"))
    for prefix, fields_of, largest, what in sections:
        if not largest:
            raise ValueError(
                f"config.num_examples={config.num_examples} must be at least 2 in a search, one for each half"
            )
        if fields_of.batch_size > largest:
            raise ValueError(f"config.{prefix}batch_size={fields_of.batch_size} must be at most {largest}, {what}")
        for field in ("pad", "cutout"):
            check_crop(fields_of, field, size, prefix)


def check_crop(config: ConfigDict, field: str, size: int, section: str = "") -> None:
    """Refuses a `pad` or `cutout` above the images' shorter side; the arguments are those of `validate_against_data`.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    if (value := config.augmentation[field]) > size:
        named = f"config.{section}augmentation.{field}={value}"
        raise ValueError(f"{named} must be at most {size}, the images' shorter side")
