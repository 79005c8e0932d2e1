"""Makes the encoders' golden files: tiny Hugging Face models with random weights.

    python tests/golden/make_encoders.py

Written with torch 2.13 and transformers 5.23. Each file holds `sizes` (JSON, the
attributes of our module), `tensor/<name>` (the state dict under the names of a
saved file), inputs and outputs.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from safetensors.numpy import load_file

HERE = Path(__file__).parent


def randomise(model, seed):
    """Every weight, scale, bias and running statistic becomes a random number."""
    torch.manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.copy_(torch.rand_like(tensor) + 0.5)
        elif tensor.ndim == 1 and name.endswith("weight"):
            tensor.copy_(1 + 0.3 * torch.randn_like(tensor))
        elif tensor.ndim in (2, 4):
            fan_in = tensor[0].numel()
            tensor.copy_(torch.randn_like(tensor) * fan_in**-0.5)
        else:
            tensor.copy_(0.3 * torch.randn_like(tensor))
    return model.eval()


def tensors(model):
    """The tensors of a saved file, without counters."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = load_file(Path(folder) / "model.safetensors")
    return {k: v for k, v in loaded.items() if "num_batches" not in k}


def resnet_model(*, bottleneck):
    """A v1.5 ResNet of three blocks, and our attributes of it."""
    width = 4
    first = width * (4 if bottleneck else 1)
    config = hf.ResNetConfig(
        embedding_size=width,
        hidden_sizes=[first, 2 * first],
        depths=[2, 1],
        layer_type="bottleneck" if bottleneck else "basic",
    )
    sizes = dict(stage_sizes=(2, 1), bottleneck=bottleneck, width=width)
    return randomise(hf.ResNetModel(config), 1), sizes


def vit_model():
    """A ViT of two blocks, and our attributes of it."""
    config = hf.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        patch_size=4,
        image_size=12,
    )
    sizes = dict(hidden=24, layers=2, heads=3, mlp=40, patch=4, grid=3)
    return randomise(hf.ViTModel(config), 2), sizes


BERT_SIZES = dict(vocab_size=50, hidden=24, layers=2, heads=3, mlp=40, max_length=12)


def distilbert_model():
    """A DistilBERT of two blocks, and our attributes of it."""
    config = hf.DistilBertConfig(
        vocab_size=50,
        dim=24,
        n_layers=2,
        n_heads=3,
        hidden_dim=40,
        max_position_embeddings=12,
    )
    return randomise(hf.DistilBertModel(config), 3), BERT_SIZES


def bert_model():
    """A BERT of two blocks, and our attributes of it."""
    config = hf.BertConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=12,
    )
    return randomise(hf.BertModel(config), 4), BERT_SIZES


def channels_first(images):
    """A numpy picture `[b, h, w, c]` as PyTorch has it."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def resnet_case(*, bottleneck):
    """Outputs in evaluation and training mode, and the statistics after it."""
    model, sizes = resnet_model(bottleneck=bottleneck)
    # Odd sides, where strides and padding are easily wrong.
    images = np.random.default_rng(0).normal(size=(3, 21, 18, 3)).astype("float32")
    case = {f"tensor/{k}": v for k, v in tensors(model).items()}
    with torch.no_grad():
        out = model(channels_first(images), output_hidden_states=True)
        stages = out.hidden_states[1:]
        train = model.train()(channels_first(images)).pooler_output
    after = {
        f"after/{k}": v.numpy() for k, v in model.state_dict().items() if "running" in k
    }
    return case | after | dict(
        sizes=json.dumps(sizes),
        images=images,
        pooled=out.pooler_output[:, :, 0, 0].numpy(),
        stage0=stages[0].numpy().transpose(0, 2, 3, 1),
        train=train[:, :, 0, 0].numpy(),
    )  # fmt: skip


def vit_case():
    """Tokens of pictures of the table's size and of two other sizes."""
    model, sizes = vit_model()
    case = {f"tensor/{k}": v for k, v in tensors(model).items()}
    rng = np.random.default_rng(1)
    for name, side in dict(same=(12, 12), larger=(20, 24), mixed=(8, 20)).items():
        images = rng.normal(size=(2, *side, 3)).astype("float32")
        with torch.no_grad():
            out = model(channels_first(images), interpolate_pos_encoding=True)
        case[f"images/{name}"] = images
        case[f"tokens/{name}"] = out.last_hidden_state.numpy()
    return case | dict(sizes=json.dumps(sizes))


def text_case(model, sizes):
    """Tokens of two captions, one of which is padded."""
    ids = np.random.default_rng(2).integers(1, 50, size=(2, 9))
    mask = np.ones((2, 9), int)
    mask[1, 5:] = 0
    with torch.no_grad():
        inputs = torch.from_numpy(ids), torch.from_numpy(mask)
        out = model(input_ids=inputs[0], attention_mask=inputs[1])
    case = {f"tensor/{k}": v for k, v in tensors(model).items()}
    return case | dict(
        sizes=json.dumps(sizes),
        ids=ids,
        mask=mask,
        tokens=out.last_hidden_state.numpy(),
    )


CLIP_VISION = dict(
    hidden=24, layers=2, heads=3, mlp=40, patch=4, grid=3, projection=10, eps=1e-5
)
CLIP_TEXT = dict(
    hidden=16,
    layers=2,
    heads=2,
    mlp=28,
    projection=10,
    eps=1e-5,
    vocab_size=50,
    max_length=12,
)


