"""From a config to objects, by closed dict literals: the only reader of its sections.

`pretrain` and `finetune` give a `Stage`: what the loop needs, already made of
callables and arrays. (`dataset.load` does the same for the section `data`.)
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from memejax import dataset, feeders, optim, parallel, steps, views
from memejax.data import plans
from memejax.models import distilbert, fusion, resnet, vit
from memejax.weights import huggingface

Tree = Any

# The collapse panel takes a singular value decomposition: not at every update.
PANEL_EVERY = 10

# Sections of a config that do not change what is computed: a run may be resumed with
# other values of them. Every other leaf is part of the run's identity.
RUNTIME = ("checkpoint", "log", "parallel", "pipeline")

IMAGE_ENCODERS: dict[str, Callable[..., Any]] = {
    "resnet": resnet.ResNet,
    "vit": vit.ViT,
    **{
        n: functools.partial(resnet.ResNet, **size)
        for n, size in resnet.RESNETS.items()
    },
    **{n: functools.partial(vit.ViT, **size) for n, size in vit.VITS.items()},
}
TEXT_ENCODERS: dict[str, Callable[..., Any]] = {
    "transformer": distilbert.DistilBert,
    **{
        n: functools.partial(distilbert.DistilBert, **size)
        for n, size in distilbert.BERTS.items()
    },
}
# Mean and standard deviation of the three channels, as checkpoints were trained with.
NORMALIZATIONS = {
    "imagenet": dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "half": dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the loop needs.

    Attributes:
      state: before the first update, on the devices.
      run_chunk: `(state, chunk) -> (state, metrics)`, compiled.
      feeder: gives the chunks.
      predict: `(variables, batch) -> {arm: outputs}`, compiled.
      eval_every: updates between evaluations on the dev split; 0 never evaluates.
      patience: evaluations without a better AUROC before the stage ends; 0: all.
    """

    state: steps.State
    run_chunk: Callable[..., Any]
    feeder: feeders.Feeder
    predict: Callable[..., Any]
    eval_every: int = 0
    patience: int = 0


def choose(options: Mapping[str, Any], name: str, what: str) -> Any:
    """`options[name]`, or a ValueError that lists the options."""
    if name not in options:
        raise ValueError(f"unknown {what} {name!r}: choose one of {sorted(options)}")
    return options[name]


def identity(config: ConfigDict) -> dict[str, Any]:
    """The leaves of a config that decide what is computed."""
    return {k: v for k, v in config.to_dict().items() if k not in RUNTIME}


def mesh(config: ConfigDict) -> Mesh:
    """The devices of the run."""
    return parallel.mesh(config.parallel.devices)


# Models


def model(config: ConfigDict, vocabulary: int) -> fusion.Arms:
    """The two arms."""
    c = config.model
    dtype = choose(DTYPES, c.dtype, "model.dtype")
    text_args = dict(c.text)
    make_text = functools.partial(
        choose(TEXT_ENCODERS, text_args.pop("name"), "model.text.name"),
        vocab_size=vocabulary,
        dtype=dtype,
        **text_args,
    )
    shared = make_text() if c.share_text else None
    arms = {}
    for name, encoder in c.image.items():
        encoder = dict(encoder)
        del encoder["normalization"]
        make_image = choose(
            IMAGE_ENCODERS, encoder.pop("name"), f"model.image.{name}.name"
        )
        image_encoder = make_image(dtype=dtype, **encoder)
        if isinstance(image_encoder, vit.ViT):
            # The position table is for the pictures that come.
            image_encoder = image_encoder.clone(
                grid=config.data.image_size // image_encoder.patch
            )
        arms[name] = fusion.Arm(
            image_encoder=image_encoder,
            text_encoder=shared or make_text(),
            **c.arm,
        )
    return fusion.Arms(arms)


def _views(
    config: ConfigDict,
    *,
    independent: bool,
    token_dropout: float,
    caption_dropout: float = 0.0,
):
    """One view an arm, all of one draw or each of its own."""
    c = dict(config.augment)
    brightness, contrast, saturation, hue = c.pop("jitter")
    image = dict(
        c,
        crop_scale=tuple(c["crop_scale"]),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
    )
    recipes = {
        name: views.Recipe(
            **choose(
                NORMALIZATIONS,
                config.model.image[name].normalization,
                f"model.image.{name}.normalization",
            ),
            image=image,
            token_dropout=token_dropout,
            stream=i if independent else 0,
        )
        for i, name in enumerate(config.model.image)
    }
    return views.make_views(recipes, caption_dropout=caption_dropout)


