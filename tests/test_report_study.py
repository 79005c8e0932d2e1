"""A made-up study, and what its page, its Markdown and its CSV say of it."""

import base64
import csv
import dataclasses
import functools
import html.parser
import io
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from memejax.metrics import significance
from memejax.report.study import (
    Arm,
    Correlations,
    Study,
    Toy,
    canvas,
    charts,
    study_csv,
    study_html,
    study_markdown,
)
from memejax.report.study.outcomes import differences, outcomes

EVIL = '<script>alert("x")</script>|&$_'
SEEDS, UPDATES = 10, 400
STEPS = np.array([50, 100, 200, 400])
NOISE = np.tile([-1.0, 1.0], SEEDS // 2)


def curve(last, *, seeds=SEEDS, steps=STEPS, spread=0.002, end=None):
    """Errors falling to `last`, seeds apart by `spread` in turn."""
    fall = 0.5 * np.exp(-8 * steps / (end or steps[-1]))
    return last + fall[None] + spread * NOISE[:seeds, None]


def arm(name, last=0.05, *, group="dsac", primary=False, **more):
    """An arm whose mean test error ends at about `last`."""
    steps = more.pop("steps", STEPS)
    test = more.pop("test", None)
    test = curve(last, steps=steps) if test is None else test
    return Arm(
        **{
            "name": name,
            "title": name.replace("-", " "),
            "group": group,
            "primary": primary,
            "updates": int(max(steps, default=0)),
            "seconds": 3723.4,
            "steps": steps,
            "validation_error": test + 0.01,
            "test_error": test,
        }
        | more
    )


def probabilities(n, ratio, seed):
    logits = np.random.default_rng(seed).uniform(-math.log(ratio), 0, n)
    return np.exp(logits) / np.exp(logits).sum()


def small(**more):
    """A study with each verdict, and arms that cannot be judged."""
    wide = curve(0.05) + np.array([0.03, -0.03, -0.03, 0.03, 0.03] * 2)[:, None]
    # From one seed to the next .011 and .013 below uniform.
    lower = curve(0.038, spread=0.003)
    sampled = {
        "refreshes": [(0, np.full(60, 1 / 60)), (200, probabilities(60, 10, 1))],
        "diagnostics": {
            "ess_share": ([0, 200, 300], [1.0, 0.5, 0.4]),
            "class_share_min": ([0, 200, 300], [0.33, 0.21, 0.25]),
        },
    }
    dsac = {"score": "entropy", "favour": "easy"}
    arms = [
        arm("uniform", group="uniform"),
        arm("lower", test=lower, primary=True, ratio=10.0, **dsac, **sampled),
        arm("higher", 0.062, primary=True, ratio=math.inf, **dsac),
        arm("same", 0.0501, primary=True, ratio=100.0, favour="hard", score="entropy"),
        arm("wide", primary=True, group="bac", test=wide, score="entropy"),
        arm("later", 0.02, primary=True, group="bac", finished=False, updates=900),
        arm("twice", 0.03, group="uniform", steps=2 * STEPS),
    ]
    given = {
        "title": "Made up",
        "preset": "demo",
        "size": "10 seeds, 400 updates",
        "data": {"Data": "Shapes", "Train": 60},
        "arms": arms,
        "reference": "uniform",
        "band": 0.005,
    }
    return Study(**(given | more))


@functools.cache
def full():
    """The same with everything that a page can show."""
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (k, 8, 8, c), np.uint8) for k, c in ((4, 1), (3, 3))]
    x = np.linspace(-3, 3, 50)
    return small(
        labels=np.arange(60) % 3,
        class_names=("rectangle", "ellipse", "triangle"),
        pictures={
            ("lower", "ellipse", 50): (images[0], images[1]),
            ("lower", "ellipse", 400): images[::-1],
        },
        correlations=Correlations(
            ["entropy", "BALD", "loss"],
            [[1, 0.25, -0.7], [0.25, 1, np.nan], [-0.7, np.nan, 1]],
        ),
        toy=Toy(x, {"entropy": np.exp(-(x**2)), "BALD": x**2}, "Look far out."),
    )


@functools.cache
def full_page():
    return Page(study_html(full()))


