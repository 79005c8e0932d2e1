"""Snapshots of repositories on the Hugging Face hub, through its local cache."""

from pathlib import Path

# Of a repository only these are fetched, and only from its top folder: others hold
# the same weights once more for other programs (onnx/, openvino/).
COMPANIONS = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
SAFE = ("*.safetensors", "*.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")


def download(name: str, *, revision: str | None = None) -> Path:
    """Bring a repository's weights and what describes them into the hub's cache.

    What is in the cache is not fetched again, and with HF_HUB_OFFLINE set nothing is.
    Pickles come only from a repository without safetensors.

    Args:
        name: "owner/name" or "name".
        revision: branch, tag or commit; None is the main branch.

    Returns:
        The snapshot's folder.

    Raises:
        ValueError: saying why there is none, and what to do.
    """
    # Here, because importing it is not free and most checkpoints are local.
    from huggingface_hub import snapshot_download

    def fetch(revision: str | None, patterns: tuple[str, ...]) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=[*COMPANIONS, *patterns],
                ignore_patterns=["*/*"],
            )
        )

    try:
        folder = fetch(revision, SAFE)
        if not any(folder.glob("*.safetensors")):
            # A snapshot's folder is named by its commit: the same one again.
            folder = fetch(folder.name, PICKLED)
    # Network, cache, permission and disk errors come as OSError, ValueError or the
    # types of the HTTP library; to the user they are one thing.
    except Exception as error:
        at = f" --revision {revision}" if revision else ""
        raise ValueError(
            f"no weights {name!r} on the hub: {_reason(error)}. Where there is a "
            f"network, `hf download {name}{at} --local-dir FOLDER` fetches a "
            "repository; then give that folder"
        ) from error
    return folder


def _reason(error: Exception) -> str:
    """What happened, and what could help."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.HFValidationError):
        return "expected a name such as owner/name"
    if isinstance(error, errors.GatedRepoError):
        return "its owner asks to accept terms on its page, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "there is no such repository, or it is private: mind the spelling, or "
            "`hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    cause = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if isinstance(error, errors.LocalEntryNotFoundError):
        cache = f"the cache {constants.HF_HUB_CACHE} does not have it whole"
        if constants.HF_HUB_OFFLINE:
            return f"HF_HUB_OFFLINE is set, and {cache}"
        return f"the hub cannot be reached ({cause}), and {cache}"
    return f"the download failed ({cause})"
