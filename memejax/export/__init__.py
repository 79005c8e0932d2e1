"""A finished run -> a folder that other libraries load, with a model card.

    python -m memejax.export --workdir=RUN --to=DIR

folder.py         the whole folder, written or not at all: start here
encoders.py       each arm's encoders, in the files of Hugging Face
tokenizer.py      the tokenizer, so that transformers loads it
program.py        the classifier as one compiled function
run_predictor.py  what runs that function without memejax; copied into the folder
"""

from memejax.export.folder import export as export
