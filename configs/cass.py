"""CASS on pictures alone; then fine-tuning with text beside the image features.

demo (default)
  command   python -m memejax.main --config=configs/cass.py
  hardware  2 CPU cores, minutes, nothing downloaded
  is        the networks, data and fine-tuning of configs/cass_mm.py, so that only
            the pretraining differs. On pictures with a visible concept, with a probe
            of the features (scores: configs/README.md):
              --config=configs/cass.py:then=probe --config.data.name=pictures

full
  command   python -m memejax.main --config=configs/cass.py:full
              --config.data.root=FOLDER --config.weights.image_cnn=RESNET50
              --config.weights.image_vit=VIT_B16_384
              --config.weights.text=DISTILBERT
  hardware  one GPU of 80 GB or several; not run by us yet, so without a score
  is        both arms start from ImageNet classifiers, whose logits are aligned; outputs
            standardised over the batch, independent views, a covariance term.

paper
  command   as full, with :paper without weights.text, or with :paper,text=distilbert
  hardware  as full
  is        the recipe as published: the raw logits of the same augmented picture,
            no term against a constant output; Adam at 1e-3, the cosine stepped at
            every batch with a period of 32 of them. In fine-tuning averaged words stand
            for the fastText of the paper's code, trained with the classifier and not
            beforehand; the paper's text says DistilBERT (text=distilbert). A random
            fifth of the training memes chooses the checkpoint, as the paper's text has
            it. Pretraining is that of CASS's own notebook, as none was published for
            memes. Not kept of it: gradients that accumulate over the whole run because
            nothing clears them; optimisers of other objects than the trained models;
            weight averaging whose result the original never uses (average=swa uses its
            own); pretraining on the tenth of the pictures that was to be labelled; its
            fine-tuning (Adam at 3e-4, focal loss, early stop). Not kept of the code of
            the image-only rows: as many memes of either label, by leaving out others
            (here class weights); a softmax before the cross-entropy, which cannot fall
            below 0.313 then; ReLU behind both embeddings (here multimodal CASS's
            classifier); the last epoch is tested. With VIT_B16_384 of its own
            normalisation the ViT's pictures are scaled as that file wants.

After the colon, behind the preset (`configs/cass.py:full,average=ema`):
  then=finetune|probe     stage after pretraining
  average=none|ema|swa    average of the parameters to fine-tune
  text=words|distilbert   text encoder of the preset paper
"""

from typing import Any

from ml_collections import ConfigDict

from memejax.configs import common


def get_config(text: str = "") -> ConfigDict:
    preset, chosen = common.parse(
        text, then=common.THEN, average=("none", "ema", "swa"), text=common.TEXTS
    )
    config = ConfigDict(
        dict(
            name="cass",
            preset=preset,
            seed=0,
            seeds=1,
            arms=("cnn", "vit"),
            data=common.data(preset, leaks=False),
            **common.image_only(preset, chosen["text"]),
            pretrain={"demo": demo, "full": full, "paper": paper}[preset](),
            **common.runtime(preset),
        )
    )
    # Whether the checkpoints' classifiers become the arms' heads.
    config.weights.heads = preset != "demo"
    # Whether a head with other classes than its checkpoint starts at random instead.
    config.weights.allow_new_head = False
    if chosen["average"] != "none":
        config.pretrain.average = dict(kind=chosen["average"], momentum=0.999, start=0)
    common.add_then(config, chosen["then"])
    if chosen["then"] == "finetune":
        config.augment = common.augmentation(preset)
    return config.lock()


def demo() -> dict[str, Any]:
    return dict(
        method="cass",
        head=dict(out=128, predictor=0),
        objective=objective(),
        # Whether each arm gets its own random view.
        independent_views=True,
        augmentation="random",
        augment=common.augmentation("demo"),
        **common.training(
            steps=200,
            batch=128,
            optimizer=common.optimizer(common.demo_groups(), warmup=20),
        ),
    )


def full() -> dict[str, Any]:
    rates = dict(
        encoders=dict(pattern=".*/image_encoder/.*", lr=1e-4),
        heads=dict(pattern=".*/head/.*", lr=1e-3),
    )
    return dict(
        method="cass",
        head=dict(out=1000, predictor=0),
        objective=objective(),
        independent_views=True,
        augmentation="random",
        augment=common.augmentation("full"),
        **common.training(
            epochs=100.0,
            batch=128,
            optimizer=common.optimizer(rates, warmup=500),
        ),
    )


def paper() -> dict[str, Any]:
    """As in the official notebook, except as listed in the header."""
    return dict(
        method="cass",
        head=dict(out=1000, predictor=0),
        objective=objective(standardize=False, covariance=0.0),
        independent_views=False,
        augmentation="cass",
        augment=dict(
            jitter=0.2,
            distortion=0.2,
            degrees=10.0,
            probability=0.3,
            flip=0.3,
            vertical_flip=0.3,
        ),
        **common.training(
            epochs=100.0,
            batch=16,
            optimizer=common.optimizer(
                dict(all=dict(pattern=".*", lr=1e-3)),
                rule="adam",
                schedule="cosine_cycle",
                warmup=0,
                half_period=16,
                floor=1e-3,
                weight_decay=0.0,
                clip=0.0,
            ),
        ),
    )


def objective(*, standardize: bool = True, covariance: float = 0.04) -> dict[str, Any]:
    return dict(
        standardize=standardize,
        # Standardised outputs have variance 1: the variance term is for raw ones.
        variance=0.0,
        covariance=covariance,
        stop_gradient=False,
    )
