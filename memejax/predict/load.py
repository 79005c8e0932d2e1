"""The moderator of a finished run, from its folder."""

from __future__ import annotations

import os

from memejax import decisions
from memejax.console import say
from memejax.data.ocr import CaptionReader
from memejax.decisions import Decision
from memejax.errors import UserError
from memejax.metrics import AVERAGE
from memejax.metrics.thresholds import parse_rule
from memejax.predict.moderator import Known, Moderator
from memejax.predict.predictor import load_predictor
from memejax.restored import seeds_of


def load_moderator(
    workdir: str | os.PathLike[str],
    *,
    seed: str = "0",
    arm: str = AVERAGE,
    rule: str | None = None,
    certify: str | None = None,
    known: Known | None = None,
    prevalence: float | None = None,
    captions_cache: str | os.PathLike[str] | None = None,
) -> Moderator:
    """Load the moderator of a finished run from its folder alone.

    Args:
        workdir: the run's folder.
        seed: one of its seeds, or "all", the mean of their probabilities.
        arm: one of its arms, or "average".
        rule: keeps this rule in place of the run's decision.json, see
            `decisions.make`.
        certify: split that the rule's threshold is found on.
        known: see `Moderator`.
        prevalence: see `Moderator`; takes a calibrated run.
        captions_cache: file of captions read before.

    Raises:
        ValueError: if the folder holds no finished run with that seed and arm; if the
            rule cannot be kept; if a prevalence is given for probabilities that are not
            calibrated.
    """
    decision = choose_decision(workdir, seed=seed, arm=arm, rule=rule, certify=certify)
    if prevalence is not None and decision is None:
        raise UserError(
            "a prevalence shifts calibrated probabilities, and this run is not "
            "calibrated for this seed and arm: run python -m memejax.decide, or give "
            "--rule"
        )
    return Moderator(
        load_predictor(workdir, seed=seed, arm=arm),
        decision,
        CaptionReader(cache=captions_cache, say=say),
        known,
        prevalence,
    )


def choose_decision(
    workdir: str | os.PathLike[str],
    *,
    seed: str,
    arm: str,
    rule: str | None = None,
    certify: str | None = None,
) -> Decision | None:
    """Return the decision by a rule, or the run's own if it is of this seed and arm."""
    if rule is not None:
        return decisions.make(
            workdir, parse_rule(rule), seed=seed, arm=arm, split=certify
        )
    saved = decisions.read(workdir)
    if saved is None:
        return None
    seeds = seeds_of(workdir, seed)
    if (saved.arm, saved.seeds) != (arm, seeds):
        say(
            f"the run's {decisions.FILE} is of {saved.arm} of seed "
            f"{', '.join(saved.seeds)}: not used"
        )
        return None
    return saved
