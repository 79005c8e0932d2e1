"""Explanations of a run's scores, as values and as pages.

    explainer = load_explainer(RUN)
    explainer.explain(memes)                     values
    write_pages(FOLDER, explainer, memes=memes)  one page per meme, and an index

explainer.py    the explainer: start here
explanation.py  its results
scoring.py      the compiled functions
neighbours.py   nearest training memes
pages.py        results to HTML
"""

from memejax.predict.explain.explainer import Explainer as Explainer
from memejax.predict.explain.explainer import load_explainer as load_explainer
from memejax.predict.explain.explainer import make_explainer as make_explainer
from memejax.predict.explain.explanation import Explanation as Explanation
from memejax.predict.explain.pages import write_pages as write_pages
