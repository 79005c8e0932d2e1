"""The page's section on what was probed: tables, and pictures of what was learnt."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from memejax.report import markup, tables
from memejax.report.cells import count
from memejax.report.finished import Finished
from memejax.stages import STAGES
from memejax.stages.probe import folder_of

# Seeds whose pictures are on the page; of more than these, the first's only.
_SEEDS = 3
# What the columns of attention.png are, for each kind of encoder.
_COLUMNS = {
    "vit": (
        "{arm} attention, what the CLS token of the last block attends to, the mean of "
        "the heads; {arm} head, the same of each head"
    ),
    "resnet": (
        "{arm} Grad-CAM, along the embedding's own direction: where the last map adds "
        "most to the embedding"
    ),
}
_MAP = (
    "t-SNE, a point an example, by class. Neighbours mean something; distances "
    "between clusters do not."
)


def section(run: Finished) -> list[str]:
    """HTML of what frozen features are worth; [] where nothing was probed."""
    found = tables.representation(run.results)
    if not found:
        return []
    return [
        "<h2>Representation</h2>",
        *map(markup.table, found.values()),
        *_pictures(run),
    ]


def _pictures(run: Finished) -> list[str]:
    """The pictures of each stage and seed, by the names in its outcome."""
    parts, left_out = [], []
    for stage in STAGES:
        name = folder_of(stage)
        seeds = [seed for seed in run.seeds if name in run.results["seeds"][seed]]
        for i, seed in enumerate(seeds):
            if i and len(seeds) > _SEEDS:
                left_out.append(f"{seed}/{name}")
                continue
            outcome = run.results["seeds"][seed][name]
            figures = _figures(run, run.folder / seed / name, outcome, stage)
            if figures:
                of = f", seed {seed}" if len(run.seeds) > 1 else ""
                title = f"What the {STAGES[stage].learned} networks see{of}"
                parts += [f"<h3>{markup.escape(title)}</h3>", *figures]
    if left_out:
        what = f"Pictures of the first seed; {count(left_out, 'other')}: "
        parts.append(markup.paragraph(f"{what}{', '.join(left_out)}."))
    return parts


def _figures(
    run: Finished, where: pathlib.Path, outcome: Mapping[str, Any], stage: str
) -> list[str]:
    """HTML of a folder's pictures: the grid of maps, then the embeddings' maps."""
    split = outcome["split"]
    whole, maps = [], []
    for name in outcome.get("pictures", ()):
        path = where / f"{name}.png"
        if not path.is_file():
            continue
        picture = _uri(path)
        if name == "attention":
            said = _attention(run, outcome["figures"].get(stage, {}))
            title = f"Where they look, on the first pictures of {split}"
            whole.append(markup.figure(picture, title, said, whole=True))
        else:
            arm = name.removeprefix("map-")
            maps.append(
                markup.figure(picture, f"Embeddings of the {arm} on {split}", _MAP)
            )
    return [*whole, markup.gallery(maps, large=True)]


def _attention(run: Finished, arms: Iterable[str]) -> str:
    """What the columns are, for the encoders that this run has."""
    kinds = {arm: run.leaves.get(f"model.image.{arm}.name") for arm in sorted(arms)}
    # "vit_base" is a "vit".
    own = [
        columns.format(arm=arm)
        for arm, kind in kinds.items()
        for family, columns in _COLUMNS.items()
        if kind and kind.startswith(family)
    ]
    # Without the config, what may be there.
    own = own or [
        _COLUMNS["resnet"].format(arm="cnn"),
        _COLUMNS["vit"].format(arm="vit"),
    ]
    return (
        f"A row a picture. Columns: the picture; {'; '.join(own)}. Bright is most, "
        "each map on its own scale."
    )


def _uri(path: pathlib.Path) -> str:
    """A PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
