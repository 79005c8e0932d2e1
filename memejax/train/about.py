"""What a run says of itself before it begins."""

from __future__ import annotations

import numpy as np
from ml_collections import ConfigDict

from memejax import dataset


def about_run(config: ConfigDict) -> str:
    """What this run is, and how to run the real one."""
    if "graph" in config.stages:
        return (
            f"{config.name}, preset {config.preset}: {config.graph.network} on the "
            f"features in {config.features}"
        )
    if config.preset != "demo":
        return f"{config.name}, preset {config.preset}"
    where = "built in" if config.data.root is None else f"of {config.data.root}"
    on = f"{config.data.name} {where}"
    return (
        f"{config.name}, preset demo: small models on {on}, for a CPU; the real one is "
        f"--config=configs/{config.name}.py:full --config.data.root=FOLDER"
    )


def about_data(data: dataset.Data) -> str:
    """Its splits, their sizes and shares, and what is amiss with it."""
    parts = []
    for name, split in data.splits.items():
        share = ""
        if split.labelled and data.classes == 2:
            share = f", {np.mean(split.labels == 1):.1%} hateful"
        parts.append(f"{name} {len(split.ids)}{share}")
    text = f"{data.facts['name']}: {'; '.join(parts)}"
    if data.classes != 2:
        text += f"; {data.classes} classes"
    if data.vocabulary:
        text += f"; vocabulary {data.vocabulary}"
    if data.facts["truncated_captions"]:
        text += f"; {data.facts['truncated_captions']} captions cut"
    if data.facts["bad_records"]:
        text += f"; {data.facts['bad_records']} bad records left out"
    return text
