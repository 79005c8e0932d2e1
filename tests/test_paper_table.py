"""A paper's table as text: what goes in is there, escaped, and blank where unknown."""

import csv
import html.parser
import io

from memejax.report.paper_table import (
    HEAD,
    Line,
    PaperTable,
    Spread,
    to_csv,
    to_html,
    to_markdown,
)

EVIL = '<script>alert("x")</script>|&'
FULL = Line(
    method="multimodal CASS",
    architecture="ViT-B/16",
    size="384",
    auroc=Spread(0.612345, 0.0125, 0.59, 0.6351),
    accuracy=Spread(0.55, 0.25, 0.5, 0.6),
    published_auroc=Spread(0.5, 0.078),
    published_accuracy=Spread(0.625),
    finished=3,
    seeds=5,
    collapsed=2,
    seconds=3723.4,
    pages=(("0", "cass_mm-384/seed0/report.html"), ("4", "a b/seed4/report.html")),
)
ONE = Line("supervised", auroc=Spread(0.75, None, 0.7, 0.8), accuracy=Spread(0.5))
NONE = Line("GCN", published_auroc=Spread(0.5145), note="Not built yet.")
TABLE = PaperTable(
    name="table9",
    title="Table 9",
    preset="demo",
    split="test_unseen of the built-in memes",
    lines=(FULL, ONE, NONE),
    notes=("How to read it.",),
)


class Page(html.parser.HTMLParser):
    """Tags closed in order; text and links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.rows, self.words = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "br":
            self.handle_data(" ")
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_markdown():
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == (
        "## Table 9: preset demo, split test_unseen of the built-in memes"
    )
    rows = [[c.strip() for c in li.strip("|").split("|")] for li in lines if "|" in li]
    assert rows[0] == list(HEAD)
    assert HEAD.index("AUROC") < HEAD.index("accuracy")
    assert rows[1] == [":--"] * 3 + ["--:"] * 7
    assert rows[2] == [
        "multimodal CASS",
        "ViT-B/16",
        "384",
        "0.6123 ± 0.0125 [0.590, 0.635]",
        "0.5500 ± 0.2500 [0.500, 0.600]",
        "0.500 ± 0.078",
        "0.625",
        "3/5",
        "2/3",
        "1:02:03",
    ]
    # One seed: an interval and no deviation. Not run: nothing but what was published.
    assert rows[3][3:5] == ["0.7500 [0.700, 0.800]", "0.5000"]
    assert rows[3][5:] == [""] * 5
    assert rows[4] == ["GCN", "", "", "", "", "0.5145", "", "", "", ""]
    assert lines[-2:] == ["- How to read it.", "- GCN: Not built yet."]


def test_csv_has_whole_numbers():
    rows = list(csv.DictReader(io.StringIO(to_csv(TABLE))))
    first = rows[0]
    assert [first[k] for k in ("table", "preset", "split")] == [
        "table9",
        "demo",
        "test_unseen of the built-in memes",
    ]
    assert float(first["auroc_mean"]) == 0.612345
    assert float(first["auroc_high"]) == 0.6351
    assert float(first["accuracy_std"]) == 0.25
    assert (first["seeds_finished"], first["seeds"]) == ("3", "5")
    assert (first["seeds_collapsed"], first["seconds_a_seed"]) == ("2", "3723.4")
    assert (first["published_auroc_std"], first["published_accuracy_std"]) == (
        "0.078",
        "",
    )
    assert rows[1]["auroc_std"] == rows[1]["seeds"] == rows[1]["published_auroc"] == ""
    assert rows[2]["note"] == "Not built yet." and rows[2]["auroc_mean"] == ""


def test_html_page():
    page = Page(to_html(TABLE))
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert page.links == [
        "cass_mm-384/seed0/report.html",
        "a%20b/seed4/report.html",
    ]
    assert page.rows[0] == list(HEAD)
    assert page.rows[1][3] == "0.6123 ± 0.0125 [0.590, 0.635]"
    assert page.rows[1][7:9] == ["3/5 0, 4", "2/3"]
    assert '<b class="warning">2/3</b>' in to_html(TABLE)
    assert page.rows[3][0] == "GCN" and len(page.rows) == 4
    assert "3 of 5 seeds are in." in page.words


def test_everything_is_escaped():
    line = Line(EVIL, architecture=EVIL, size=EVIL, note=EVIL, pages=((EVIL, EVIL),))
    table = PaperTable("t", EVIL, EVIL, EVIL, [line], [EVIL])
    page = Page(to_html(table))
    assert "script" not in page.tags
    assert "".join(page.words).count(EVIL) >= 9
    assert '"' not in page.links[0] and "<" not in page.links[0]
    rows = [li for li in to_markdown(table).splitlines() if li.startswith("| &lt;")]
    assert len(rows) == 1 and "<" not in rows[0]
    # Three bars of the text are escaped, eleven are the row's.
    assert rows[0].count("\\|") == 3 and rows[0].count("|") == 14
    assert next(csv.DictReader(io.StringIO(to_csv(table))))["method"] == EVIL


def test_no_run_finished_yet():
    table = PaperTable("t", "T", "full", None, [Line("a", seeds=2)])
    assert "T: preset full, no run finished yet" in to_markdown(table)
    assert "| a |  |  |  |  |  |  | 0/2 |  |  |" in to_markdown(table)
    assert "0 of 2 seeds are in." in to_html(table)
    assert next(csv.DictReader(io.StringIO(to_csv(table))))["split"] == ""
