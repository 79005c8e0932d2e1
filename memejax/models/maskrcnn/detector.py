"""The Mask R-CNN detector."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from memejax.models.layers import Dtype, check_images
from memejax.models.maskrcnn.body import Body
from memejax.models.maskrcnn.boxes import clip, decode, has_sides
from memejax.models.maskrcnn.detections import Detections, best_detections
from memejax.models.maskrcnn.heads import BoxHead, MaskHead
from memejax.models.maskrcnn.proposals import (
    ProposalHead,
    Proposals,
    best_proposals,
)
from memejax.models.maskrcnn.pyramid import Pyramid
from memejax.models.maskrcnn.roi_align import roi_align

# Of the four maps that regions are pooled from; the fifth only makes proposals.
STRIDES = (4, 8, 16, 32)
BOX_BINS, MASK_BINS = 7, 14
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
MIN_SIDE = 1e-2


class MaskRCNN(nn.Module):
    """Mask R-CNN on a ResNet with a feature pyramid, for inference.

    With the same weights it agrees with torchvision's `maskrcnn_resnet50_fpn` on
    batches with the same canvas: a picture's padding has a slight effect in both. The
    reference infers the strides of its maps from the largest picture's height, wrongly
    for some heights below 68 pixels; here they are always 4, 8, 16 and 32.

    Parameters and statistics, beside torchvision's names:

    | here | there |
    |---|---|
    | `body/stem/{conv,norm}` | `backbone.body.{conv1,bn1}` |
    | `body/stage<i>_block<j>/layer<k>/{conv,norm}` | `backbone.body.layer<i+1>.<j>.{conv<k+1>,bn<k+1>}` |
    | `body/stage<i>_block<j>/shortcut/{conv,norm}` | `backbone.body.layer<i+1>.<j>.downsample.{0,1}` |
    | `pyramid/{inner,out}<i>` | `backbone.fpn.{inner,layer}_blocks.<i>.0` |
    | `rpn/{conv,logits,deltas}` | `rpn.head.{conv.0.0,cls_logits,bbox_pred}` |
    | `box/{fc6,fc7}` | `roi_heads.box_head.{fc6,fc7}` |
    | `box/{logits,deltas}` | `roi_heads.box_predictor.{cls_score,bbox_pred}` |
    | `mask/conv<i>` | `roi_heads.mask_head.<i>.0` |
    | `mask/{up,logits}` | `roi_heads.mask_predictor.{conv5_mask,mask_fcn_logits}` |

    Attributes:
        classes: number of classes, including the background as 0; 91 for COCO.
        stage_sizes: blocks in each of the body's four stages.
        width: channels of the body's first stage.
        channels: channels of the pyramid, the proposal network and the mask head.
        hidden: width of fc6 and fc7.
        norm_eps: epsilon of every BatchNorm: 0 for torchvision's COCO_V1 weights, 1e-5
            for a torchvision model trained from scratch.
        candidates: boxes per level before non-maximum suppression.
        proposals: boxes passed to the heads.
        detections: largest number of objects per picture.
        score_threshold: class probability above which a box is kept.
        proposal_nms: overlap above which the lower-scoring of two proposals is removed.
        detection_nms: the same for two detections of one class.
        masks: whether to compute masks.
        dtype: dtype of products and of the maps kept between them.

    References:
        He et al. 2017, arXiv:1703.06870.
    """  # noqa: E501

    classes: int = 91
    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    width: int = 64
    channels: int = 256
    hidden: int = 1024
    norm_eps: float = 0.0
    candidates: int = 1000
    proposals: int = 1000
    detections: int = 100
    score_threshold: float = 0.05
    proposal_nms: float = 0.7
    detection_nms: float = 0.5
    masks: bool = True
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Create the layers."""
        if len(self.stage_sizes) != len(STRIDES):
            raise ValueError(
                f"got stage_sizes {tuple(self.stage_sizes)}, expected {len(STRIDES)}"
            )
        self.body = Body(self.stage_sizes, self.width, self.norm_eps, self.dtype)
        self.pyramid = Pyramid(self.channels, self.dtype)
        self.rpn = ProposalHead(self.channels, self.dtype)
        self.box = BoxHead(self.classes, self.hidden, self.dtype)
        if self.masks:
            self.mask = MaskHead(self.classes, self.channels, self.dtype)

    def __call__(self, images_bhwc: jax.Array, sizes_b2: jax.Array) -> Detections:
        """Find the objects on a batch of canvases.

        Args:
            images_bhwc: `[b, h, w, 3]` float, normalised (`normalize`, `resize`);
                h and w multiples of 32. Pixels beyond the true sizes are set to 0.
            sizes_b2: `[b, 2]` int32, true height and width of each picture, whose
                corner is at (0, 0): boxes are clipped to it.

        Returns:
            Detections.

        Raises:
            ValueError: for other shapes or dtypes, a canvas that is not a multiple of
                32, or (unless traced) sizes that do not fit the canvas.
        """
        maps = self.feature_maps(images_bhwc, sizes_b2)
        proposals = self.propose(maps, sizes_b2, canvas=images_bhwc.shape[1:3])
        detections = self.detect(maps, sizes_b2, proposals=proposals)
        if not self.masks:
            return detections
        return detections._replace(masks=self.segment(maps, detections))

    def feature_maps(
        self, images_bhwc: jax.Array, sizes_b2: jax.Array
    ) -> list[jax.Array]:
        """Compute the pyramid's maps of strides 4, 8, 16, 32 and 64.

        Args and errors are those of `__call__`.

        Returns:
            `[b, h, w, channels]` each, in `dtype`.
        """
        check_canvas(images_bhwc, sizes_b2)
        inside = [
            jnp.arange(side)[None] < sizes_b2[:, axis, None]
            for axis, side in enumerate(images_bhwc.shape[1:3])
        ]
        inside = inside[0][:, :, None] & inside[1][:, None, :]
        return self.pyramid(self.body(jnp.where(inside[..., None], images_bhwc, 0.0)))

    def propose(
        self,
        maps: Sequence[jax.Array],
        sizes_b2: jax.Array,
        *,
        canvas: tuple[int, int],
    ) -> Proposals:
        """Propose boxes that may contain an object.

        Args:
            maps: the pyramid's five maps.
            sizes_b2: as in `__call__`.
            canvas: height and width of the images.

        Returns:
            At most `proposals` boxes per image.
        """
        heads = [self.rpn(m) for m in maps]
        return best_proposals(
            [logits for logits, _ in heads],
            [deltas for _, deltas in heads],
            grids=[(m.shape[1], m.shape[2]) for m in maps],
            canvas=canvas,
            sizes=sizes_b2,
            candidates=self.candidates,
            count=self.proposals,
            nms_threshold=self.proposal_nms,
        )

    def detect(
        self, maps: Sequence[jax.Array], sizes_b2: jax.Array, *, proposals: Proposals
    ) -> Detections:
        """Detect the objects in the proposals, without masks.

        A proposal's box for a class is considered if the class probability is above
        `score_threshold` and both sides are at least 0.01.

        Args:
            maps: the pyramid's maps.
            sizes_b2: as in `__call__`.
            proposals: any number of boxes.

        Returns:
            Detections with `masks` None.
        """
        regions = roi_align(
            maps[: len(STRIDES)], proposals.boxes, size=BOX_BINS, strides=STRIDES
        )
        features_brd, logits_brc, deltas_brc4 = self.box(regions)
        # The background also has a box, which is never considered.
        scores = jax.nn.softmax(logits_brc, axis=-1)[..., 1:]
        boxes = decode(
            deltas_brc4[..., 1:, :], proposals.boxes[:, :, None], weights=BOX_WEIGHTS
        )
        boxes = clip(boxes, sizes_b2[:, None, None])
        where = has_sides(boxes, MIN_SIDE) & proposals.where[..., None]
        where = where & (scores > self.score_threshold)

        def choose(boxes, scores, features, where):
            proposal, label, real = best_detections(
                boxes,
                scores,
                where=where,
                count=self.detections,
                nms_threshold=self.detection_nms,
            )

            def only_real(x):
                return jnp.where(real.reshape(-1, *[1] * (x.ndim - 1)), x, 0)

            return Detections(
                boxes=only_real(boxes[proposal, label]),
                scores=only_real(scores[proposal, label]),
                labels=only_real(label + 1),
                masks=None,
                features=only_real(features[proposal]),
                where=real,
            )

        return jax.vmap(choose)(boxes, scores, features_brd, where)

    def segment(self, maps: Sequence[jax.Array], detections: Detections) -> jax.Array:
        """Compute the masks of detections, for their classes.

        Args:
            maps: the pyramid's maps.
            detections: boxes and classes.

        Returns:
            `[b, k, 28, 28]` float32 in [0, 1].
        """
        regions = roi_align(
            maps[: len(STRIDES)], detections.boxes, size=MASK_BINS, strides=STRIDES
        )
        labels = detections.labels
        logits = self.mask(regions.reshape(-1, *regions.shape[2:]), labels.reshape(-1))
        masks = jax.nn.sigmoid(logits).reshape(*labels.shape, *logits.shape[1:])
        return jnp.where(detections.where[..., None, None], masks, 0.0)


def check_canvas(images_bhwc: jax.Array, sizes_b2: jax.Array) -> None:
    """Raise ValueError unless images and sizes are valid inputs of `MaskRCNN`."""
    check_images(images_bhwc)
    b, height, width, channels = images_bhwc.shape
    if height % 32 or width % 32 or not height or not width or channels != 3:
        raise ValueError(
            f"got images {list(images_bhwc.shape)}, expected [b, h, w, 3] with h and w "
            "multiples of 32"
        )
    integers = jnp.issubdtype(sizes_b2.dtype, jnp.integer)
    if sizes_b2.shape != (b, 2) or not integers:
        raise ValueError(
            f"got sizes {sizes_b2.dtype}{list(sizes_b2.shape)}, expected int32[{b}, 2]"
        )
    if not isinstance(sizes_b2, jax.core.Tracer):
        given = np.asarray(sizes_b2)
        if ((given < 1) | (given > np.array([height, width]))).any():
            raise ValueError(
                f"got sizes {given.tolist()}, expected heights from 1 to {height} and "
                f"widths from 1 to {width}"
            )
