"""Cost of a training step: counted FLOPs, measured time, and a table of both.

    profile.count(fn, *args)     FLOPs and bytes of a function, without computing it
    profile.window(folder)       trace part of a run for TensorBoard
    profile.Recorder(step, ...)  trace a window of a run, and write its table
    profile.measure(step, ...)   compile a step, trace it cold and warm, with its table

`python -m memejax.profile --config=configs/cass_mm.py` does all of this for a stage.
"""

from typing import TYPE_CHECKING

from memejax.lazy import exports

if TYPE_CHECKING:
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

__getattr__, __dir__ = exports(
    __name__,
    {
        "write": "memejax.profile.files",
        "Counted": "memejax.profile.flops",
        "Operation": "memejax.profile.flops",
        "Totals": "memejax.profile.flops",
        "count": "memejax.profile.flops",
        "count_jaxpr": "memejax.profile.flops",
        "Recorder": "memejax.profile.recorder",
        "Profile": "memejax.profile.runner",
        "Window": "memejax.profile.runner",
        "measure": "memejax.profile.runner",
        "marked": "memejax.profile.scopes",
        "newest": "memejax.profile.trace",
        "read": "memejax.profile.trace",
        "start": "memejax.profile.trace",
        "stop": "memejax.profile.trace",
        "window": "memejax.profile.trace",
    },
)
