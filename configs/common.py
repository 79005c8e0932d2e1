"""Building blocks of the experiment configs.

A config has only the blocks that its run uses, as chosen by TEXT in
`--config=FILE.py:TEXT`. TEXT is `PRESET[,NAME=VALUE...]`, or `NAME=VALUE,...` for the
first preset.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

PRESETS = ("demo", "full", "paper")
# Curricula for fine-tuning.
CURRICULA = ("none", "uniform", "replacement", "bac", "dsac")
# Stages after pretraining: fine-tuning and its scores, or a probe of the features.
THEN = ("finetune", "probe")
# Text encoder of the image-only experiments in the preset paper: averaged words for the
# fastText vectors of the paper's code, or DistilBERT as in its text.
TEXTS = ("words", "distilbert")
# Beginning of the parameters of any arm.
ANY_ARM = "arms_[^/]*"


def parse(
    text: str, presets: Sequence[str] = PRESETS, /, **options: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Parse the text after the colon into a preset and options.

    Args:
        text: `PRESET[,NAME=VALUE...]` or `NAME=VALUE,...`; may be empty.
        presets: the experiment's presets, the default first.
        options: name -> possible values, the default first.

    Raises:
        ValueError: for an unknown preset, name or value, listing the known ones; for a
            name given twice.
    """
    first, *rest = text.split(",")
    parts = rest
    if "=" in first:
        first, parts = presets[0], [first, *rest]
    preset = _chosen(first or presets[0], presets, "preset")
    found = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(
                f"got {part!r} after the colon, expected NAME=VALUE with one of "
                f"{sorted(options)}"
            )
        if name in found:
            raise ValueError(f"{name} is given twice after the colon")
        values = options[_chosen(name, tuple(options), "option")]
        found[name] = _chosen(value, values, name)
    return preset, {name: values[0] for name, values in options.items()} | found


def _chosen(name: str, names: Sequence[str], what: str) -> str:
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}: choose one of {sorted(names)}")
    return name


def optional(kind: type, value: Any = None) -> Any:
    """Make a typed leaf that may be None."""
    leaf = placeholder(kind)
    leaf.set(value)
    return leaf


def data(
    preset: str,
    *,
    text_length: int | None = None,
    image_size: int | None = None,
    leaks: bool = True,
    certify: float | None = None,
) -> dict[str, Any]:
    """Memes on disk; without `root` the demo uses built-in memes.

    Args:
        preset: one of `PRESETS`.
        text_length: in tokens; None: the preset's.
        image_size: in pixels; None: the preset's.
        leaks: whether built-in memes have options to make them easier or noisier.
        certify: share of the dev split that chooses nothing; None: no such leaf.
    """
    knobs = dict(image_leak=0.0, text_leak=0.0, label_noise=0.0) if leaks else {}
    synthetic = dict(train=8000, dev=1000, test=2000, concepts=4, **knobs)
    return dict(
        name="memes",
        root=placeholder(str),
        # Split that chooses the checkpoint; "validation" holds a share of train out by
        # caption, "random_validation", as published, at random, which leaks captions.
        dev="random_validation" if preset == "paper" else "dev_seen",
        validation=0.2,
        # Share of the dev split, by caption, that chooses nothing: the split "certify",
        # for python -m memejax.decide.
        **(dict(certify=certify) if certify is not None else {}),
        on_bad_record="error",
        max_pixels=50_000_000,
        # 0: the size that the checkpoints in weights.image_* were trained at.
        image_size=image_size or (48 if preset == "demo" else 384),
        # square, shorter (and a crop of the centre), pad; square_bicubic,
        # shorter_bicubic; "checkpoint": that of weights.image_*.
        resize="square",
        text_length=text_length or {"demo": 16, "full": 64, "paper": 200}[preset],
        # None: that of weights.text.
        tokenizer=placeholder(str),
        # Size for a tokenizer trained on the captions, if there is no other.
        vocabulary=2000 if preset == "demo" else 8000,
        **(dict(synthetic=synthetic) if preset == "demo" else {}),
    )


