"""P(hateful) of new memes, predicted by a finished run.

    python -m memejax.predict --workdir=RUN --image=PICTURE --text="its caption"
    python -m memejax.predict --workdir=RUN --input=memes.jsonl --output=scores.csv
    python -m memejax.predict --workdir=RUN --input=FOLDER --captions=captions.jsonl

predictor.py  the pure function and its inputs: start here
memes.py      the memes to predict: lines of a file, pictures of a folder

`memejax.restored` reads a run's folder.
"""

from memejax.predict.predictor import Predictor as Predictor
from memejax.predict.predictor import load_predictor as load_predictor
from memejax.predict.predictor import make_predictor as make_predictor
from memejax.predict.predictor import make_probability as make_probability
from memejax.restored import Restored as Restored
from memejax.restored import restore as restore
