"""Snapshots of repositories on the Hugging Face hub, through its local cache."""

from pathlib import Path

# Only these are fetched, and only from the top folder of a repository: others hold
# the same weights for other programs (onnx/, openvino/).
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
    """Download a repository's weights, configs and tokenizer into the hub's cache.

    Cached files are not fetched again, and with HF_HUB_OFFLINE nothing is fetched.
    Pickles are fetched only from a repository without safetensors.

    Args:
        name: "owner/name" or "name".
        revision: branch, tag or commit; the main branch if None.

    Returns:
        The folder of the snapshot.

    Raises:
        ValueError: with the reason of the failure and advice.
    """
    # Here, because the import is slow and most checkpoints are local.
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
            # The folder of a snapshot is named by its commit: fetch the same one.
            folder = fetch(folder.name, PICKLED)
    # Network, cache, permission and disk errors are raised as OSError, ValueError or
    # types of the HTTP library; to the user they are the same.
    except Exception as error:
        at = f" --revision {revision}" if revision else ""
        raise ValueError(
            f"no weights {name!r} on the hub: {_reason(error)}. On a machine with "
            f"network, `hf download {name}{at} --local-dir FOLDER` fetches a "
            "repository; then give that folder"
        ) from error
    return folder


def _reason(error: Exception) -> str:
    """Return the cause of a failed download, and advice."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.HFValidationError):
        return "expected a name such as owner/name"
    if isinstance(error, errors.GatedRepoError):
        return "accept its owner's terms on its page, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "there is no such repository, or it is private: check the spelling, or "
            "`hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision"
    cause = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if isinstance(error, errors.LocalEntryNotFoundError):
        cache = f"the cache {constants.HF_HUB_CACHE} has no complete copy"
        if constants.HF_HUB_OFFLINE:
            return f"HF_HUB_OFFLINE is set, and {cache}"
        return f"the hub cannot be reached ({cause}), and {cache}"
    return f"the download failed ({cause})"