def clip_config(activation="quick_gelu"):
    """Config of a CLIP of two blocks per tower."""
    block = dict(num_hidden_layers=2, hidden_act=activation)
    return hf.CLIPConfig(
        vision_config=dict(
            **block,
            hidden_size=24,
            num_attention_heads=3,
            intermediate_size=40,
            patch_size=4,
            image_size=12,
            projection_dim=10,
        ),
        text_config=dict(
            **block,
            hidden_size=16,
            num_attention_heads=2,
            intermediate_size=28,
            vocab_size=50,
            max_position_embeddings=12,
            bos_token_id=48,
            eos_token_id=49,
            pad_token_id=49,
            projection_dim=10,
        ),
        projection_dim=10,
    )


def clip_captions():
    """Two captions between CLIP's first and last word; the second is padded with it."""
    ids = np.random.default_rng(2).integers(1, 48, size=(2, 9))
    ids[:, 0], ids[0, 8], ids[1, 5:] = 48, 49, 49
    mask = np.ones((2, 9), int)
    mask[1, 6:] = 0
    return ids, mask


def clip_case(activation):
    """Tokens, pooled and projected features of both towers."""
    model = randomise(hf.CLIPModel(clip_config(activation)), 5)
    ids, mask = clip_captions()
    case = {f"tensor/{k}": v for k, v in tensors(model).items()}
    rng = np.random.default_rng(1)
    for name, side in dict(same=(12, 12), larger=(20, 24)).items():
        images = rng.normal(size=(2, *side, 3)).astype("float32")
        with torch.no_grad():
            out = model.vision_model(
                channels_first(images), interpolate_pos_encoding=True
            )
            projected = model.visual_projection(out.pooler_output)
        case[f"images/{name}"] = images
        case[f"tokens/{name}"] = out.last_hidden_state.numpy()
        case[f"pooled/{name}"] = out.pooler_output.numpy()
        case[f"projected/{name}"] = projected.numpy()
    with torch.no_grad():
        inputs = torch.from_numpy(ids), torch.from_numpy(mask)
        out = model.text_model(input_ids=inputs[0], attention_mask=inputs[1])
        projected = model.text_projection(out.pooler_output)
    return case | dict(
        sizes=json.dumps({"image": CLIP_VISION, "text": CLIP_TEXT}),
        activation=activation,
        ids=ids,
        mask=mask,
        tokens=out.last_hidden_state.numpy(),
        pooled=out.pooler_output.numpy(),
        projected=projected.numpy(),
    )


SIGLIP_VISION = dict(hidden=24, layers=2, heads=3, mlp=40, patch=4, grid=3, eps=1e-6)
SIGLIP_TEXT = dict(
    hidden=16,
    layers=2,
    heads=2,
    mlp=28,
    projection=20,
    eps=1e-6,
    vocab_size=50,
    max_length=8,
)


def siglip_config():
    """Config of a SigLIP of two blocks per tower, its captions projected to 20."""
    return hf.SiglipConfig(
        vision_config=dict(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            patch_size=4,
            image_size=14,
        ),
        text_config=dict(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=28,
            vocab_size=50,
            max_position_embeddings=8,
            projection_size=20,
        ),
    )


def siglip_captions():
    """Two captions, the second padded with SigLIP's 1, which is attended to."""
    ids = np.random.default_rng(2).integers(2, 50, size=(2, 8))
    ids[1, 5:] = 1
    mask = np.ones((2, 8), int)
    mask[1, 6:] = 0
    return ids, mask


def siglip_case():
    """Tokens, pooled and projected features of both towers.

    Pictures of 14 pixels have two rows and columns beyond whole patches.
    """
    model = randomise(hf.SiglipModel(siglip_config()), 6)
    ids, mask = siglip_captions()
    case = {f"tensor/{k}": v for k, v in tensors(model).items()}
    rng = np.random.default_rng(1)
    for name, side in dict(same=(14, 14), larger=(20, 26)).items():
        images = rng.normal(size=(2, *side, 3)).astype("float32")
        with torch.no_grad():
            out = model.vision_model(
                channels_first(images), interpolate_pos_encoding=name != "same"
            )
        case[f"images/{name}"] = images
        case[f"tokens/{name}"] = out.last_hidden_state.numpy()
        case[f"pooled/{name}"] = out.pooler_output.numpy()
    with torch.no_grad():
        out = model.text_model(input_ids=torch.from_numpy(ids))
    return case | dict(
        sizes=json.dumps({"image": SIGLIP_VISION, "text": SIGLIP_TEXT}),
        ids=ids,
        mask=mask,
        tokens=out.last_hidden_state.numpy(),
        projected=out.pooler_output.numpy(),
    )


def main():
    """Write all files beside this one."""
    cases: dict[str, dict[str, Any]] = dict(
        resnet_basic=resnet_case(bottleneck=False),
        resnet_bottleneck=resnet_case(bottleneck=True),
        vit=vit_case(),
        distilbert=text_case(*distilbert_model()),
        bert=text_case(*bert_model()),
        clip=clip_case("quick_gelu"),
        siglip=siglip_case(),
        # Of the same weights, which are not repeated.
        clip_gelu={
            k: v for k, v in clip_case("gelu").items() if not k.startswith("tensor/")
        },
    )
    for name, case in cases.items():
        np.savez_compressed(HERE / f"{name}.npz", **case)


if __name__ == "__main__":
    main()
