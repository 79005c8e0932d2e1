"""Makes the golden files of checkpoints with torchvision's, timm's and .npz names.

    python tests/golden/make_checkpoints.py

Written with torch 2.13, torchvision 0.28 and timm 1.0.31. The files torch_resnet,
torch_vit and vit_npz hold `sizes` (JSON, the attributes of our module),
`tensor/<name>`, inputs and outputs; shapes holds names and shapes of the tensors of
published models. torch_zip.pth and torch_sequence.pth are what torch.save writes.
"""

import json
import sys
import tempfile
import types
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from make_encoders import channels_first
from scipy.special import erf

# Where torchvision's compiled operators are for another torch, it is imported all the
# same without their registrations: the models here use none of them.
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("none"))

import timm  # noqa: E402
import torchvision  # noqa: E402

HERE = Path(__file__).parent
CLASSES = 5
VIT = dict(hidden=24, layers=2, heads=3, mlp=48, patch=4, grid=3, eps=1e-6)


def draw(name, shape):
    """Values for a tensor, in steps of 1/64: they compress to a byte each."""
    rng = np.random.default_rng(list(name.encode()))
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) == 1 and name.endswith(("weight", "scale")):
        values = 1 + 0.3 * rng.normal(size=shape)
    else:
        wide = len(shape) in (2, 4) and "cls" not in name
        inputs = np.prod(shape[1:]) if wide else 11
        values = rng.normal(size=shape) * inputs**-0.5
    return (np.round(values * 64) / 64).astype(np.float32)


def randomise(model):
    """Draws every float of a model; returns it and its state dict without counters."""
    tensors = {
        k: draw(k, tuple(v.shape))
        for k, v in model.state_dict().items()
        if "num_batches" not in k
    }
    model.load_state_dict(
        {k: torch.from_numpy(v) for k, v in tensors.items()}, strict=False
    )
    return model.eval(), {f"tensor/{k}": v for k, v in tensors.items()}


def images(*shape):
    values = np.random.default_rng(3).normal(size=(*shape, 3))
    return (np.round(values * 64) / 64).astype(np.float32)


def resnet_case():
    """Torchvision's network, with two stages of its blocks at a width of 4."""
    blocks = torchvision.models.resnet.Bottleneck
    model = torchvision.models.ResNet(blocks, [1, 1, 1, 1])
    model.inplanes = 4
    model.conv1 = torch.nn.Conv2d(3, 4, 7, 2, 3, bias=False)
    model.bn1 = torch.nn.BatchNorm2d(4)
    model.layer1 = model._make_layer(blocks, 4, 2)
    model.layer2 = model._make_layer(blocks, 8, 1, stride=2)
    model.layer3 = model.layer4 = torch.nn.Identity()
    model.fc = torch.nn.Linear(32, CLASSES)
    model, case = randomise(model)
    pictures = images(2, 21, 18)
    with torch.no_grad():
        logits = model(channels_first(pictures)).numpy()
        model.fc = torch.nn.Identity()
        features = model(channels_first(pictures)).numpy()
    sizes = dict(stage_sizes=(2, 1), bottleneck=True, width=4)
    case |= dict(images=pictures, features=features, logits=logits)
    return case | dict(sizes=json.dumps(sizes))


def timm_vit():
    return timm.models.VisionTransformer(
        img_size=VIT["patch"] * VIT["grid"],
        patch_size=VIT["patch"],
        embed_dim=VIT["hidden"],
        depth=VIT["layers"],
        num_heads=VIT["heads"],
        mlp_ratio=VIT["mlp"] / VIT["hidden"],
        num_classes=CLASSES,
    )


def vit_case():
    """timm's network: tokens after the last normalisation, and logits."""
    model, case = randomise(timm_vit())
    pictures = images(2, 12, 12)
    with torch.no_grad():
        features = model.forward_features(channels_first(pictures)).numpy()
        logits = model(channels_first(pictures)).numpy()
    case |= dict(images=pictures, features=features, logits=logits)
    return case | dict(sizes=json.dumps(VIT))


