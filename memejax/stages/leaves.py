"""The kind and range of every leaf of a config: `LEAVES` is the only place for them.

`check` is called before a run does anything else. What concerns several leaves, or the
data, is checked where it is used: all stages are built before a folder is claimed.
"""

from __future__ import annotations

import re

from ml_collections import ConfigDict

from memejax import curriculum, optim
from memejax.config import flatten
from memejax.curriculum import tasks
from memejax.data import images, pipeline
from memejax.datasets import DATASETS, labelled
from memejax.errors import UserError
from memejax.graphs import meme_graph
from memejax.models import fusion, perceptron, resnet
from memejax.models.gnn import classifier
from memejax.stages import graph, pretrain
from memejax.stages.parts import choices, curricula, models, small_classifier
from memejax.stages.parts.graphs import networks
from memejax.stages.parts.heads.kinds import HEADS
from memejax.stages.parts.heads.scaling import SCALINGS
from memejax.stages.parts.rules import (
    Rule,
    either,
    flag,
    interval,
    many,
    number,
    one_of,
    or_none,
    pattern,
    positive,
    rate,
    text,
    whole,
)
from memejax.store.shards import FLOATS

_SHARE, _PROBABILITY = positive(below=1), number(0, 1)
# Widths and counts: more is a mistake, and would take all memory or days.
_WIDTH, _COUNT = whole(1, 100_000), whole(1, 10_000_000)
_SIZES = many(_WIDTH, least=1)
_RATES = many(rate(), least=1)
_CROP = interval(Rule(lambda v: number(0, 1).test(v) and v > 0, "in (0, 1]"))

