"""The graphs that a run drew: a section of its page."""

from __future__ import annotations

import base64

from memejax.report import markup
from memejax.report.finished import Finished
from memejax.stages.evaluate import NAME as EVALUATED
from memejax.stages.parts.graphs.pictures import FILE


def section(run: Finished) -> list[str]:
    """HTML of the graphs that a run drew; [] where it drew none."""
    found = [run.folder / seed / EVALUATED / FILE for seed in run.seeds]
    parts = []
    for path in (path for path in found if path.is_file()):
        picture = base64.b64encode(path.read_bytes()).decode()
        said = (
            "Dev memes: of those with entities, the ones with the highest and the "
            "lowest scores. An entity has one number and colour on the picture and in "
            "the graph. Lines are as thick as what their receiver gives its sender, "
            "the mean over layers and heads, where the network has attention; what a "
            "node gives itself is not drawn."
        )
        parts.append(
            markup.figure(
                f"data:image/png;base64,{picture}",
                "Entities and graphs of some memes",
                said,
                whole=True,
            )
        )
    return ["<h2>Graphs of memes</h2>", *parts] if parts else []
