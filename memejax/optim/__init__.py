"""Parameter groups, schedules, update rules and averages of parameters."""

from memejax.optim.average import ema as ema
from memejax.optim.average import swa as swa
from memejax.optim.groups import Group as Group
from memejax.optim.groups import label_parameters as label_parameters
from memejax.optim.groups import layer_of as layer_of
from memejax.optim.groups import path_of as path_of
from memejax.optim.optimizer import make_learning_rates as make_learning_rates
from memejax.optim.optimizer import make_optimizer as make_optimizer
from memejax.optim.optimizer import make_weight_decays as make_weight_decays
from memejax.optim.rules import RULES as RULES
from memejax.optim.schedules import SCHEDULES as SCHEDULES
from memejax.optim.schedules import Schedule as Schedule
from memejax.optim.schedules import cosine as cosine
from memejax.optim.schedules import linear_then_constant as linear_then_constant
from memejax.optim.schedules import schedule as schedule