class Page(html.parser.HTMLParser):
    """Tags closed in order; text, rows of tables, pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.words, self.images = [], [], [], [], []
        self.source = text
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def heads(self):
        """What stands in h2."""
        return re.findall("<h2>(.*?)</h2>", self.source)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def cells(self, name):
        """The rows of an arm, in the order of the tables."""
        return [row for row in self.rows if row and row[0].startswith(name)]


def test_outcomes():
    study = small()
    found = outcomes(study)
    assert list(found) == [
        "uniform",
        "twice",
        "wide",
        "later",
        "lower",
        "higher",
        "same",
    ]
    sd = 0.003 * (10 / 9) ** 0.5
    last = 0.5 * math.exp(-8)
    assert found["lower"].final == pytest.approx((0.038 + last, sd))
    assert found["lower"].comparison["mean_difference"] == pytest.approx(-0.012)
    assert found["lower"].comparison["losses"] == 10
    # Five primary arms, the unfinished one too: twice the smallest p of ten seeds is
    # for the two sure arms, 5 and 4 times, then not below the first.
    smallest = 2 * 0.5**10
    assert found["lower"].p_adjusted == pytest.approx(5 * smallest)
    assert found["higher"].p_adjusted == pytest.approx(5 * smallest)
    assert {name: found[name].verdict for name in found} == {
        "uniform": None,
        "twice": None,
        "wide": "unclear",
        "later": None,
        "lower": "better",
        "higher": "worse",
        # All ten seeds apart by the same tiny difference: sure, and inside the band.
        "same": "worse",
    }
    assert found["later"].why_not == "not finished" and found["later"].final is None
    assert found["twice"].why_not == "2 x the updates"
    assert found["twice"].comparison["mean_difference"] == pytest.approx(-0.02)
    # The curve passes .05 + .5 exp(-8): .038 + .5 exp(-4) = .0472 at 200 of 400.
    assert found["lower"].reached == 200 and found["uniform"].reached == 400
    assert found["higher"].reached is None
    # .03 + .5 exp(-4) = .0392 at 400 of 800; .03 + .5 exp(-2) is .0977.
    assert found["twice"].reached == 400


def test_validation_chooses_for_each_seed():
    test = np.array([[0.3, 0.2, 0.1, 0.4], [0.5, 0.6, 0.7, 0.8]])
    validation = np.array([[0.2, 0.1, 0.3, 0.3], [0.4, 0.3, 0.3, 0.9]])
    own = arm("a", test=test, validation_error=validation)
    reference = arm("uniform", group="uniform", test=test[::-1])
    found = outcomes(small(arms=[reference, own]))["a"]
    # Seed 0 at its second evaluation, seed 1 at the first of two equal ones.
    assert found.selected == pytest.approx((0.4, 0.08**0.5))
    assert found.final == pytest.approx((0.6, 0.08**0.5))


def test_an_unfinished_arm_counts_in_the_family():
    """Holm's correction is over what was declared, not over what is there."""
    study = small()
    without = [a for a in study.arms if a.name != "later"]
    p = outcomes(small(arms=without))["lower"].p_adjusted
    assert outcomes(study)["lower"].p_adjusted == pytest.approx(p * 5 / 4)
    twice = [dataclasses.replace(a, primary=a.name != "uniform") for a in study.arms]
    found = outcomes(small(arms=twice))
    # One with another budget counts too, and is not judged however sure it is.
    assert found["lower"].p_adjusted == pytest.approx(p * 6 / 4)
    assert found["twice"].verdict is None and found["twice"].p_adjusted is None


