"""What a step costs: FLOPs counted, time measured, and a table that joins them.

    profile.count(fn, *args)     FLOPs and bytes of a function, nothing computed
    profile.window(folder)       a stretch of a run in the profiler, for TensorBoard
    profile.Recorder(step, ...)  a window of a run, with its table
    profile.measure(step, ...)   a step compiled, called cold and warm, and its table

`python -m memejax.profile --config=configs/cass_mm.py` does all of it for a stage.
"""

from memejax.profile.files import write as write
from memejax.profile.flops import Counted as Counted
from memejax.profile.flops import Operation as Operation
from memejax.profile.flops import Totals as Totals
from memejax.profile.flops import count as count
from memejax.profile.flops import count_jaxpr as count_jaxpr
from memejax.profile.recorder import Recorder as Recorder
from memejax.profile.runner import Profile as Profile
from memejax.profile.runner import Window as Window
from memejax.profile.runner import measure as measure
from memejax.profile.scopes import marked as marked
from memejax.profile.trace import newest as newest
from memejax.profile.trace import read as read
from memejax.profile.trace import start as start
from memejax.profile.trace import stop as stop
from memejax.profile.trace import window as window
