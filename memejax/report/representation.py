"""The section on frozen features: tables of probes, and pictures of what was learnt."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from memejax.report import tables
from memejax.report.blocks import Block, Figure, Gallery, Heading, Section, Text
from memejax.report.cells import count
from memejax.report.finished import Finished
from memejax.stages import STAGES
from memejax.stages.probe import folder_of

# Seeds whose pictures are on the page; of more than these, the first's only.
_SEEDS = 3
_GRAD_CAM = (
    "{arm} Grad-CAM, along the embedding's own direction: where the last map adds "
    "most to the embedding"
)
# Meaning of the columns of attention.png, for each kind of encoder.
_COLUMNS = {
    "vit": (
        "{arm} attention, what the CLS token of the last block attends to, the mean of "
        "the heads; {arm} head, the same of each head"
    ),
    "resnet": _GRAD_CAM,
    "efficientnet": _GRAD_CAM,
}
_MAP = (
    "t-SNE, one point per example, coloured by class. Neighbours mean something; "
    "distances between clusters do not."
)


def section(run: Finished, *, pictures: bool = True) -> Section | None:
    """Worth of the frozen features; None if nothing was probed.

    Args:
        run: finished.
        pictures: whether memes may be shown. Other pictures always are.
    """
    found = tables.representation(run.results)
    if not found:
        return None
    memes = run.results["data"].get("name", "memes") == "memes"
    shown = _pictures(run, examples=pictures or not memes, covered=memes)
    return Section("Representation", [*found.values(), *shown])


def _pictures(run: Finished, *, examples: bool, covered: bool) -> list[Block]:
    """Pictures of each stage and seed, by the names in its outcome."""
    blocks: list[Block] = []
    left_out = []
    for stage in STAGES:
        name = folder_of(stage)
        seeds = [seed for seed in run.seeds if name in run.results["seeds"][seed]]
        for i, seed in enumerate(seeds):
            if i and len(seeds) > _SEEDS:
                left_out.append(f"{seed}/{name}")
                continue
            figures = _figures(run, seed, stage, examples=examples, covered=covered)
            if figures:
                of = f", seed {seed}" if len(run.seeds) > 1 else ""
                title = f"What the {STAGES[stage].learned} networks see{of}"
                blocks += [Heading(title), *figures]
    if left_out:
        others = f"{count(left_out, 'other')}: {', '.join(left_out)}"
        blocks.append(Text(f"Pictures of the first seed; {others}."))
    return blocks


def _figures(
    run: Finished, seed: str, stage: str, *, examples: bool, covered: bool
) -> list[Block]:
    """Pictures of a probe: the grid of attention, then the maps of embeddings."""
    name = folder_of(stage)
    outcome: Mapping[str, Any] = run.results["seeds"][seed][name]
    split = outcome["split"]
    blocks: list[Block] = []
    maps = []
    for picture in outcome.get("pictures", ()):
        path = run.folder / seed / name / f"{picture}.png"
        if not path.is_file():
            continue
        if picture != "attention":
            arm = picture.removeprefix("map-")
            title = f"Embeddings of the {arm} on {split}"
            maps.append(Figure(_uri(path), title, _MAP))
        elif examples:
            blocks.append(
                Figure(
                    _uri(path),
                    f"Where they look, on the first pictures of {split}",
                    _attention(run, outcome["figures"].get(stage, {})),
                    whole=True,
                    covered=covered,
                )
            )
    return [*blocks, Gallery(maps, size="medium")] if maps else blocks


def _attention(run: Finished, arms: Iterable[str]) -> str:
    """Caption that explains the columns of the encoders that this run has."""
    kinds = {arm: run.leaves.get(f"model.image.{arm}.name") for arm in sorted(arms)}
    # "vit_base" is a "vit".
    own = [
        columns.format(arm=arm)
        for arm, kind in kinds.items()
        for family, columns in _COLUMNS.items()
        if kind and kind.startswith(family)
    ]
    # Without the config, those that there may be.
    own = own or [
        _COLUMNS["resnet"].format(arm="cnn"),
        _COLUMNS["vit"].format(arm="vit"),
    ]
    return (
        f"One row per picture. Columns: the picture; {'; '.join(own)}. Bright is most, "
        "each map on its own scale."
    )


def _uri(path: pathlib.Path) -> str:
    """A PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
