"""The peer's networks: transformers' encoders with PyTorch heads."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional
from torch.optim import swa_utils

from memejax.bench.train_step.problem import (
    CENTER_MOMENTUM,
    MOMENTUM,
    STUDENT_TEMPERATURE,
    TEACHER_TEMPERATURE,
    Problem,
)
from memejax.models import image
from memejax.weights import configs, written

Batch = dict[str, torch.Tensor]
CONFIGS: dict[str, Any] = {
    "resnet": transformers.ResNetConfig,
    "vit": transformers.ViTConfig,
    "distilbert": transformers.DistilBertConfig,
}


def make(given: Problem) -> nn.Module:
    """Make a module that maps a batch to the scalar loss of a case."""
    if given.case == "dino":
        return Dino(given)
    if given.case in ("resnet", "vit", "text"):
        return Labelled(given)
    return (Labels if given.case == "finetune" else Cass)(given)


class Encoder(nn.Module):
    """One of transformers' encoders, with one output vector per example."""

    def __init__(self, given: Problem, kind: str):
        super().__init__()
        name = {"text": "distilbert"}.get(kind, kind)
        sizes = dict(getattr(given, kind))
        dropout = sizes.pop("dropout", 0.0)
        # Their config.json from our attributes: both sides have the same sizes.
        content = written.write_config(configs.Architecture(name, sizes))
        config = CONFIGS[name].from_dict(content)
        self.kind = kind
        if kind == "resnet":
            self.model: Any = transformers.ResNetModel(config)
            self.width = config.hidden_sizes[-1]
        elif kind == "vit":
            self.model = transformers.ViTModel(config, add_pooling_layer=False)
            self.width = config.hidden_size
        else:
            config.dropout = config.attention_dropout = dropout
            self.model = transformers.DistilBertModel(config)
            self.width = config.dim

    def forward(self, batch: Batch) -> torch.Tensor:
        """Map a batch to [b, d]."""
        if self.kind == "text":
            out = self.model(batch["input_ids"], batch["attention_mask"])
            return out.last_hidden_state[:, 0]
        out = self.model(batch["image"])
        if self.kind == "resnet":
            return out.pooler_output.flatten(1)
        return out.last_hidden_state[:, 0]


class Labelled(nn.Module):
    """An encoder, one logit and the binary cross-entropy."""

    def __init__(self, given: Problem):
        super().__init__()
        self.encoder = Encoder(given, given.case)
        self.logit = nn.Linear(self.encoder.width, 1)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Map a batch to its loss."""
        return _cross_entropy(self.logit(self.encoder(batch)), batch)


class Arm(nn.Module):
    """An arm from image and caption to `out` numbers, through fused features."""

    def __init__(self, given: Problem, kind: str):
        super().__init__()
        width, embed, fused, out, dropout = (
            given.arm[k] for k in ("image_width", "embed", "fused", "out", "dropout")
        )
        self.image_encoder = Encoder(given, kind)
        self.text_encoder = Encoder(given, "text")
        self.image_head = nn.Linear(self.image_encoder.width, width)
        self.vision_adder = nn.Linear(width, embed)
        self.language_adder = nn.Linear(self.text_encoder.width, embed)
        self.fusion_layer = nn.Linear(2 * embed, fused)
        if given.case == "finetune":
            self.top: nn.Module = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(fused, 1)
            )
        else:
            self.top = nn.Linear(fused, out)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Map a batch to [b, out], or to logits [b, 1]."""
        caption = self.language_adder(self.text_encoder(batch))
        picture = self.vision_adder(self.image_head(self.image_encoder(batch)))
        joint = torch.cat([caption, picture], dim=1)
        return self.top(functional.relu(self.fusion_layer(joint)))


class ImageArm(nn.Module):
    """An arm from an image to `image.ImageArm.out` numbers."""

    def __init__(self, given: Problem, kind: str):
        super().__init__()
        self.image_encoder = Encoder(given, kind)
        self.head = nn.Linear(self.image_encoder.width, image.ImageArm.out)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Map a batch to [b, out]."""
        return self.head(self.image_encoder(batch))


class Cass(nn.Module):
    """Two arms and the loss 2 - 2 cos between their outputs."""

    def __init__(self, given: Problem):
        super().__init__()
        arm = ImageArm if given.case == "cass" else Arm
        self.cnn, self.vit = arm(given, "resnet"), arm(given, "vit")

    def forward(self, batch: Batch) -> torch.Tensor:
        """Map a batch to its loss."""
        x, y = self.cnn(batch).float(), self.vit(batch).float()
        return (2 - 2 * functional.cosine_similarity(x, y)).mean()


class Labels(nn.Module):
    """Two arms and the sum of their binary cross-entropies."""

    def __init__(self, given: Problem):
        super().__init__()
        self.cnn, self.vit = Arm(given, "resnet"), Arm(given, "vit")

    def forward(self, batch: Batch) -> torch.Tensor:
        """Map a batch to its loss."""
        logits = self.cnn(batch), self.vit(batch)
        return _cross_entropy(logits[0], batch) + _cross_entropy(logits[1], batch)


class Crops(nn.Module):
    """A ViT with DINO's head, which maps crops to logits."""

    def __init__(self, given: Problem):
        super().__init__()
        hidden, bottleneck, out = (
            given.head[k] for k in ("hidden", "bottleneck", "out")
        )
        self.image_encoder = Encoder(given, "vit")
        self.mlp = nn.Sequential(
            nn.Linear(self.image_encoder.width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.randn(out, bottleneck))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [n, 3, h, w] to [n, k]."""
        x = functional.normalize(self.mlp(self.image_encoder({"image": images})))
        return functional.linear(x, functional.normalize(self.prototypes))


class Dino(nn.Module):
    """A student, its EMA teacher, and the cross-entropy between crops."""

    def __init__(self, given: Problem):
        super().__init__()
        self.student, self.teacher = Crops(given), Crops(given)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.center: torch.Tensor
        self.mean: torch.Tensor
        self.register_buffer("center", torch.zeros(given.head["out"]))
        self.register_buffer("mean", torch.zeros(given.head["out"]))
        self._average = swa_utils.get_ema_multi_avg_fn(MOMENTUM)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Map a batch with `crops` [2, b, 3, h, w] to its loss."""
        images = batch["crops"].flatten(0, 1)
        student = self.student(images).float().chunk(2)
        with torch.no_grad():
            logits = self.teacher(images).float()
            self.mean.copy_(logits.mean(0))
            target = torch.softmax((logits - self.center) / TEACHER_TEMPERATURE, 1)
        log_probs = [torch.log_softmax(s / STUDENT_TEMPERATURE, 1) for s in student]
        first, second = target.chunk(2)
        crossed = (first * log_probs[1]).sum(1) + (second * log_probs[0]).sum(1)
        return -crossed.mean() / 2

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Update the teacher and the centre after a step."""
        teacher, student = (list(m.parameters()) for m in (self.teacher, self.student))
        self._average(teacher, student, None)
        self.center.lerp_(self.mean, 1 - CENTER_MOMENTUM)


def _cross_entropy(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(
        logits[:, 0].float(), batch["label"].float()
    )
