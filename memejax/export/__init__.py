"""Export of a finished run to a folder that other libraries load, with a model card.

    python -m memejax.export --workdir=RUN --to=DIR

folder.py         the whole folder, written atomically: start here
encoders.py       each arm's encoders, in Hugging Face's format
tokenizer.py      the tokenizer, in transformers' format
program.py        the classifier as one compiled function
run_predictor.py  runs that function without memejax; copied into the folder
"""

from typing import TYPE_CHECKING

from memejax.lazy import exports

if TYPE_CHECKING:
    from memejax.export.folder import export as export

__getattr__, __dir__ = exports(
    __name__,
    {
        "export": "memejax.export.folder",
    },
)