def image_only(preset: str, text: str) -> dict[str, Any]:
    """Models and weights of an experiment that pretrains pictures alone, or nothing.

    Args:
        preset: one of `PRESETS`.
        text: one of `TEXTS`, for the preset paper.
    """
    words = preset == "paper" and text == "words"
    # Averaged words have no checkpoint.
    names = ("image_cnn", "image_vit") + (() if words else ("text",))
    return dict(
        weights=weights(*names, preset=preset),
        model=model(
            preset,
            arm=fused_arm(preset),
            text=dict(name="words", hidden=150) if words else None,
        ),
    )


def model(
    preset: str,
    *,
    arm: dict[str, Any],
    text: dict[str, Any] | None = None,
    dtype: str | None = None,
    cnn_normalization: str = "checkpoint",
) -> dict[str, Any]:
    """The encoders and their fusion.

    Args:
        preset: one of `PRESETS`.
        arm: from `fused_arm`, with any other fields of an arm.
        text: text encoder; None: the preset's.
        dtype: None: the preset's.
        cnn_normalization: "imagenet", "half" (to [-1, 1]), "none", or "checkpoint":
            that of weights.image_cnn, or ImageNet's without one.
    """
    cnn, vit, words = {
        "demo": (
            "resnet_demo",
            "vit_demo",
            dict(name="transformer_demo", dropout=0.0),
        ),
        "full": ("resnet50", "vit_base", dict(name="distilbert")),
        "paper": ("resnet50", "vit_base", dict(name="distilbert")),
    }[preset]
    return dict(
        dtype=dtype or ("bfloat16" if preset == "full" else "float32"),
        share_text=False,
        image=dict(
            cnn=dict(name=cnn, normalization=cnn_normalization),
            vit=dict(name=vit, normalization="checkpoint"),
        ),
        text=text or words,
        arm=arm,
    )


def fused_arm(preset: str) -> dict[str, Any]:
    """Fusion of picture and caption as in figure 2 of the paper, or a smaller one."""
    sizes = {
        "demo": dict(fusion="product", image_width=0, embed=128, normalize=True),
        "full": dict(fusion="concat", image_width=512, embed=300, normalize=True),
        "paper": dict(fusion="concat", image_width=512, embed=300, normalize=False),
    }
    return dict(modalities="both", text_pooling="cls", fused=256, **sizes[preset])


def weights(*names: str, preset: str = "demo") -> dict[str, Any]:
    """Checkpoints to start from: folders, files or names on the hub.

    An encoder gets the sizes of its checkpoint. At the papers' scale one without a
    checkpoint is an error.
    """
    section: dict[str, Any] = {name: placeholder(str) for name in names}
    if preset != "demo":
        # Whether an encoder without a checkpoint starts at random.
        section["allow_random"] = False
    return section


def augmentation(preset: str) -> dict[str, Any]:
    """Random augmentation of pictures."""
    if preset == "paper":
        return dict(
            crop_scale=(1.0, 1.0),
            flip=0.0,
            jitter=(0.4, 0.4, 0.4, 0.1),
            jitter_probability=0.0,
            grayscale=0.0,
        )
    return dict(
        crop_scale=(0.6, 1.0) if preset == "demo" else (0.4, 1.0),
        flip=0.5,
        # Strength of brightness, contrast, saturation, hue.
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_probability=0.8,
        grayscale=0.3 if preset == "demo" else 0.2,
    )


def training(
    *, batch: int, steps: int | None = None, epochs: float | None = None, **more: Any
) -> dict[str, Any]:
    """Length and batch of a stage, and other leaves of its section."""
    return dict(
        steps=optional(int, steps),
        epochs=optional(float, epochs),
        batch=batch,
        # Number of parts that a batch is split into.
        accumulate=more.pop("accumulate", 1),
        **more,
    )


def optimizer(
    groups: dict[str, Any],
    *,
    warmup: int,
    rule: str = "adamw",
    schedule: str = "cosine",
    weight_decay: float = 0.01,
    clip: float = 1.0,
    **more: Any,
) -> dict[str, Any]:
    """Rule, schedule and groups; a group's weight_decay or clip takes precedence."""
    return dict(
        rule=rule,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        clip=clip,
        groups=groups,
        **more,
    )


