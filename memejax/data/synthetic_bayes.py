"""Exact scores of the best possible classifiers of the built-in memes.

A meme has the concept c and cue m in its picture, the keyword k and cue word n in its
caption, and the label y:

    p(c, k, m, n, y) = p(y | c, k) p(m | y) p(n | y) / K^2
    p(y | c, k) = 1 - label_noise   if y = (c + k) mod 2, else label_noise
    p(m | y) = (1 + image_leak) / 2 if m = y,             else (1 - image_leak) / 2
    p(n | y) = (1 + text_leak) / 2  if n = y,             else (1 - text_leak) / 2

By the Neyman-Pearson lemma no score of an observation o has a higher AUROC than
p(y = 1 | o), and no decision a higher accuracy than the likelier label.
"""

import numpy as np

from memejax.data.synthetic_pictures import CONCEPTS


def bayes(
    *,
    concepts: int = 4,
    image_leak: float = 0.0,
    text_leak: float = 0.0,
    label_noise: float = 0.0,
) -> dict[str, dict[str, float]]:
    """Exact scores of the best possible classifier of a single meme.

    The joint of the module's docstring, summed over the variables that a view does not
    show, goes through `bayes_auroc` and `bayes_accuracy`. An image shows (c, m), a text
    (k, n).

    Args:
        concepts: K: 2, 4, 6 or 8.
        image_leak: in [0, 1].
        text_leak: in [0, 1].
        label_noise: in [0, 0.5].

    Returns:
        {"image": {"auroc", "accuracy"}, "text": ..., "both": ...}.

    Raises:
        ValueError: for an argument out of range.
    """
    check_knobs(concepts, image_leak, text_leak=text_leak, label_noise=label_noise)
    c, k, m, n, y = np.ogrid[:concepts, :concepts, :2, :2, :2]
    label = np.where(y == (c + k) % 2, 1 - label_noise, label_noise)
    image_cue = np.where(m == y, 1 + image_leak, 1 - image_leak) / 2
    text_cue = np.where(n == y, 1 + text_leak, 1 - text_leak) / 2
    joint = label * image_cue * text_cue / concepts**2
    views = {"image": joint.sum((1, 3)), "text": joint.sum((0, 2)), "both": joint}
    return {
        name: {
            "auroc": bayes_auroc(view.reshape(-1, 2)),
            "accuracy": bayes_accuracy(view.reshape(-1, 2)),
        }
        for name, view in views.items()
    }


def bayes_auroc(joint: np.ndarray) -> float:
    """AUROC of the score p(y = 1 | o), ties counted half.

    sum over o, o' of p(o | y = 1) p(o' | y = 0) ([s_o > s_o'] + [s_o = s_o'] / 2)

    Args:
        joint: float [observations, 2]: p(o, y), non-negative, both columns with mass
            above 0. It need not sum to 1.

    Returns:
        In [1/2, 1].

    Raises:
        ValueError: for another shape, negative entries or a class without mass.
    """
    _check_joint(joint)
    negative, positive = joint[:, 0], joint[:, 1]
    # s_o > s_o' without the division, which is 0 / 0 for observations without mass.
    ahead = positive[:, None] * negative[None, :]
    behind = negative[:, None] * positive[None, :]
    # Sums in a different order differ in their last bits where they should tie.
    tie = np.isclose(ahead, behind, rtol=1e-9, atol=0)
    wins = np.where(tie, 0.5, ahead > behind)
    return float((ahead * wins).sum() / (positive.sum() * negative.sum()))


def bayes_accuracy(joint: np.ndarray) -> float:
    """Accuracy of the likelier label: sum over o of max_y p(o, y).

    Args:
        joint: float [observations, 2], as in `bayes_auroc`.

    Returns:
        In [1/2, 1].

    Raises:
        ValueError: see `bayes_auroc`.
    """
    _check_joint(joint)
    return float(joint.max(1).sum() / joint.sum())


def check_knobs(
    concepts: int, image_leak: float, *, text_leak: float, label_noise: float
) -> None:
    """Raise ValueError for a knob of the built-in memes that is out of range."""
    most = len(CONCEPTS)
    if concepts not in range(2, most + 1, 2):
        raise ValueError(f"concepts {concepts}: expected an even number in 2..{most}")
    for name, value, top in (
        ("image_leak", image_leak, 1.0),
        ("text_leak", text_leak, 1.0),
        ("label_noise", label_noise, 0.5),
    ):
        if not 0 <= value <= top:
            raise ValueError(f"{name} {value}: expected a number in [0, {top}]")


def _check_joint(joint: np.ndarray) -> None:
    if joint.ndim != 2 or joint.shape[1] != 2:
        raise ValueError(f"joint of shape {joint.shape}: expected [observations, 2]")
    if joint.min() < 0 or not joint.sum(0).all():
        raise ValueError(f"joint {joint}: expected masses >= 0, and > 0 for each label")
