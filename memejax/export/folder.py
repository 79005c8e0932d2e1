"""An export's folder, written atomically."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from safetensors.numpy import save_file

from memejax import folder
from memejax.config import flatten
from memejax.data import text
from memejax.export import encoders, program
from memejax.export.tokenizer import write_tokenizer
from memejax.metrics import AVERAGE
from memejax.report.card import card
from memejax.report.finished import Finished
from memejax.report.loading import Part
from memejax.restored import Restored, restore
from memejax.stages.parts.heads import scores
from memejax.stages.parts.models import normalization

# A folder with this file is an export, and may be replaced.
MARK = "classifier.json"
HEAD_LOGIT = (
    "the head of memejax.models.feature_heads on pooled features of picture and "
    "caption, or for image_shared their projection, each (x - mean) * scale by its "
    "batch_stats in classifier.safetensors"
)
LOGIT = (
    "y = classifier(relu(fusion_layer(fuse(u, v)))), "
    "u = language_norm(language_adder(pool(text_encoder(caption)))), "
    "v = vision_norm(vision_adder(image_head(image_encoder(picture)))); "
    "a layer without parameters in classifier.safetensors is left out; of the others "
    "norms are LayerNorms with epsilon 1e-6, the rest x @ kernel + bias"
)


def export(
    workdir: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    seed: int = 0,
    precision: str = "float32",
    overwrite: bool = False,
) -> list[Part]:
    """Write a finished run's classifier as a folder that other libraries load.

    Args:
        workdir: the run's folder.
        to: the folder to write.
        seed: one of the run's seeds.
        precision: dtype of the predictor's matrix products, one of
            `program.PRECISIONS`.
        overwrite: whether to replace an existing export.

    Returns:
        The parts that were written.

    Raises:
        ValueError: if there is no finished run with that seed, `to` is not empty and
            may not be replaced, or flatbuffers is not installed.
    """
    if precision not in program.PRECISIONS:
        raise ValueError(
            f"unknown precision {precision!r}: choose one of {program.PRECISIONS}"
        )
    program.check_flatbuffers()
    with _whole(pathlib.Path(to).absolute(), overwrite=overwrite) as target:
        return _write(target, restore(workdir, seed=seed), precision)


def _write(target: pathlib.Path, restored: Restored, precision: str) -> list[Part]:
    """Write all parts of an export, the card last."""
    config, tokenizer = restored.config, restored.tokenizer
    length = config.data.text_length
    found, rest = encoders.split(
        config, restored.variables, vocabulary=text.vocabulary_size(tokenizer)
    )
    parts = []
    for encoder in found:
        parts.append(encoders.write_encoder(target, encoder))
        if encoder.part == encoders.TEXT:
            write_tokenizer(target / encoder.path, tokenizer, length=length)
    save_file(rest, target / "classifier.safetensors")
    folder.write_json(target / MARK, _joined(restored))
    parts.append(Part("classifier.safetensors", "everything but the encoders"))
    write_tokenizer(target / "tokenizer", tokenizer, length=length)
    parts.append(Part("tokenizer", f"of captions, {length} tokens each"))
    program.write_program(target / "predictor", restored, precision=precision)
    parts.append(
        Part("predictor", f"all arms as one compiled function, products in {precision}")
    )
    readme = target / "README.md"
    page = card(
        Finished(restored.folder),
        str(restored.seed),
        parts=parts,
        leaves=flatten(config.to_dict()),
    )
    readme.write_text(page, "utf-8")
    for path in target.rglob("*"):
        if path.is_file():
            # safetensors makes files readable by the owner alone.
            shutil.copymode(readme, path)
    return parts


def _joined(restored: Restored) -> dict[str, Any]:
    """Return classifier.json: how the classifier combines encoders and layers."""
    config = restored.config
    if "heads" in config:
        section = config.heads.to_dict()
        names = scores.score_names(config.heads)
        own = {"head": section, "scores": list(names), "logit": HEAD_LOGIT}
    else:
        names = tuple(config.arms)
        own = {
            "probability": "mean of the arms' sigmoid(y)",
            "logit": LOGIT,
            "arm": config.model.arm.to_dict(),
            "shared_text_encoder": config.model.share_text,
        }
    return {
        "arms": list(config.arms),
        **own,
        "normalization": {arm: normalization(config, arm) for arm in config.arms},
        "image_size": config.data.image_size,
        "text_length": config.data.text_length,
        "thresholds": {arm: restored.threshold(arm) for arm in (*names, AVERAGE)},
    }


@contextlib.contextmanager
def _whole(to: pathlib.Path, *, overwrite: bool) -> Iterator[pathlib.Path]:
    """Create a folder that replaces `to` if the body succeeds."""
    if to.exists() and not to.is_dir():
        raise ValueError(f"{to} is a file, expected a folder to write")
    there = sorted(entry.name for entry in to.iterdir()) if to.exists() else []
    if there and not overwrite:
        raise ValueError(
            f"{to} is not empty (it holds {there[0]}): choose another folder, or "
            "replace the export in it with --overwrite"
        )
    if there and MARK not in there:
        raise ValueError(
            f"{to} holds {there[0]} and no {MARK}: only an earlier export is replaced"
        )
    part = to.with_name(f".{to.name}.part{os.getpid()}")
    part.mkdir(parents=True)
    try:
        yield part
        old = to.with_name(f".{to.name}.old{os.getpid()}")
        if to.exists():
            to.rename(old)
        part.rename(to)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
