"""CASS on pictures alone; then fine-tuning with text beside the image features.

demo (default)
  command   python -m memejax.main --config=configs/cass.py
  hardware  2 CPU cores, minutes, nothing downloaded
  is        the networks, data and fine-tuning of configs/cass_mm.py, so that only
            what is pretrained differs. On pictures with a visible concept, with a
            probe of what was learnt (README.md has the scores):
              --config.data.name=pictures --config.stages="('pretrain','probe')"

full
  command   python -m memejax.main --config=configs/cass.py:full
              --config.data.root=FOLDER --config.weights.image_cnn=RESNET50
              --config.weights.image_vit=VIT_B16_384
              --config.weights.text=DISTILBERT
  hardware  one GPU of 80 GB or several; not run by us yet, so without a score
  is        both arms start from ImageNet classifiers, whose logits are aligned; outputs
            standardised over the batch, views of their own, a covariance term.

paper
  command   as full, with :paper
  hardware  as full
  is        the recipe as published: the raw logits of the same augmented picture,
            nothing against a constant output; Adam at 1e-3, the cosine stepped at
            every batch with a period of 32 of them. Averaged word vectors stand for
            fastText's in fine-tuning: trained with the classifier, not beforehand.
            Not kept: gradients that pile up over the whole run because nothing clears
            them; the weight averaging whose result the original never uses
            (pretrain.average=swa has one that is used); pretraining on the tenth of
            the pictures that was to be labelled.
"""

from ml_collections import ConfigDict

from memejax.config import load_config


def get_config(preset: str = "demo") -> ConfigDict:
    config = load_config(f"configs/cass_mm.py:{preset}").unlock()
    # Curricula are for fine-tuning alone: configs/supervised.py, configs/cass_mm.py.
    del config.curriculum
    config.name = "cass"
    # Whether the checkpoints' classifiers become the arms' heads.
    config.weights.heads = preset != "demo"
    # Whether a head of other classes than its checkpoint's starts at random instead.
    config.weights.allow_new_head = False
    section = config.pretrain
    del section.token_dropout, section.caption_dropout
    section.method = "cass"
    section.head = dict(out=128 if preset == "demo" else 1000, predictor=0)
    section.augmentation = "random"
    section.augment = config.augment.copy_and_resolve_references()
    # "ema" or "swa" of the parameters is then what is fine-tuned.
    section.average = dict(kind="none", momentum=0.999, start=0)
    if preset != "demo":
        section.optimizer.groups = dict(
            encoders=dict(pattern=".*/image_encoder/.*", lr=1e-4),
            heads=dict(pattern=".*/head/.*", lr=1e-3),
        )
    if preset == "paper":
        for name, value in published().items():
            section[name] = value
        config.model.text = dict(name="words", hidden=150)
    return config.lock()


def published() -> dict:
    """As in the official notebook, but for what the header names."""
    return dict(
        batch=16,
        epochs=100.0,
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
        objective=dict(
            standardize=False, variance=0.0, covariance=0.0, stop_gradient=False
        ),
        optimizer=dict(
            rule="adam",
            schedule="cosine_cycle",
            warmup=0,
            half_period=16,
            floor=1e-3,
            weight_decay=0.0,
            clip=0.0,
            groups=dict(all=dict(pattern=".*", lr=1e-3)),
        ),
    )
