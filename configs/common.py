"""Building blocks: each experiment lists those that it is put together from.

A block that a run does not use is not in its config; what stands after the colon of
`--config=FILE.py:TEXT` says which there are. TEXT is `PRESET[,NAME=VALUE...]`, or
`NAME=VALUE,...` for the first preset.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

PRESETS = ("demo", "full", "paper")
# Kinds of curricula that fine-tuning can have.
CURRICULA = ("none", "uniform", "replacement", "bac", "dsac")
# What follows pretraining: fine-tuning and its scores, or a probe of the features.
THEN = ("finetune", "probe")
# Everything of an arm but its encoders.
HEADS = "arms_[^/]*/(?!image_encoder|text_encoder).*"


def parse(
    text: str, presets: Sequence[str] = PRESETS, **options: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Return the preset and the options that a text after the colon chooses.

    Args:
        text: `PRESET[,NAME=VALUE...]` or `NAME=VALUE,...`; may be empty.
        presets: the experiment's, the default first.
        options: name -> values that it can have, the default first.

    Raises:
        ValueError: for an unknown preset, name or value, with those that there are; for
            a name given twice.
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
    """A leaf of a type that may be None."""
    leaf = placeholder(kind)
    leaf.set(value)
    return leaf


def data(
    preset: str,
    *,
    text_length: int | None = None,
    image_size: int | None = None,
    leaks: bool = True,
) -> dict[str, Any]:
    """Memes on disk; the demo's are built in where `root` names no folder.

    Args:
        preset: of `PRESETS`.
        text_length: in tokens; None: the preset's.
        image_size: in pixels; None: the preset's.
        leaks: whether built-in memes can be made easier and noisier than they are.
    """
    knobs = dict(image_leak=0.0, text_leak=0.0, label_noise=0.0) if leaks else {}
    synthetic = dict(train=8000, dev=1000, test=2000, concepts=4, **knobs)
    return dict(
        name="memes",
        root=placeholder(str),
        dev="dev_seen",
        # Share of the training memes held out by caption, where dev="validation".
        validation=0.2,
        on_bad_record="error",
        max_pixels=50_000_000,
        # 0: the size that the checkpoints of weights.image_* were trained at.
        image_size=image_size or (48 if preset == "demo" else 384),
        resize="square",
        text_length=text_length or {"demo": 16, "full": 64, "paper": 200}[preset],
        # By default that of weights.text.
        tokenizer=placeholder(str),
        # Of a tokenizer trained on the captions, where there is none.
        vocabulary=2000 if preset == "demo" else 8000,
        **(dict(synthetic=synthetic) if preset == "demo" else {}),
    )


def model(
    preset: str,
    *,
    arm: dict[str, Any],
    text: dict[str, Any] | None = None,
    dtype: str | None = None,
    cnn_normalization: str = "checkpoint",
) -> dict[str, Any]:
    """The encoders, and what joins them.

    Args:
        preset: of `PRESETS`.
        arm: as `fused_arm` makes it, and what else an arm has.
        text: text encoder; None: the preset's.
        dtype: None: the preset's.
        cnn_normalization: "imagenet", "half" (to [-1, 1]), "none", or "checkpoint":
            that of weights.image_cnn, ImageNet's without one.
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
    """Join picture and caption as figure 2 of the paper does, or in a smaller arm."""
    sizes = {
        "demo": dict(fusion="product", image_width=0, embed=128, normalize=True),
        "full": dict(fusion="concat", image_width=512, embed=300, normalize=True),
        "paper": dict(fusion="concat", image_width=512, embed=300, normalize=False),
    }
    return dict(modalities="both", text_pooling="cls", fused=256, **sizes[preset])


def weights(*names: str) -> dict[str, Any]:
    """Checkpoints to start from: folders, files or names on the hub.

    An encoder that starts from one has its sizes.
    """
    return {name: placeholder(str) for name in names}


