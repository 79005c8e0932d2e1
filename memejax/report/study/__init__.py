"""The page of a study of curricula: many arms, each over the same seeds.

arms.py      the input, an Arm and a Study: start here
outcomes.py  differences of the arms to the reference, and verdicts
read.py      a finished run's folder -> an Arm
rows.py      the tables of text, also as Markdown and CSV
page.py      the page of a study; charts.py and grids.py: its pictures
single.py    the page of one run of a classifier
canvas.py    empty charts and rows of pictures in the style of the page
"""

from memejax.report.study.arms import Arm as Arm
from memejax.report.study.arms import Correlations as Correlations
from memejax.report.study.arms import Study as Study
from memejax.report.study.arms import Toy as Toy
from memejax.report.study.arms import score_title as score_title
from memejax.report.study.page import study_html as study_html
from memejax.report.study.read import read_arm as read_arm
from memejax.report.study.read import read_draws as read_draws
from memejax.report.study.rows import study_csv as study_csv
from memejax.report.study.rows import study_markdown as study_markdown
