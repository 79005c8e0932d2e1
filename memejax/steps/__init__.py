"""Training steps: pure functions of (state, batch), made from callables.

    step = make_cass_step(apply_fn, tx, objective=..., views=...)
    state, metrics = jax.jit(step, donate_argnums=0)(state, batch)

`apply_fn` and `tx` live in the closure and a state holds only arrays, so it can be
stacked and vmapped. Randomness is `fold_in(key, step)`; an example's augmentation
derives from (key, index, draw), so that a resumed run, another batch size or another
number of devices draws the same views.
"""

from memejax.steps.cass import CassObjective as CassObjective
from memejax.steps.cass import cass_loss as cass_loss
from memejax.steps.cass import make_cass_step as make_cass_step
from memejax.steps.classify import make_classify_step as make_classify_step
from memejax.steps.dino import DinoObjective as DinoObjective
from memejax.steps.dino import DinoState as DinoState
from memejax.steps.dino import init_dino_state as init_dino_state
from memejax.steps.dino import make_dino_step as make_dino_step
from memejax.steps.objective import LossAux as LossAux
from memejax.steps.objective import Reduced as Reduced
from memejax.steps.objective import StepObjective as StepObjective
from memejax.steps.panel import Panel as Panel
from memejax.steps.retrieval import make_retrieval_epoch as make_retrieval_epoch
from memejax.steps.state import Averaging as Averaging
from memejax.steps.state import State as State
from memejax.steps.state import init_state as init_state
from memejax.steps.supervised import make_supervised_step as make_supervised_step
from memejax.steps.update import gather_steps as gather_steps
from memejax.steps.update import make_predict as make_predict
from memejax.steps.update import make_step as make_step
from memejax.steps.update import scan_steps as scan_steps