def per_arm(groups: dict[str, Any]) -> dict[str, Any]:
    """Divide groups by arm, so that clipping an arm does not depend on the others.

    Args:
        groups: whose patterns begin with `arms_[^/]*`.
    """
    return {
        f"{arm}_{name}": group
        | dict(pattern=group["pattern"].replace(ANY_ARM, f"arms_{arm}"))
        for arm in ("cnn", "vit")
        for name, group in groups.items()
    }


def demo_groups() -> dict[str, Any]:
    """Parameter groups of the demo, one per arm."""
    return dict(
        cnn=dict(pattern="arms_cnn/.*", lr=2e-3),
        vit=dict(pattern="arms_vit/.*", lr=1e-3),
    )


def groups(*, image: float, text: float, heads: float) -> dict[str, Any]:
    """Parameter groups of each arm: image encoder, text encoder, everything else."""
    return per_arm(
        dict(
            image=dict(pattern=f"{ANY_ARM}/image_encoder/.*", lr=image),
            text=dict(pattern=f"{ANY_ARM}/text_encoder/.*", lr=text),
            heads=dict(pattern=f"{ANY_ARM}/(?!image_encoder|text_encoder).*", lr=heads),
        )
    )


def finetune(preset: str) -> dict[str, Any]:
    """Fine-tuning, the same for all experiments on memes, so that results compare."""
    if preset == "demo":
        return training(
            steps=120,
            batch=128,
            balance=True,
            eval_every=40,
            patience=0,
            optimizer=optimizer(demo_groups(), warmup=20),
        )
    if preset == "full":
        rates = groups(image=2e-5, text=1e-5, heads=2e-4)
        return training(
            epochs=20.0,
            batch=64,
            balance=True,
            eval_every=100,
            patience=10,
            optimizer=optimizer(rates, warmup=200),
        )
    rates = per_arm(dict(all=dict(pattern=f"{ANY_ARM}/.*", lr=5e-5)))
    return training(
        epochs=50.0,
        batch=64,
        accumulate=16,
        balance=True,
        eval_every=100,
        patience=0,
        optimizer=optimizer(rates, schedule="constant", warmup=0),
    )


def probe() -> dict[str, Any]:
    """Neighbours and examples of the stage "probe"."""
    return dict(
        # None: the last one with labels.
        split=placeholder(str),
        # Number of neighbours.
        k=20,
        # Maximum per split.
        examples=10_000,
    )


def curriculum(
    *kinds: str, warmup: int, refresh: int, passes: int = 0, draws: str = "categorical"
) -> ConfigDict:
    """Order of the training examples.

    Args:
        kinds: kinds whose leaves to include; the first is the default. "uniform":
            shuffled passes; "replacement"; "switch": easy pictures first; "bac";
            "dsac".
        warmup: updates before the first draw by score.
        refresh: updates between two draws.
        passes: dropout passes, for scores of disagreement such as BALD; 0, of memes
            only, compares the arms.
        draws: "categorical", `jax.random.categorical` over the softmaxed scores on the
            device, or "inverse_cdf", the same distribution on the host, for many
            examples.
    """
    scores = dict(
        score="entropy",
        # easy or hard; bac also random
        favour="easy",
        # Passes with dropout whose disagreement a score such as BALD measures; 0 (memes
        # only): that of the arms.
        passes=passes,
    )
    drawn = dict(warmup=warmup, refresh=refresh, draws=draws)
    leaves: dict[str, dict[str, Any]] = {
        "uniform": {},
        "replacement": drawn,
        # Updates on easy pictures.
        "switch": dict(switch=0),
        "bac": scores
        | dict(
            tasks=2,
            # "updates" or "epochs": the unit in which phases are equally long.
            reading="updates",
            balanced=False,
        ),
        "dsac": scores
        | drawn
        | dict(
            # Largest over smallest probability (inf: no limit); "constant", or falling
            # to 1, which is uniform, at the last update ("linear", "geometric").
            ratio=10.0,
            ratio_schedule="constant",
            # 1: the temperature starts there and is raised by 0.01 until the ratio is
            # met, as in the thesis; 0: the ratio is always met, exactly.
            min_temperature=0.0,
            winsorize=0.0,
            # Exponent of the importance weights.
            correction=0.0,
        ),
    }
    section = dict(kind=kinds[0])
    for kind in kinds:
        section |= leaves[kind]
    return ConfigDict(section)


