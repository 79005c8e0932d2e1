"""P(hateful) of new memes, and a decision, by a finished run.

    python -m memejax.predict --workdir=RUN --image=PICTURE
    python -m memejax.predict --workdir=RUN --input=memes.jsonl --output=scores.csv
    ls *.png | python -m memejax.predict --workdir=RUN --input=- --output=scores.csv

predictor.py  the pure function of pictures and captions: start here
graph_predictor.py  the same of a network on graphs
moderator.py  all around it: known memes, captions read, calibration, decision
load.py       the moderator of a finished run
rows.py       what is said of a meme
outputs.py    the rows: CSV, jsonl or parquet, written as they come

`memejax.data.inputs` has the memes: a folder, a jsonl, CSV or parquet file, a pipe.
`memejax.restored` reads a run's folder.
"""

from typing import TYPE_CHECKING

from memejax.lazy import exports

if TYPE_CHECKING:
    from memejax.predict.load import load_moderator as load_moderator
    from memejax.predict.moderator import Known as Known
    from memejax.predict.moderator import Moderator as Moderator
    from memejax.predict.predictor import Predictor as Predictor
    from memejax.predict.predictor import load_predictor as load_predictor
    from memejax.predict.predictor import make_predictor as make_predictor
    from memejax.predict.predictor import make_probability as make_probability
    from memejax.predict.rows import Row as Row
    from memejax.restored import Restored as Restored
    from memejax.restored import restore as restore

__getattr__, __dir__ = exports(
    __name__,
    {
        "load_moderator": "memejax.predict.load",
        "Known": "memejax.predict.moderator",
        "Moderator": "memejax.predict.moderator",
        "Predictor": "memejax.predict.predictor",
        "load_predictor": "memejax.predict.predictor",
        "make_predictor": "memejax.predict.predictor",
        "make_probability": "memejax.predict.predictor",
        "Row": "memejax.predict.rows",
        "Restored": "memejax.restored",
        "restore": "memejax.restored",
    },
)