def npz_shapes(*, hidden, layers, heads, mlp, patch, grid, classes, pre_logits=0):
    """Names and shapes of a .npz of the original release."""
    block = "Transformer/encoderblock_{}/"
    attention = block + "MultiHeadDotProductAttention_1/"
    shapes = {
        "cls": (1, 1, hidden),
        "embedding/kernel": (patch, patch, 3, hidden),
        "embedding/bias": (hidden,),
        "Transformer/posembed_input/pos_embedding": (1, 1 + grid**2, hidden),
        "Transformer/encoder_norm/scale": (hidden,),
        "Transformer/encoder_norm/bias": (hidden,),
        "head/kernel": (pre_logits or hidden, classes),
        "head/bias": (classes,),
    }
    if pre_logits:
        shapes |= {
            "pre_logits/kernel": (hidden, pre_logits),
            "pre_logits/bias": (pre_logits,),
        }
    for i in range(layers):
        each = {}
        for name in ("query", "key", "value"):
            each[attention + name + "/kernel"] = (hidden, heads, hidden // heads)
            each[attention + name + "/bias"] = (heads, hidden // heads)
        each[attention + "out/kernel"] = (heads, hidden // heads, hidden)
        each[attention + "out/bias"] = (hidden,)
        for j, shape in enumerate([(hidden, mlp), (mlp, hidden)]):
            each[f"{block}MlpBlock_3/Dense_{j}/kernel"] = shape
            each[f"{block}MlpBlock_3/Dense_{j}/bias"] = shape[1:]
        for j in (0, 2):
            each[f"{block}LayerNorm_{j}/scale"] = (hidden,)
            each[f"{block}LayerNorm_{j}/bias"] = (hidden,)
        shapes |= {name.format(i): shape for name, shape in each.items()}
    return shapes


def npz_forward(p, pictures, *, patch, layers):
    """The network in float64 numpy; tokens after the last normalisation."""

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    def dense(x, name):
        return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]

    def attend(x, name):
        q, k, v = (
            np.einsum("btd,dne->bnte", x, p[f"{name}/{one}/kernel"])
            + p[f"{name}/{one}/bias"][:, None]
            for one in ("query", "key", "value")
        )
        logits = np.einsum("bnqe,bnke->bnqk", q, k) / np.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        out = np.einsum("bnqk,bnke->bqne", weights, v)
        return (
            np.einsum("bqne,ned->bqd", out, p[f"{name}/out/kernel"])
            + (p[f"{name}/out/bias"])
        )

    p = {k: v.astype(np.float64) for k, v in p.items()}
    b, h, w, _ = pictures.shape
    x = pictures.astype(np.float64).reshape(b, h // patch, patch, w // patch, patch, 3)
    x = np.einsum("bhiwjc,ijcd->bhwd", x, p["embedding/kernel"]) + p["embedding/bias"]
    x = x.reshape(b, -1, x.shape[-1])
    x = np.concatenate([np.repeat(p["cls"], b, 0), x], 1)
    x = x + p["Transformer/posembed_input/pos_embedding"]
    for i in range(layers):
        block = f"Transformer/encoderblock_{i}"
        y = norm(x, f"{block}/LayerNorm_0")
        x = x + attend(y, f"{block}/MultiHeadDotProductAttention_1")
        y = dense(norm(x, f"{block}/LayerNorm_2"), f"{block}/MlpBlock_3/Dense_0")
        # The original approximates by a tanh; exact, as in all who load its files.
        y = y * (1 + erf(y / np.sqrt(2))) / 2
        x = x + dense(y, f"{block}/MlpBlock_3/Dense_1")
    return norm(x, "Transformer/encoder_norm")


def npz_case():
    """The network in numpy, beside timm's with the same file loaded."""
    sizes = {k: v for k, v in VIT.items() if k != "eps"}
    shapes = npz_shapes(**sizes, classes=CLASSES)
    tensors = {name: draw(name, shape) for name, shape in shapes.items()}
    pictures = images(2, 12, 12)
    features = npz_forward(tensors, pictures, patch=VIT["patch"], layers=VIT["layers"])
    logits = features[:, 0] @ tensors["head/kernel"] + tensors["head/bias"]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        np.savez(Path(folder) / "vit.npz", **tensors)
        model = timm_vit().eval()
        model.load_pretrained(str(Path(folder) / "vit.npz"))
        theirs = model(channels_first(pictures)).numpy()
    assert np.abs(theirs - logits).max() < 1e-5 * np.abs(logits).max()
    case = {f"tensor/{k}": v for k, v in tensors.items()}
    case |= dict(images=pictures, features=features, logits=logits)
    return case | dict(sizes=json.dumps(VIT))


PUBLISHED = """resnet18 resnet50 resnet50d resnext50_32x4d wide_resnet50_2 seresnet50
resnet50_gn resnetaa50 vit_tiny_patch16_224 vit_small_patch16_224 vit_huge_patch14_224
vit_base_patch16_224_miil deit_tiny_distilled_patch16_224 vit_small_patch14_reg4_dinov2
vit_small_patch14_dinov2 vit_base_patch16_clip_224 vit_base_patch16_siglip_224
vit_medium_patch16_gap_256 vit_base_r50_s16_224 beit_base_patch16_224 convnext_tiny
swin_tiny_patch4_window7_224 mixer_b16_224 efficientnet_b0 densenet121 vgg11"""


def published_shapes():
    """Names and shapes of timm's and torchvision's models, as JSON."""
    with torch.device("meta"):
        models = {name: timm.create_model(name) for name in PUBLISHED.split()}
        models["dino_vits8"] = timm.create_model("vit_small_patch8_224", num_classes=0)
        models["torchvision_resnet50"] = torchvision.models.resnet50()
        models["torchvision_vit_b_16"] = torchvision.models.vit_b_16()
        models["torchvision_convnext_tiny"] = torchvision.models.convnext_tiny()
    shapes = {
        name: {k: tuple(v.shape) for k, v in model.state_dict().items()}
        for name, model in models.items()
    }
    base = dict(hidden=768, layers=12, heads=12, mlp=3072)
    shapes["npz_b16_384"] = npz_shapes(**base, patch=16, grid=24, classes=1000)
    shapes["npz_b32_21k"] = npz_shapes(
        **base, patch=32, grid=7, classes=21843, pre_logits=768
    )
    return {k: np.frombuffer(json.dumps(v).encode(), "u1") for k, v in shapes.items()}


def write_pickles():
    """What torch saves in a zip, and what it saved before 1.6."""
    halves = torch.tensor([1.0, -2.0], dtype=torch.bfloat16)
    saved = {
        "view": torch.arange(12, dtype=torch.float32).reshape(3, 4).T[1:],
        "half": halves,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "count": torch.tensor(3),
        "none": torch.zeros(0, 5),
    }
    for form, zipped in (("zip", True), ("sequence", False)):
        whole = {"state_dict": saved, "args": Namespace(lr=np.float64(0.1))}
        path = HERE / f"torch_{form}.pth"
        torch.save(whole, path, _use_new_zipfile_serialization=zipped)


def main():
    """Write all files beside this one."""
    write_pickles()
    cases = dict(
        torch_resnet=resnet_case(),
        torch_vit=vit_case(),
        vit_npz=npz_case(),
        shapes=published_shapes(),
    )
    for name, case in cases.items():
        np.savez_compressed(HERE / f"{name}.npz", **case)


if __name__ == "__main__":
    main()