def augmentation(preset: str) -> dict[str, Any]:
    """Random views of a picture."""
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
    """Length and batch of a stage, and what else its section has."""
    return dict(
        steps=optional(int, steps),
        epochs=optional(float, epochs),
        batch=batch,
        # Parts that a batch is worked on in.
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
    """Rule, schedule and groups; a group's own weight_decay or clip goes first."""
    return dict(
        rule=rule,
        schedule=schedule,
        warmup=warmup,
        weight_decay=weight_decay,
        clip=clip,
        groups=groups,
        **more,
    )


def demo_groups() -> dict[str, Any]:
    """A learning rate for each of the demo's arms."""
    return dict(
        cnn=dict(pattern="arms_cnn/.*", lr=2e-3),
        vit=dict(pattern="arms_vit/.*", lr=1e-3),
    )


def groups(*, image: float, text: float, heads: float) -> dict[str, Any]:
    """Learning rates of the image encoders, the text encoders and all else."""
    return dict(
        image=dict(pattern=".*/image_encoder/.*", lr=image),
        text=dict(pattern=".*/text_encoder/.*", lr=text),
        heads=dict(pattern=HEADS, lr=heads),
    )


def finetune(preset: str) -> dict[str, Any]:
    """Fine-tuning as all experiments on memes have it, so that rows compare."""
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
    rates = dict(all=dict(pattern=".*", lr=5e-5))
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
    """Neighbours and examples of a stage "probe"."""
    return dict(
        # By default the last one with labels.
        split=placeholder(str),
        # Neighbours.
        k=20,
        # At most so many of a split.
        examples=10_000,
    )


def curriculum(*kinds: str, warmup: int, refresh: int, passes: int = 0) -> ConfigDict:
    """Order in which examples are trained on.

    Args:
        kinds: that the section has the leaves of; the first is chosen. "uniform":
            shuffled passes; "replacement"; "switch": easy pictures first; "bac";
            "dsac".
        warmup: updates before the first draw by score.
        refresh: updates between two draws.
        passes: dropout passes of scores that take several; 0: no score takes any.
    """
    scores = dict(
        score="entropy",
        # easy, hard; bac also random
        favour="easy",
    )
    draws = dict(warmup=warmup, refresh=refresh)
    leaves: dict[str, dict[str, Any]] = {
        "uniform": {},
        "replacement": draws,
        # Updates on easy pictures.
        "switch": dict(switch=0),
        "bac": scores
        | dict(
            tasks=2,
            # Whether phases are of equal "updates" or "epochs".
            reading="updates",
            balanced=False,
        ),
        "dsac": scores
        | draws
        | dict(
            # Largest by smallest probability, inf for no control, and its course.
            ratio=10.0,
            ratio_end=placeholder(float),
            ratio_schedule="constant",
            # 1: the ratio is only ever made smaller, as in the thesis; 0: always met.
            min_temperature=0.0,
            winsorize=0.0,
            # Power of the importance weights.
            correction=0.0,
        ),
    }
    section = dict(kind=kinds[0], **(dict(passes=passes) if passes else {}))
    for kind in kinds:
        section |= leaves[kind]
    return ConfigDict(section)


def parallel() -> dict[str, Any]:
    """Devices, and the form in which a step is compiled for them."""
    return dict(
        # Of each process; by default all that there are.
        devices=placeholder(int),
        # How a step is compiled for them: "jit", of the whole batch, or "pmap", of a
        # part of it. Without dropout both compute the same; its masks differ.
        mode="jit",
        # Whether parameters and all that is kept beside them are divided over the
        # devices (FSDP), which saves memory; with "jit" alone.
        shard_parameters=False,
        # Whether encoders' blocks are computed again in the backward pass, which saves
        # memory and takes time.
        remat=False,
    )


def pipeline(preset: str) -> dict[str, Any]:
    """Reading of pictures: cache, threads, worker processes."""
    if preset == "demo":
        return dict(cache="memory", threads=2, workers=0)
    return dict(cache="disk", threads=16, workers=0)


def checkpoint(*, every: int, keep: int = 2) -> dict[str, Any]:
    """Updates between checkpoints, and how many of them are kept."""
    return dict(every=every, keep=keep)


def log(*, every: int = 20) -> dict[str, Any]:
    """Updates between lines of progress."""
    return dict(every=every)


def profile() -> dict[str, Any]:
    """A window of steps in the profiler, after so many; 0: none."""
    return dict(start=0, steps=5)


def report() -> dict[str, Any]:
    """The page that a run writes at its end."""
    return dict(
        # Whether it shows memes: the most confident right and wrong calls.
        pictures=True
    )