def add_then(config: ConfigDict, then: str) -> None:
    """Add the stages that follow pretraining, one of `THEN`, and their sections."""
    if then == "probe":
        config.stages = ("pretrain", "probe")
        config.probe = probe()
    else:
        config.stages = ("pretrain", "finetune", "evaluate")
        config.finetune = finetune(config.preset)


def add_curriculum(config: ConfigDict, kind: str) -> None:
    """Add the curriculum of fine-tuning, one of `CURRICULA`."""
    if kind == "none":
        return
    if "finetune" not in config:
        raise ValueError("a curriculum is for fine-tuning, and then=probe has none")
    config.curriculum = curriculum(kind, warmup=40, refresh=40)


def extract(**changes: Any) -> dict[str, Any]:
    """Features for `python -m memejax.extract` to compute and store."""
    section: dict[str, Any] = dict(
        # A finished run whose encoders to use; None: those of `weights` with this
        # config's `model`.
        run=placeholder(str),
        # An arm of the run, or of model.image.
        arm="cnn",
        # Whether encoders may stay random without a run or a checkpoint.
        allow_random=False,
        # "detector", "grid" or "none".
        entities="grid",
        # For "grid": tiles per side.
        grid=3,
        # For "detector": maximum entities per meme, and their minimum score.
        k=10,
        score=0.05,
        # "box" cuts an entity out, "mask" darkens the picture around it.
        crop="box",
        # Pictures are resized to these for the detector, as torchvision does.
        min_side=800,
        max_side=1333,
        # Pictures per batch of the detector.
        detector_batch=8,
        # What else to store: features of the caption's tokens; for "detector" its own
        # features of the boxes, and the masks.
        tokens=False,
        box_features=False,
        masks=False,
        # Of the stored features: "float32" or "float16".
        dtype="float32",
        # Whether the store keeps the encoders, to score new memes with them.
        keep_encoders=False,
        # Whether captions that are missing are read off the pictures (extra `ocr`).
        ocr=False,
        # Of towers that share a space: use -> class -> prompts.
        prompts={},
        # Memes per file, and memes (or entities) per batch.
        chunk=256,
        batch=32,
    )
    return section | changes


def parallel() -> dict[str, Any]:
    """Devices, and how a step is compiled for them."""
    return dict(
        # Number per process; None: all.
        devices=placeholder(int),
        # "jit" compiles a step on the whole batch, "pmap" on a part of it (for
        # compatibility: JAX only maintains it). Without dropout both compute the same;
        # dropout masks differ.
        mode="jit",
        # Whether parameters, optimizer states etc. are divided over the devices (FSDP),
        # which saves memory; only with "jit".
        shard_parameters=False,
        # Whether encoders' blocks are recomputed in the backward pass, which saves
        # memory and takes time.
        remat=False,
    )


def pipeline(preset: str) -> dict[str, Any]:
    """Reading of pictures: cache, threads, worker processes."""
    if preset == "demo":
        return dict(cache="memory", threads=2, workers=0)
    return dict(cache="disk", threads=16, workers=0)


def runtime(preset: str, *, every: int | None = None) -> dict[str, Any]:
    """Sections that do not change what is computed.

    Args:
        preset: one of `PRESETS`.
        every: updates between checkpoints; None: the preset's.
    """
    every = every or (100 if preset == "demo" else 500)
    return dict(
        parallel=parallel(),
        pipeline=pipeline(preset),
        checkpoint=checkpoint(every=every),
        log=log(),
        profile=profile(),
        report=report(),
    )


def checkpoint(*, every: int, keep: int = 2) -> dict[str, Any]:
    """Updates between checkpoints, and how many to keep."""
    return dict(every=every, keep=keep)


def log(*, every: int = 20) -> dict[str, Any]:
    """Updates between progress lines."""
    return dict(every=every)


def profile() -> dict[str, Any]:
    """Profiler window: first step (0: no profile) and number of steps."""
    return dict(start=0, steps=5)


def report() -> dict[str, Any]:
    """The page that a run writes at its end."""
    return dict(
        # Whether it shows memes: the most confident right and wrong calls.
        pictures=True
    )