def _variables(
    arms, split: dataset.Split, view_fn, key: jax.Array, method: str
) -> Tree:
    """Random parameters and statistics for the shapes of a split's examples."""
    two = np.arange(2) % len(split.ids)
    batch = {name: column[two] for name, column in split.source.items()}
    batch |= {"index": two, "draw": two}
    # Runs once: compiling it takes longer than anything that optimising could save.
    return jax.jit(
        lambda key, batch: arms.init(
            key, view_fn(None, batch, train=False), train=False, method=method
        ),
        compiler_options={"xla_backend_optimization_level": 0},
    )(key, batch)


def load_weights(config: ConfigDict, variables: Tree) -> Tree:
    """Puts the encoders' checkpoints named under `weights` in their places.

    Raises:
      ValueError: listing what is missing, unexpected or of another shape.
    """
    variables = jax.tree.map(lambda x: x, variables)
    for arm in config.model.image:
        for part, path in (
            ("image_encoder", config.weights.image[arm]),
            ("text_encoder", config.weights.text),
        ):
            place = variables["params"].get(f"arms_{arm}", {})
            if path is None or part not in place:
                continue
            table = place[part].get("positions") if part == "image_encoder" else None
            # A ViT's checkpoint may be for pictures of another size.
            grid = None if table is None else math.isqrt(len(table) - 1)
            _, loaded = huggingface.load(path, grid=grid)
            _replace(variables, loaded, (f"arms_{arm}", part), path)
    return variables


def _replace(variables: Tree, loaded: Tree, where: tuple[str, str], path: str) -> None:
    """Exchanges a subtree of every collection, if the shapes are the same."""
    arm, part = where
    for collection, tree in loaded.items():
        old = variables[collection][arm][part]
        shapes = [jax.tree.map(np.shape, t) for t in (old, tree)]
        if shapes[0] != shapes[1]:
            flat = [
                dict(jax.tree_util.tree_leaves_with_path(s, is_leaf=_is_shape))
                for s in shapes
            ]
            wrong = [
                f"  {optim.path_of(k)}: the model has {flat[0].get(k)}, "
                f"the checkpoint {flat[1].get(k)}"
                for k in sorted(flat[0].keys() | flat[1].keys(), key=str)
                if flat[0].get(k) != flat[1].get(k)
            ]
            raise ValueError(f"{path} does not fit {arm}/{part}:\n" + "\n".join(wrong))
        variables[collection][arm][part] = jax.tree.map(jnp.asarray, tree)


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple)


# Stages


def pretrain(config: ConfigDict, data: dataset.Data, *, seed: int, mesh: Mesh) -> Stage:
    """Multimodal CASS on the training memes; labels are not used."""
    c = config.pretrain
    arms = model(config, data.vocabulary)
    view_fn = _views(
        config,
        independent=c.independent_views,
        token_dropout=c.token_dropout,
        # An arm of text alone would be left with nothing.
        caption_dropout=(
            0.0 if config.model.arm.modalities == "text" else c.caption_dropout
        ),
    )
    key = _key(seed, 0)
    variables = load_weights(
        config, _variables(arms, data.splits["train"], view_fn, key, "project")
    )
    plan = _plan(c, data.splits["train"], seed=2 * seed)
    tx, rates = _optimizer(c.optimizer, variables["params"], len(plan))
    step = steps.make_cass_step(
        functools.partial(arms.apply, method="project"),
        tx,
        objective=steps.CassObjective(**c.objective),
        views=view_fn,
        accumulate=c.accumulate,
        panel_every=PANEL_EVERY,
        learning_rates=rates,
    )
    state = steps.init_state(variables, tx, key=jax.random.fold_in(key, 1))
    return Stage(
        state=parallel.put_state(mesh, state),
        run_chunk=parallel.jit_step(step, mesh),
        feeder=_feeder(config, data.splits["train"], plan, mesh),
        predict=parallel.jit_predict(
            steps.make_predict(
                functools.partial(arms.apply, method="embeddings"), views=view_fn
            ),
            mesh,
        ),
    )


