"""Names of tensors in the checkpoints of other libraries, beside ours. Only data.

form.py says what a form is; those of CLIP and SigLIP are in tower_names.py.
"""

import re
from collections.abc import Callable

from memejax.weights.form import TORCH_LEAVES, Form
from memejax.weights.tower_names import TOWER_FORMS

# Order of stacking in a fused tensor.
QUERY_KEY_VALUE = ("query", "key", "value")
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
# A layer between features and classifier, which makes the latter nonlinear in them.
BETWEEN = r"pre_logits\b"

_VIT_LEADING = {"cls": 2, "positions": 1}


def _one_more(template: str) -> Callable[[re.Match[str]], str]:
    """Make a replacement whose first number is one more than ours."""
    return lambda match: template.format(int(match[1]) + 1, *match.groups()[1:])


HUGGINGFACE_RESNET = Form(
    architecture="resnet",
    prefix="resnet.",
    rules=(
        (r"^stem\.", "embedder.embedder."),
        (r"^stage(\d+)_block(\d+)\.", r"encoder.stages.\1.layers.\2."),
        (r"\.layer(\d+)\.", r".layer.\1."),
        (r"\bconv\.", "convolution."),
        (r"\bnorm\.", "normalization."),
        *TORCH_LEAVES,
    ),
    extras=r".*\.num_batches_tracked$",
    classifier="classifier.1",
)
HUGGINGFACE_VIT = Form(
    architecture="vit",
    prefix="vit.",
    rules=(
        (r"^cls$", "embeddings.cls_token"),
        (r"^positions$", "embeddings.position_embeddings"),
        (r"^patch\.", "embeddings.patch_embeddings.projection."),
        (r"^norm\.", "layernorm."),
        (r"^block(\d+)\.", r"encoder.layer.\1."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attention\.(query|key|value)\.", r".attention.attention.\1."),
        (r"\.attention\.out\.", ".attention.output.dense."),
        (r"\.mlp\.up\.", ".intermediate.dense."),
        (r"\.mlp\.down\.", ".output.dense."),
        *TORCH_LEAVES,
    ),
    # A pooler, the decoder of masked images, their mask token.
    extras=r"pooler\.|decoder\.|embeddings\.mask_token$",
    # transformers 5 in memory.
    spellings=(
        (r"^layers\.", "encoder.layer."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
    classifier="classifier",
    leading=_VIT_LEADING,
)
HUGGINGFACE_DISTILBERT = Form(
    architecture="distilbert",
    prefix="distilbert.",
    rules=(
        (r"^(word|position)s$", r"embeddings.\1_embeddings.weight"),
        (r"^norm\.", "embeddings.LayerNorm."),
        (r"^block(\d+)\.", r"transformer.layer.\1."),
        (r"\.norm1\.", ".sa_layer_norm."),
        (r"\.norm2\.", ".output_layer_norm."),
        (r"\.attention\.(q|k|v|out)\w*\.", r".attention.\1_lin."),
        (r"\.mlp\.up\.", ".ffn.lin1."),
        (r"\.mlp\.down\.", ".ffn.lin2."),
        *TORCH_LEAVES,
    ),
    # Heads of masked words, of classes (after another layer) and of answers.
    extras=r"vocab_(transform|layer_norm|projector)\.|(pre_)?classifier\."
    r"|qa_outputs\.|embeddings\.position_ids$",
)
HUGGINGFACE_BERT = Form(
    architecture="bert",
    prefix="bert.",
    rules=(
        (r"^(word|position)s$", r"embeddings.\1_embeddings.weight"),
        (r"^norm\.", "embeddings.LayerNorm."),
        (r"^block(\d+)\.", r"encoder.layer.\1."),
        (r"\.norm1\.", ".attention.output.LayerNorm."),
        (r"\.norm2\.", ".output.LayerNorm."),
        (r"\.attention\.(query|key|value)\.", r".attention.self.\1."),
        (r"\.attention\.out\.", ".attention.output.dense."),
        (r"\.mlp\.up\.", ".intermediate.dense."),
        (r"\.mlp\.down\.", ".output.dense."),
        *TORCH_LEAVES,
    ),
    # The pooler, and heads on top of it or of masked words and of answers.
    extras=r"pooler\.|cls\.|classifier\.|qa_outputs\.|embeddings\.position_ids$",
    # TensorFlow's, still in the file of bert-base-uncased.
    spellings=(
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    ),
)
TORCH_RESNET = Form(
    architecture="resnet",
    rules=(
        (r"^stem\.conv\.", "conv1."),
        (r"^stem\.norm\.", "bn1."),
        (r"^stage(\d+)_block(\d+)\.", _one_more("layer{}.{}.")),
        (r"\.layer(\d+)\.conv\.", _one_more(".conv{}.")),
        (r"\.layer(\d+)\.norm\.", _one_more(".bn{}.")),
        (r"\.shortcut\.conv\.", ".downsample.0."),
        (r"\.shortcut\.norm\.", ".downsample.1."),
        *TORCH_LEAVES,
    ),
    extras=r".*\bnum_batches_tracked$",
    classifier="fc",
)
TORCH_EFFICIENTNET_LITE = Form(
    architecture="efficientnet_lite",
    rules=(
        (r"^stem\.conv\.", "_conv_stem."),
        (r"^stem\.norm\.", "_bn0."),
        (r"^head\.conv\.", "_conv_head."),
        (r"^head\.norm\.", "_bn1."),
        (r"^block(\d+)\.", r"_blocks.\1."),
        (r"\.(expand|depthwise|project)\.conv\.", r"._\1_conv."),
        (r"\.expand\.norm\.", "._bn0."),
        (r"\.depthwise\.norm\.", "._bn1."),
        (r"\.project\.norm\.", "._bn2."),
        *TORCH_LEAVES,
    ),
    extras=r".*\bnum_batches_tracked$",
    classifier="_fc",
    flat=True,
)
TORCH_VIT = Form(
    architecture="vit",
    rules=(
        (r"^cls$", "cls_token"),
        (r"^positions$", "pos_embed"),
        (r"^patch\.", "patch_embed.proj."),
        (r"^block(\d+)\.", r"blocks.\1."),
        (r"\.attention\.(query|key|value)\.", ".attn.qkv."),
        (r"\.attention\.out\.", ".attn.proj."),
        (r"\.mlp\.up\.", ".mlp.fc1."),
        (r"\.mlp\.down\.", ".mlp.fc2."),
        *TORCH_LEAVES,
    ),
    # The layer before the classifier of 21,843 classes; the mask token of masked
    # images.
    extras=r"pre_logits\.|mask_token$",
    classifier="head",
    fused=r"\.attention\.",
    leading=_VIT_LEADING,
)
# The released code approximates gelu by a tanh; ours is exact, like that of timm and
# Hugging Face, which load the same files.
VIT_NPZ = Form(
    architecture="vit",
    rules=(
        (r"^positions$", "Transformer.posembed_input.pos_embedding"),
        (r"^patch\.", "embedding."),
        (r"^norm\.", "Transformer.encoder_norm."),
        (r"^block(\d+)\.", r"Transformer.encoderblock_\1."),
        (r"\.norm1\.", ".LayerNorm_0."),
        (r"\.norm2\.", ".LayerNorm_2."),
        (r"\.attention\.", ".MultiHeadDotProductAttention_1."),
        (r"\.mlp\.up\.", ".MlpBlock_3.Dense_0."),
        (r"\.mlp\.down\.", ".MlpBlock_3.Dense_1."),
        (r"\.", "/"),
    ),
    extras=r"pre_logits/",
    classifier="head",
    leading=_VIT_LEADING,
    flax=True,
)

FORMS: dict[str, Form] = {
    "huggingface resnet": HUGGINGFACE_RESNET,
    "huggingface vit": HUGGINGFACE_VIT,
    "huggingface distilbert": HUGGINGFACE_DISTILBERT,
    "huggingface bert": HUGGINGFACE_BERT,
    **TOWER_FORMS,
    "torch resnet": TORCH_RESNET,
    "torch efficientnet_lite": TORCH_EFFICIENTNET_LITE,
    "torch vit": TORCH_VIT,
    "vit npz": VIT_NPZ,
}
# Forms that `checkpoint.save` writes, where they are not Hugging Face's.
_SAVED = {"efficientnet_lite": "torch efficientnet_lite"}


def saved_form(architecture: str) -> str:
    """Return the form in which an architecture is saved, a key of FORMS."""
    return _SAVED.get(architecture, f"huggingface {architecture}")