# Dotted name of a leaf, where * stands for one part of a name -> its rule. The first
# name that matches counts.
LEAVES: dict[str, Rule] = {
    "name": text(),
    "preset": text(),
    "seed": whole(0, 2**30),
    "seeds": whole(1, 10_000),
    "stages": many(text(), least=1, distinct=True),
    "arms": many(text(), least=1, distinct=True),
    "features": or_none(text()),
    "baseline": or_none(text()),
    "weights.heads": flag(),
    "weights.allow_new_head": flag(),
    "weights.allow_random": flag(),
    "weights.*": or_none(text()),
    # Data.
    "data.name": either(
        one_of({**DATASETS, **labelled.LOADERS}),
        Rule(
            lambda v: (
                isinstance(v, str) and re.fullmatch(r"tfds:[\w/.-]+", v) is not None
            ),
            "tfds:NAME, pictures that TFDS prepared",
        ),
    ),
    "data.root": or_none(text()),
    "data.dev": text(),
    # Of memes a share, of small pictures a number.
    "data.validation": either(_SHARE, _COUNT),
    "data.certify": Rule(lambda v: number(0, 1).test(v) and v < 1, "in [0, 1)"),
    "data.on_bad_record": one_of(("error", "skip")),
    "data.max_pixels": whole(1),
    "data.image_size": whole(0, 8192),
    "data.resize": one_of((*images.RESIZES, "checkpoint")),
    "data.text_length": whole(3, 8192),
    "data.tokenizer": or_none(text()),
    "data.vocabulary": whole(6, 1_000_000),
    "data.synthetic.concepts": whole(2, 64),
    "data.synthetic.image_leak": _PROBABILITY,
    "data.synthetic.text_leak": _PROBABILITY,
    "data.synthetic.label_noise": _PROBABILITY,
    "data.synthetic.*": whole(1, 1_000_000),
    "data.train": or_none(_COUNT),
    "data.test": or_none(_COUNT),
    "data.pool": one_of(labelled.POOLS),
    "data.label_noise": rate(),
    # Models.
    "model.dtype": one_of(choices.DTYPES),
    "model.share_text": flag(),
    "model.image.*.name": one_of(models.IMAGE_ENCODERS),
    "model.image.*.normalization": one_of(choices.NORMALIZATIONS),
    "model.image.*.normalization.*": many(number(-1000), count=3),
    "model.text.name": one_of(models.TEXT_ENCODERS),
    "model.arm.modalities": one_of(fusion.MODALITIES),
    "model.arm.text_pooling": one_of(fusion.POOLINGS),
    "model.arm.fusion": one_of(fusion.FUSIONS),
    "model.arm.image_width": whole(0, 100_000),
    "model.arm.predictor": whole(0, 100_000),
    "model.arm.normalize": flag(),
    "model.network": one_of(small_classifier.NETWORKS),
    "model.perceptron.hidden": many(_WIDTH),
    "model.perceptron.activation": one_of(perceptron.ACTIVATIONS),
    "model.convnet.stages": many(_SIZES, least=1),
    "model.convnet.padding": many(whole(0, 100)),
    "model.convnet.dropout": _RATES,
    # Fields of any encoder or network.
    "model.**.stage_sizes": _SIZES,
    "model.**.widths": _SIZES,
    "model.**.stem": one_of(resnet.STEMS),
    "model.**.dropout": rate(),
    "model.**.drop_path": rate(),
    "model.**.eps": positive(),
    "model.**.bottleneck": flag(),
    "model.**": _WIDTH,
    # Augmentation.
    "augment.crop_scale": _CROP,
    "augment.jitter": many(number(), count=4),
    "augment.*": _PROBABILITY,
    "pretrain.augment.crop_scale": _CROP,
    "pretrain.augment.global_scale": _CROP,
    "pretrain.augment.local_scale": _CROP,
    "pretrain.augment.global_size": whole(1, 8192),
    "pretrain.augment.local_size": whole(1, 8192),
    "pretrain.augment.local_crops": whole(0, 100),
    "pretrain.augment.blur_sigma": interval(positive()),
    "pretrain.augment.solarize": many(_PROBABILITY, count=3),
    # CASS's own augmentation has one strength for all four.
    "pretrain.augment.jitter": either(many(number(), count=4), _PROBABILITY),
    "pretrain.augment.degrees": number(0, 180),
    "pretrain.augment.*": _PROBABILITY,
    # Stages.
    "pretrain.method": one_of(pretrain.PRETRAIN),
    "pretrain.objective.standardize": flag(),
    "pretrain.objective.stop_gradient": flag(),
    "pretrain.objective.*": number(),
    "pretrain.independent_views": flag(),
    "pretrain.augmentation": one_of(("cass", "random")),
    "pretrain.token_dropout": _PROBABILITY,
    "pretrain.caption_dropout": _PROBABILITY,
    "pretrain.drop_path": rate(),
    "pretrain.student_temperature": positive(),
    "pretrain.center_momentum": _PROBABILITY,
    "pretrain.freeze_last_layer": number(),
    "pretrain.teacher.momentum": _PROBABILITY,
    "pretrain.teacher.temperature": positive(),
    "pretrain.teacher.warmup_temperature": positive(),
    "pretrain.teacher.warmup_epochs": whole(0),
    "pretrain.head.batch_norm": flag(),
    "pretrain.head.predictor": whole(0, 100_000),
    "pretrain.head.*": whole(1, 1_000_000),
    "pretrain.average.kind": one_of(("ema", "swa")),
    "pretrain.average.momentum": _PROBABILITY,
    "pretrain.average.start": whole(0),
    "graph.kind": one_of(graph.GRAPHS),
    "graph.network": one_of(networks.GRAPH_NETWORKS),
    "graph.width": _WIDTH,
    "graph.projection_dropout": rate(),
    "graph.normalize_features": flag(),
    "graph.epochs": positive(below=1e6),
    "graph.relations": many(one_of(meme_graph.RELATIONS), distinct=True),
    "graph.overlap": _PROBABILITY,
    "graph.similar": whole(1),
    "graph.edge_fields": many(text(), distinct=True),
    "graph.readout": one_of(classifier.READOUTS),
    "graph.trained.encoder_lr": or_none(number()),
    "graph.trained.longest": whole(1, 8192),
    "graph.trained.accumulate": whole(1),
    "graph.hetero.fanouts": _SIZES,
    "graph.hetero.distance": whole(1, 15),
    "graph.hetero.most": whole(1),
    "graph.hetero.*": flag(),
    "heads.head": one_of(HEADS),
    "heads.scaling": one_of(SCALINGS),
    "heads.strengths": many(positive(), least=1),
    "heads.gammas": many(positive(), least=1),
    "heads.penalties": many(positive(), least=1),
    "heads.shares": many(_PROBABILITY, least=1),
    "heads.width": or_none(_WIDTH),
    "heads.layers": or_none(whole(1, 100)),
    **{
        f"heads.{name}": or_none(rate())
        for name in ("map_dropout", "fusion_dropout", "dropout")
    },
    # pretrain, finetune, graph, heads or train.
    "*.steps": or_none(_COUNT),
    "*.epochs": or_none(positive(below=1e6)),
    "*.batch": whole(1, 1_000_000),
    "*.accumulate": whole(1),
    "train.augment.shift": whole(0, 8192),
    "train.augment.flip": _PROBABILITY,
    "*.balance": flag(),
    "*.eval_every": whole(1),
    "*.patience": whole(0),
    "*.optimizer.rule": one_of(optim.RULES),
    "*.optimizer.schedule": one_of(optim.SCHEDULES),
    "*.optimizer.warmup": whole(0),
    "*.optimizer.half_period": whole(1),
    "*.optimizer.floor": _PROBABILITY,
    "*.optimizer.plateau.factor": _SHARE,
    "*.optimizer.plateau.patience": whole(0),
    "*.optimizer.groups.*.rule": one_of(optim.RULES),
    "*.optimizer.groups.*.pattern": pattern(),
    "*.optimizer.groups.*.decay_exempt": pattern(),
    "*.optimizer.groups.*.frozen": flag(),
    "*.optimizer.groups.*.layer_decay": number(0, 1),
    "*.optimizer.**": number(),
    "probe.split": or_none(text()),
    "probe.*": whole(1),
    "curriculum.kind": one_of(curricula.KINDS),
    "curriculum.score": one_of(curriculum.SCORES),
    "curriculum.favour": one_of(curricula.FAVOURS),
    "curriculum.warmup": whole(0),
    "curriculum.refresh": whole(1),
    "curriculum.draws": one_of(("categorical", "inverse_cdf")),
    "curriculum.switch": whole(0),
    "curriculum.passes": whole(0, 10_000),
    "curriculum.tasks": whole(1),
    "curriculum.reading": one_of(tasks.READINGS),
    "curriculum.balanced": flag(),
    "curriculum.ratio": number(1, infinite=True),
    "curriculum.ratio_schedule": one_of(curriculum.RATIO_SCHEDULES),
    "curriculum.min_temperature": number(),
    "curriculum.winsorize": Rule(
        lambda v: number(0, 0.5).test(v) and v < 0.5, "a number >= 0 and below 0.5"
    ),
    "curriculum.correction": _PROBABILITY,
    "extract.run": or_none(text()),
    "extract.arm": text(),
    "extract.entities": one_of(("detector", "grid", "none")),
    "extract.score": _PROBABILITY,
    "extract.crop": one_of(("box", "mask")),
    "extract.dtype": one_of(FLOATS),
    **{
        f"extract.{name}": flag()
        for name in (
            "allow_random",
            "tokens",
            "box_features",
            "masks",
            "keep_encoders",
            "ocr",
        )
    },
    "extract.prompts.*.*": many(text(), least=1),
    "extract.*": _WIDTH,
    # Runtime.
    "parallel.devices": or_none(whole(1)),
    "parallel.mode": one_of(choices.STEPS),
    "parallel.*": flag(),
    "pipeline.cache": one_of(pipeline.CACHES),
    "pipeline.threads": whole(1, 1024),
    "pipeline.workers": whole(0, 1024),
    "checkpoint.*": whole(1),
    "log.every": whole(1),
    "profile.start": whole(0),
    "profile.steps": whole(1),
    "report.pictures": flag(),
}


def rule_of(leaf: str) -> Rule | None:
    """Return a leaf's rule by its dotted name; None for a leaf of somebody's own."""
    return next((rule for name, rule in _PATTERNS if name.fullmatch(leaf)), None)


def _regex(name: str) -> re.Pattern[str]:
    any_part, any_parts = r"[^.]+", r"[^.]+(?:\.[^.]+)*"
    # Of a leaf directly in the section the middle is empty.
    text = re.escape(name).replace(r"\.\*\*\.", rf"\.(?:{any_parts}\.)?")
    return re.compile(text.replace(r"\*\*", any_parts).replace(r"\*", any_part))


_PATTERNS = [(_regex(name), rule) for name, rule in LEAVES.items()]


def check(config: ConfigDict) -> None:
    """Check the value of every leaf.

    Raises:
        UserError: with a line for each leaf whose value is not allowed: its name, what
            it got, what it may be.
    """
    problems = []
    for leaf, value in flatten(config.to_dict()).items():
        rule = rule_of(leaf)
        found = None if rule is None else rule.problem(value)
        if found is not None:
            problems.append(f"--config.{leaf}: {found}")
    if problems:
        raise UserError("\n".join(problems))
