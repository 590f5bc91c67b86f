"""The pictures of a run, as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prdarts_jax.refusals import cut
from prdarts_jax.run import reporting
from prdarts_jax.run.run_log import Record
from prdarts_jax.spaces.genotypes import AnyGenotype, cells


def write_cells(path: Path, genotype: AnyGenotype) -> list[Path]:
    """Writes a picture of each cell of a genotype: for the path cell.png, cell_normal.png and, unless there is only one
    cell type, cell_reduce.png.

    Returns:
      The paths of the pictures.

    Raises:
      ValueError: matplotlib writes no format with the path's suffix.
    """
    from prdarts_jax.run import cell_plot

    written = []
    for cell_type in cells(genotype):
        figure = cell_plot.cell_figure(genotype, cell_type)
        formats = sorted(figure.canvas.get_supported_filetypes().keys() - {"pgf"})  # which needs LaTeX
        if path.suffix[1:] not in formats:
            raise ValueError(f"{cut(str(path), 300)} must end in one of .{', .'.join(formats)}")
        written.append(path.with_stem(f"{path.stem}_{cell_type}"))
        reporting.save_figure(figure, written[-1])
    return written


def write_search(workdir: Path, records: Sequence[Record], genotype: AnyGenotype) -> None:
    """Writes the pictures of a search with at least one record: those of `write_cells` for cell.png, activation.png,
    skip_share.png, curves.png and diagnostics.png."""
    from prdarts_jax.run import plots

    write_cells(workdir / "cell.png", genotype)
    figures = {"activation": plots.activation_figure(records)}
    figures["skip_share"] = plots.skip_share_figure(records)
    figures["curves"] = plots.curves_figure(records)
    figures["diagnostics"] = plots.diagnostics_figure(records)
    for name, figure in figures.items():
        reporting.save_figure(figure, workdir / f"{name}.png")


def write_training(workdir: Path, records: Sequence[Record], result: Mapping[str, Any]) -> None:
    """Writes the pictures of a training: curves.png, unless there are no records, and confusion.png; `result` is that
    of `training.summarize`."""
    from prdarts_jax.run import plots

    if records:
        reporting.save_figure(plots.curves_figure(records, held_out="test"), workdir / "curves.png")
    reporting.save_figure(plots.confusion_figure(result["confusion"]), workdir / "confusion.png")
