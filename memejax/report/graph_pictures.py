"""The section on the graphs that a run drew."""

from __future__ import annotations

import base64

from memejax.report.blocks import Figure, Section
from memejax.report.finished import Finished
from memejax.stages.evaluate import NAME as EVALUATED
from memejax.stages.parts.graphs.pictures import FILE

_CAPTION = (
    "Dev memes: of those with entities, the ones with the highest and the lowest "
    "scores. An entity has one number and colour on the picture and in the graph. "
    "Lines are as thick as the attention of their receiver to their sender, the mean "
    "over layers and heads, if the network has attention; that of a node to itself is "
    "not drawn."
)


def section(run: Finished) -> Section | None:
    """The graphs of each seed; None if the run drew none."""
    paths = [run.folder / seed / EVALUATED / FILE for seed in run.seeds]
    figures = [
        Figure(
            "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(),
            "Entities and graphs of some memes",
            _CAPTION,
            whole=True,
            covered=True,
        )
        for path in paths
        if path.is_file()
    ]
    return Section("Graphs of memes", figures) if figures else None