def test_tables_of_the_page():
    study = full()
    page = Page(study_html(study))
    low, high = (
        f"{100 * outcomes(study)['lower'].comparison[end]:+.2f}"
        for end in ("low", "high")
    )
    assert -1.3 < float(low) < -1.2 < float(high) < -1.1
    first, second, sampled = page.cells("lower")
    assert first == [
        "lower",
        "3.82 ± 0.32",
        f"-1.20 [{low}, {high}]",
        "10 of 10",
        "0.002",
        "0.0098",
        "better",
    ]
    assert second == [
        *("lower", "DSAC", "3.82 ± 0.32", f"-1.20 [{low}, {high}]"),
        *("3.82 ± 0.32", "200", "400", "1:02:03"),
    ]
    # Medians of 1, .5, .4; the least of .33, .21, .25.
    assert sampled == ["lower", "0.5", "0.21"]
    assert [row[3:] for row in page.cells("uniform")] == [
        ["", "", "", "reference"],
        ["reference", "5.02 ± 0.21", "400", "400", "1:02:03"],
    ]
    assert page.cells("higher")[0][-1] == "worse"
    assert page.cells("higher")[1][5] == "not reached"
    assert page.cells("wide")[0][-1] == "unclear"
    assert page.cells("later")[0][1:] == ["-", "-", "-", "-", "-", "not finished"]
    assert page.cells("twice")[0][0] == "twice (2 x the updates)"
    assert "with other updates had another budget" in page.text
    # Six arms are compared in the table of all.
    assert "Of 5 such intervals, 0.2 would miss 0 by chance" in page.text


def test_words_of_the_page():
    page = full_page()
    assert (
        "With uniform the test error after 400 updates is 5.02 % (± 0.21 over seeds), "
        "over 10 seeds. Of 5 arms declared beforehand, 1 is better, 2 are worse, 1 is "
        "unclear and 1 cannot be judged. The best, lower, is better than uniform: "
        "error 1.2 points lower (" in page.text
    )
    assert "later : no verdict: not finished" in page.text
    assert "; no more than 0.5 points all the same" in page.text
    assert "Not finished: later." in page.text
    assert "0.5 points of test error" in page.text and "Shapes" in page.text
    assert "preset demo" in page.text
    even = np.tile([0.0, 0.0001], 5)[:, None] * NOISE[:, None]
    even = arm("even", primary=True, test=curve(0.05) + even)
    page = Page(study_html(small(arms=[arm("uniform", group="uniform"), even])))
    assert page.cells("even")[0][-1] == "no difference"
    assert "no difference larger than 0.5 points" in page.text


def test_pictures_of_the_page():
    page = full_page()
    assert page.heads == [
        "What was declared beforehand",
        "All arms",
        "Learning curves",
        "The maximum ratio",
        "What was sampled",
        "What looks easy, what looks hard",
        "How far the scores agree",
        "Why BALD sees more than a boundary",
    ]
    kinds = [image["src"].partition(";")[0] for image in page.images]
    # Curves of uniform, BAC without a score, BAC and DSAC with entropy; ratios; a fan
    # and its classes; the grid; correlations; toy.
    assert kinds.count("data:image/svg+xml") == 4 + 1 + 2 + 1 + 1
    assert kinds.count("data:image/png") == 1 and len(kinds) == 10
    for image in page.images:
        data = base64.b64decode(image["src"].partition(",")[2])
        if image["src"].startswith("data:image/svg"):
            assert ET.fromstring(data).tag.endswith("svg")
        else:
            assert data.startswith(b"\x89PNG")
        assert image["alt"]
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "Look far out." in page.text


def test_what_a_study_lacks_is_left_out():
    alone = [arm("uniform", group="uniform")]
    page = Page(study_html(small(arms=[*alone, arm("twice", group="uniform")])))
    assert page.heads == ["All arms", "Learning curves"]
    assert "No arm was declared beforehand" in page.text
    assert "###" in study_markdown(small(arms=alone))
    late = [arm("uniform", group="uniform", finished=False), *small().arms[1:]]
    page = Page(study_html(small(arms=late)))
    assert "nothing to compare yet" in page.text
    assert "The maximum ratio" not in page.heads
    assert page.cells("lower")[0][-1] == "the reference is not finished"
    assert page.cells("lower")[1][3:6] == ["-", "3.82 ± 0.32", "-"]
    empty = {"steps": np.zeros(0, int), "test": np.zeros((0, 0)), "updates": 400}
    nothing = arm("nothing", **empty, finished=False, group="bac")
    page = Page(study_html(small(arms=[*alone, nothing])))
    assert page.cells("nothing")[0][2:6] == ["-", "-", "-", "-"]
    assert "Learning curves" not in page.heads


