"""Active curricula: scores, sampling probabilities, tasks and draws, as pure functions.

    u = curriculum.entropy(log_probs, log=True)                    # [n], high = hard
    p = curriculum.sampling_probs(u, favour="easy", max_ratio=10.0, min_temperature=0.0)
    index = curriculum.draw_plan(key, p, steps=100, batch=32)      # [100, 32]

    scores.py       AADT, entropy, margin, ... of one prediction; bald.py of several,
                    mc_dropout.py makes them; gradients.py expected gradient length;
                    by_name.py all of them by name; toy.py where they differ
    sampling.py     scores -> probabilities; temperature.py meets the maximum ratio;
                    draws.py probabilities -> indices; diagnostics.py ratio, coverage
    tasks.py        BAC: scores -> ranks -> tasks -> pools and updates
    dynamic.py      DSAC: segments of a run, each drawn by the current scores

References:
    McWilliam, Automatic curriculum learning for deep models using active learning,
    2018.
"""

from memejax.curriculum.bald import bald as bald
from memejax.curriculum.bald import predictive_variance as predictive_variance
from memejax.curriculum.bald import vote_entropy as vote_entropy
from memejax.curriculum.by_name import DISAGREEMENT as DISAGREEMENT
from memejax.curriculum.by_name import SCORES as SCORES
from memejax.curriculum.by_name import Committee as Committee
from memejax.curriculum.by_name import (
    committee_uncertainty as committee_uncertainty,
)
from memejax.curriculum.diagnostics import achieved_ratio as achieved_ratio
from memejax.curriculum.diagnostics import class_shares as class_shares
from memejax.curriculum.diagnostics import (
    effective_sample_size as effective_sample_size,
)
from memejax.curriculum.diagnostics import unique_fraction as unique_fraction
from memejax.curriculum.draws import draw as draw
from memejax.curriculum.draws import draw_plan as draw_plan
from memejax.curriculum.draws import importance_weights as importance_weights
from memejax.curriculum.dynamic import RATIO_SCHEDULES as RATIO_SCHEDULES
from memejax.curriculum.dynamic import Draw as Draw
from memejax.curriculum.dynamic import ratio_schedule as ratio_schedule
from memejax.curriculum.dynamic import redraw as redraw
from memejax.curriculum.dynamic import refresh_starts as refresh_starts
from memejax.curriculum.dynamic import segments as segments
from memejax.curriculum.dynamic import uniform_draw as uniform_draw
from memejax.curriculum.gradients import (
    expected_gradient_length as expected_gradient_length,
)
from memejax.curriculum.gradients import (
    last_layer_gradient_length as last_layer_gradient_length,
)
from memejax.curriculum.mc_dropout import mc_dropout as mc_dropout
from memejax.curriculum.sampling import sampling_probs as sampling_probs
from memejax.curriculum.scores import aadt as aadt
from memejax.curriculum.scores import cross_entropy as cross_entropy
from memejax.curriculum.scores import entropy as entropy
from memejax.curriculum.scores import least_confidence as least_confidence
from memejax.curriculum.scores import margin as margin
from memejax.curriculum.tasks import curriculum_tasks as curriculum_tasks
from memejax.curriculum.tasks import expected_visits as expected_visits
from memejax.curriculum.tasks import phase_updates as phase_updates
from memejax.curriculum.tasks import pools as pools
from memejax.curriculum.tasks import rank as rank
from memejax.curriculum.temperature import temperature as temperature
from memejax.curriculum.temperature import temperature_search as temperature_search
