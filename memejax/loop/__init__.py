"""The one loop that every stage runs in.

Progress, checkpoints, signals, the stop at a non-finite loss and the collapse
warning are written once, here, whatever the objective and whatever feeds it.

    running.py     loop, and the stage that it runs: updates, checkpoints, the outcome
    course.py      the plan that a stage follows, drawn again where the stage says so
    teller.py      metrics of finished updates to averages, lines and warnings
    evaluation.py  how a stage is judged while it runs
    signals.py     SIGTERM and SIGINT, and the end of a run after a save
"""

from memejax.loop.evaluation import BEST as BEST
from memejax.loop.evaluation import Evaluation as Evaluation
from memejax.loop.evaluation import Measured as Measured
from memejax.loop.running import loop as loop
from memejax.loop.signals import Interrupted as Interrupted
from memejax.loop.signals import Signals as Signals
from memejax.loop.teller import NonFiniteLossError as NonFiniteLossError
