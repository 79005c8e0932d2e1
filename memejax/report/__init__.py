"""A run's results for a person: tables on the console, one HTML page.

show.py     console and write: start here
finished.py a finished run, read from its folder
tables.py   results.json as tables of text, for the console and the page;
            panel.py: those of the collapse panel, probed.py: of frozen features
page.py     the page's sections; curves.py: those of training, representation.py: of
            what was probed, with its pictures
plots.py    pictures; markup.py: pieces of HTML
graph_pictures.py entities on pictures, and graphs of memes with their attention
study/      the page of a study of curricula
"""

from memejax.report.show import console as console
from memejax.report.show import write as write
