"""Heads on stored features of a meme: a frozen encoder's picture and caption vectors.

Every head has one signature, `head(image_bd, text_bd, train=) -> HeadOutput`, the log
odds of "hateful" and an embedding for retrieval; dropout draws from the rng "dropout".

    base.py           what heads share: HeadOutput, PyTorch's start, the MLP
    baselines.py      LinearHead, ConcatMlp
    hate_clipper.py   HateClipper: products of the two modalities
    meme_clip.py      MemeClip: adapters, a cosine classifier, its start from prompts
    kernel.py         kernel logistic regression on both, nothing of a fixed width
    zero_shot.py      log odds from prompts alone, nothing trained
    published.py      `FEATURE_HEADS`, the published configurations and their losses
"""

from memejax.models.feature_heads.base import FeatureHead as FeatureHead
from memejax.models.feature_heads.base import HeadOutput as HeadOutput
from memejax.models.feature_heads.baselines import ConcatMlp as ConcatMlp
from memejax.models.feature_heads.baselines import LinearHead as LinearHead
from memejax.models.feature_heads.hate_clipper import HateClipper as HateClipper
from memejax.models.feature_heads.kernel import KernelFit as KernelFit
from memejax.models.feature_heads.kernel import (
    fit_kernel_logistic as fit_kernel_logistic,
)
from memejax.models.feature_heads.kernel import summed_rbf as summed_rbf
from memejax.models.feature_heads.meme_clip import MemeClip as MemeClip
from memejax.models.feature_heads.meme_clip import (
    start_from_prompts as start_from_prompts,
)
from memejax.models.feature_heads.published import FEATURE_HEADS as FEATURE_HEADS
from memejax.models.feature_heads.published import PublishedHead as PublishedHead
from memejax.models.feature_heads.published import (
    make_feature_head as make_feature_head,
)
from memejax.models.feature_heads.zero_shot import ensemble_prompts as ensemble_prompts
from memejax.models.feature_heads.zero_shot import zero_shot_logits as zero_shot_logits