def finetune(
    config: ConfigDict,
    data: dataset.Data,
    *,
    seed: int,
    mesh: Mesh,
    start: steps.State | None = None,
) -> Stage:
    """Supervised training of both arms, from a pretrained state or from scratch."""
    c = config.finetune
    train = data.splits["train"]
    if not train.labelled:
        raise ValueError("fine-tuning needs training memes of both labels")
    arms = model(config, data.vocabulary)
    view_fn = _views(config, independent=True, token_dropout=0.0)
    key = _key(seed, 1)
    variables = _variables(arms, train, view_fn, key, "classify")
    if start is None:
        variables = load_weights(config, variables)
    else:
        variables = transfer(
            {"params": start.params, "batch_stats": start.batch_stats}, variables
        )
    plan = _plan(c, train, seed=2 * seed + 1)
    tx, rates = _optimizer(c.optimizer, variables["params"], len(plan))
    positives = float(np.mean(train.labels == 1))
    apply_fn = functools.partial(arms.apply, method="classify")
    step = steps.make_supervised_step(
        apply_fn,
        tx,
        views=view_fn,
        positive_weight=(1 - positives) / positives if c.balance else 1.0,
        accumulate=c.accumulate,
        learning_rates=rates,
    )
    state = steps.init_state(variables, tx, key=jax.random.fold_in(key, 1))
    return Stage(
        state=parallel.put_state(mesh, state),
        run_chunk=parallel.jit_step(step, mesh),
        feeder=_feeder(config, train, plan, mesh),
        predict=parallel.jit_predict(steps.make_predict(apply_fn, views=view_fn), mesh),
        eval_every=c.eval_every,
        patience=c.patience,
    )


def scoring_feeder(
    config: ConfigDict, split: dataset.Split, mesh: Mesh
) -> feeders.Feeder:
    """One pass over a split, in order."""
    plan = plans.sequential(len(split.ids), batch=config.finetune.batch)
    return _feeder(config, split, plan, mesh)


def transfer(old: Tree, new: Tree) -> Tree:
    """`new`, with every leaf that `old` has at the same path and of the same shape.

    Raises:
      ValueError: if no leaf is taken over.
    """
    known = {
        optim.path_of(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(old)
    }
    taken = 0

    def pick(path, leaf):
        nonlocal taken
        found = known.get(optim.path_of(path))
        if found is None or found.shape != leaf.shape:
            return leaf
        taken += 1
        # A copy: the old state may be given up.
        return jnp.array(found)

    merged = jax.tree_util.tree_map_with_path(pick, new)
    if not taken:
        raise ValueError("nothing of the pretrained state fits the model to fine-tune")
    return merged


def _key(seed: int, stage: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), stage)


def _plan(section: ConfigDict, split: dataset.Split, *, seed: int) -> plans.Plan:
    n, batch = len(split.ids), section.batch
    if (section.steps is None) == (section.epochs is None):
        raise ValueError(
            "set one of steps and epochs, got "
            f"steps={section.steps}, epochs={section.epochs}"
        )
    total = section.steps
    if total is None:
        total = max(1, round(section.epochs * n / batch))
    return plans.shuffled(n, batch=batch, steps=total, seed=seed)


def _feeder(config: ConfigDict, split: dataset.Split, plan: plans.Plan, mesh: Mesh):
    c = config.pipeline
    return feeders.StreamFeeder(
        split.source,
        plan,
        mesh=mesh,
        threads=c.threads,
        workers=c.workers,
    )


def _optimizer(section: ConfigDict, params: Tree, total: int):
    c = dict(section)
    shared = {name: c.pop(name) for name in ("weight_decay", "clip")}
    groups = {
        name: optim.Group(**(shared | dict(group)))
        for name, group in c.pop("groups").items()
    }
    name, plateau = c.pop("schedule"), c.pop("plateau", None)
    if (name == "plateau") != (plateau is not None):
        raise ValueError(
            "the schedule 'plateau', and no other, needs the section "
            f"optimizer.plateau; got schedule {name!r}"
        )
    schedule = optim.schedule(name, steps=total, **c)
    tx = optim.make_optimizer(
        params, groups, schedule=schedule, plateau=plateau and dict(plateau)
    )
    return tx, optim.make_learning_rates(groups, schedule)