def test_few_seeds():
    """With few seeds the page says what they cannot tell, with one that none can."""

    def of(n):
        arms = [
            dataclasses.replace(
                a, test_error=a.test_error[:n], validation_error=a.validation_error[:n]
            )
            for a in small().arms
        ]
        return small(arms=arms)

    page = Page(study_html(of(6)))
    # 5 arms x 2^-5.
    assert "no p after the correction can be below 0.16" in page.text
    assert "There are too few seeds for this many arms" in page.text
    assert page.cells("lower")[0][-1] == "unclear"
    # .038 + .5 exp(-8), and the seed's own .003 below.
    assert "| lower | 3.52 | - | - | - | - | one seed |" in study_markdown(of(1))
    assert "± nan" not in study_html(of(1))
    # An arm with fewer seeds is compared on those that both have.
    study = small()
    arms = [*study.arms[:1], *of(4).arms[1:2]]
    found = outcomes(small(arms=arms))["lower"]
    want = significance.paired_comparison(
        np.asarray(arms[1].test_error)[:, -1],
        np.asarray(arms[0].test_error)[:4, -1],
    )
    assert found.comparison == want and want["n"] == 4
    assert "lower (4 seeds)" in study_markdown(small(arms=arms))


def test_everything_is_escaped():
    evil = arm(
        EVIL, 0.03, primary=True, title=EVIL, score=EVIL, favour="easy", ratio=10.0,
        refreshes=[(0, np.full(6, 1 / 6))], diagnostics={"ess_share": ([0], [1.0])},
    )  # fmt: skip
    image = np.zeros((1, 4, 4, 1), np.uint8)
    study = small(
        title=EVIL,
        preset=EVIL,
        size=EVIL,
        data={EVIL: EVIL},
        arms=[arm("u", title=EVIL, group="uniform"), evil],
        reference="u",
        labels=np.arange(6) % 2,
        class_names=[EVIL, EVIL],
        pictures={(EVIL, EVIL, 0): (image, image)},
        correlations=Correlations([EVIL], [[1.0]]),
        toy=Toy([0.0, 1.0], {EVIL: [0.0, 1.0]}, EVIL),
        notes=[EVIL],
    )
    page = Page(study_html(study))
    assert "script" not in page.tags and page.text.count(EVIL) > 12
    for line in study_markdown(study).splitlines():
        assert "<" not in line
        if line.startswith("| &lt;"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (8, 9)
    lines = list(csv.DictReader(io.StringIO(study_csv(study))))
    assert lines[1]["arm"] == lines[1]["score"] == EVIL


def test_markdown():
    text = study_markdown(full())
    lines = text.splitlines()
    assert lines[0] == "## Made up (preset demo)"
    assert [line for line in lines if line.startswith("###")] == [
        "### Primary arms: test error at the last update, in percent",
        "### All arms: test error in percent",
    ]
    rows = [[c.strip() for c in li.strip("|").split("|")] for li in lines if "|" in li]
    assert rows[0][2] == "difference, points [95 % BCa]"
    assert rows[1] == [":--", *["--:"] * 6]
    assert [row[-1] for row in rows[2:8]] == [
        *("reference", "unclear", "not finished", "better", "worse", "worse"),
    ]
    assert "What was sampled" not in text and "img" not in text


def test_csv_has_whole_numbers():
    lines = list(csv.DictReader(io.StringIO(study_csv(small()))))
    by = {line["arm"]: line for line in lines}
    assert len(by) == len(lines) == 7
    found = outcomes(small())["lower"]
    line = by["lower"]
    assert float(line["test_error"]) == found.final[0]
    assert float(line["mean_difference"]) == found.comparison["mean_difference"]
    assert float(line["p_holm"]) == found.p_adjusted
    # Of errors, a loss in the comparison is a win.
    assert (line["wins"], line["pairs"], line["verdict"]) == ("10", "10", "better")
    assert line["updates_to_reference"] == "200" and line["ratio"] == "10.0"
    assert by["higher"]["ratio"] == "inf" and by["higher"]["updates_to_reference"] == ""
    assert by["later"]["test_error"] == "" and by["later"]["why_not"] == "not finished"
    assert by["uniform"]["p"] == by["twice"]["p_holm"] == by["twice"]["verdict"] == ""


@pytest.mark.parametrize(
    "more, said",
    [
        ({"group": "other"}, "group 'other'"),
        ({"favour": "middling"}, "favour"),
        ({"ratio": 0.5}, "ratio 0.5"),
        ({"test": np.zeros((2, 3))}, "expected \\[k\\], \\[seeds, k\\]"),
        ({"validation_error": np.zeros((1, 4))}, "expected \\[k\\], \\[seeds, k\\]"),
        ({"steps": STEPS[::-1], "updates": 400}, "ascending"),
        ({"updates": 500}, "up to the last update, 500"),
        ({"test": np.full((2, 4), np.nan)}, "fractions"),
        ({"test": np.full((2, 4), 5.0)}, "fractions"),
        ({"diagnostics": {"ess": ([0], [1.0])}}, "diagnostics \\['ess'\\]"),
        ({"diagnostics": {"ess_share": ([0, 1], [1.0])}}, "expected \\[r\\] and"),
        ({"refreshes": [(0, [0.5, 0.6])]}, "sum 1.1"),
    ],
)
def test_arm_errors(more, said):
    with pytest.raises(ValueError, match=f"arm 'a'.*{said}"):
        arm("a", **more)


def test_study_errors():
    arms = small().arms
    with pytest.raises(ValueError, match="reference 'none'"):
        small(reference="none")
    with pytest.raises(ValueError, match="different names"):
        small(arms=[arms[0], arms[0]])
    with pytest.raises(ValueError, match="primary reference"):
        small(reference="lower")
    with pytest.raises(ValueError, match="band of 0"):
        small(band=0)
    with pytest.raises(ValueError, match="pictures of arms \\['x'\\]"):
        small(pictures={("x", "y", 0): ((), ())})
    with pytest.raises(ValueError, match=r"got correlations \(1, 2\)"):
        Correlations(["a"], [[1.0, 0.0]])
    with pytest.raises(ValueError, match="toy curve 'a'"):
        Toy([0.0, 1.0], {"a": [0.0]})


def test_differences_are_at_common_updates():
    reference = arm("u", steps=np.array([10, 20, 40]), test=np.full((3, 3), 0.5))
    test = np.array([[0.1, 0.2, 0.3], [0.4, 0.6, 0.8]])
    steps, apart = differences(
        arm("a", steps=np.array([20, 30, 40]), test=test), reference
    )
    np.testing.assert_array_equal(steps, [20, 40])
    np.testing.assert_allclose(apart, [[-0.4, -0.2], [-0.1, 0.3]])


def test_rows_of_pictures():
    images = np.stack([np.full((2, 2, 1), v, np.uint8) for v in (10, 20)])
    row = canvas.row(images)
    assert row.shape == (2, 5, 3)
    np.testing.assert_array_equal(row[0, :, 0], [10, 10, 255, 20, 20])
    np.testing.assert_array_equal(canvas.row(images, gap=0)[1, :, 2], [10, 10, 20, 20])
    for wrong in (images.astype(float), images[0], images[:0], images.repeat(2, -1)):
        with pytest.raises(ValueError, match="expected uint8"):
            canvas.row(wrong)


def test_charts_are_of_what_goes_in():
    """The same twice, and another picture for other figures."""
    reference, lower, higher = small().arms[:3]
    first = charts.learning_curves([lower], reference=reference)
    assert charts.learning_curves([lower], reference=reference) == first
    assert charts.learning_curves([higher], reference=reference) != first
    with_zero = dataclasses.replace(lower, refreshes=[(0, [0.5, 0.5, 0.0])])
    assert charts.fan(with_zero) != charts.fan(lower)


def test_a_study_of_one_arm_compares_nothing():
    alone = small(arms=[arm("uniform", group="uniform", title="shuffled passes")])
    page = study_html(alone)
    assert "Learning curve" in page and page.count("<img") == 1
    for said in ("Compared with", "declared beforehand", "difference", "reference"):
        assert said not in page.split("</style>")[1]
    # Its picture is of its own errors.
    other = small(arms=[arm("uniform", 0.08, group="uniform", title="shuffled passes")])
    assert study_html(other).count("<img") == 1
    assert charts.learning_curve(alone.arms[0]) != charts.learning_curve(other.arms[0])
