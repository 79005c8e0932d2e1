"""Names of tensors of CLIP's and SigLIP's towers in Hugging Face's files."""

from memejax.weights.form import TORCH_LEAVES, Form, Rules

_BLOCKS: Rules = (
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.attention\.(q|k|v)\w*\.", r".self_attn.\1_proj."),
    (r"\.attention\.out\.", ".self_attn.out_proj."),
    (r"\.mlp\.up\.", ".mlp.fc1."),
    (r"\.mlp\.down\.", ".mlp.fc2."),
    *TORCH_LEAVES,
)
# In memory, transformers 5 leaves the first part of a single tower's names out.
_SHORT = r"^(embeddings|encoder|pre_layrnorm|post_layernorm|final_layer_norm|head)\."


def _tower(family: str, tower: str, rules: Rules, **fields) -> Form:
    """Make the form of one tower; `..` in a replacement stands for its model's name."""
    model = f"{tower}_model"
    other, projection = {"vision": ("text", "text"), "text": ("vision", "visual")}[
        tower
    ]
    named = tuple((a, str(b).replace("..", f"{model}.")) for a, b in rules)
    # The other tower and its projection, and a buffer of older files.
    extras = (
        rf"{other}_model\.|{projection}_projection\.|logit_(scale|bias)$"
        rf"|{model}\.embeddings\.position_ids$"
    )
    return Form(
        architecture=f"{family}_{tower}",
        rules=(*named, (r"^block(\d+)\.", rf"{model}.encoder.layers.\1."), *_BLOCKS),
        extras=extras,
        spellings=((_SHORT, rf"{model}.\1."),),
        **fields,
    )


_WORDS = (r"^words$", "..embeddings.token_embedding.weight")
_POSITIONS = (r"^positions$", "..embeddings.position_embedding.weight")
_PATCHES = (r"^patches\.", "..embeddings.patch_embedding.")
_AFTER = (r"^norm\.", "..post_layernorm.")
_FINAL = (r"^norm\.", "..final_layer_norm.")

TOWER_FORMS: dict[str, Form] = {
    "huggingface clip_vision": _tower(
        "clip",
        "vision",
        (
            (r"^cls$", "..embeddings.class_embedding"),
            _POSITIONS,
            _PATCHES,
            (r"^pre_norm\.", "..pre_layrnorm."),
            _AFTER,
            (r"^projector\.", "visual_projection."),
        ),
    ),
    "huggingface clip_text": _tower(
        "clip",
        "text",
        (_WORDS, _POSITIONS, _FINAL, (r"^projector\.", "text_projection.")),
    ),
    "huggingface siglip_vision": _tower(
        "siglip",
        "vision",
        (
            _POSITIONS,
            _PATCHES,
            _AFTER,
            (r"^pool\.probe$", "..head.probe"),
            (
                r"^pool\.attention\.(?:query|key|value)\.kernel$",
                "..head.attention.in_proj_weight",
            ),
            (
                r"^pool\.attention\.(?:query|key|value)\.bias$",
                "..head.attention.in_proj_bias",
            ),
            (r"^pool\.attention\.out\.", "..head.attention.out_proj."),
            (r"^pool\.norm\.", "..head.layernorm."),
            (r"^pool\.", "..head."),
        ),
        fused=r"^pool\.attention\.",
        leading={"probe": 1},
    ),
    "huggingface siglip_text": _tower(
        "siglip", "text", (_WORDS, _POSITIONS, _FINAL, (r"^projector\.", "..head."))
    ),
}
