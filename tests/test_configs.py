"""The experiments' configs: their leaves, their options, and where they are found."""

import itertools
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from support import ROOT, shrunk

from memejax import train
from memejax.config import find_config, flatten, load_config
from memejax.configs import common, heads
from memejax.stages.parts import curricula, pretrained
from memejax.stages.parts.pretrained import CheckpointError

CURRICULA = {"curriculum": common.CURRICULA}
THEN = {"then": common.THEN}
TEXT = {"text": common.TEXTS}
# Config -> its presets and options.
CONFIGS = {
    "cass_mm": (common.PRESETS, THEN | CURRICULA),
    "cass": (common.PRESETS, THEN | TEXT | {"average": ("none", "ema", "swa")}),
    "dino": (common.PRESETS, THEN | TEXT),
    "supervised": (common.PRESETS, CURRICULA | TEXT),
    "minilm": (("full",), CURRICULA),
    "graph": (common.PRESETS, {"kind": ("stored", "trained", "hetero")}),
    "curriculum": (common.PRESETS, {"network": ("perceptron", "convnet", "resnet")}),
    "heads": (heads.PRESETS, {"head": heads.HEADS}),
    "template": (("demo",), {}),
}


def texts(name):
    """Every preset of a config with every combination of its options."""
    presets, options = CONFIGS[name]
    for preset, *values in itertools.product(presets, *options.values()):
        chosen = dict(zip(options, values, strict=True))
        if chosen.get("then") == "probe" and chosen.get("curriculum", "none") != "none":
            continue
        yield ",".join([preset, *(f"{k}={v}" for k, v in chosen.items())])


def load(name, text=None):
    colon = "" if text is None else f":{text}"
    return load_config(str(ROOT / f"configs/{name}.py{colon}"))


def leaves(config):
    return flatten(config.to_dict())


def test_every_config_is_here():
    files = {path.stem for path in (ROOT / "configs").glob("*.py")}
    assert files == {*CONFIGS, "common"}


@pytest.mark.parametrize("name", CONFIGS)
def test_leaves_and_depth(name):
    """At most 100 leaves at a depth of 4, groups of optimizers aside."""
    for text in texts(name):
        config = load(name, text)
        names = [k for k in leaves(config) if ".optimizer.groups." not in k]
        assert len(names) <= 100, (text, len(names))
        assert max(k.count(".") + 1 for k in names) <= 4, text
        assert (config.name, config.preset) == (name, text.split(",")[0])
        # A misspelt leaf is an error.
        assert config.is_locked


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_put_together(name):
    source = (ROOT / f"configs/{name}.py").read_text("utf-8")
    assert "load_config" not in source and not re.search(r"\bdel ", source)
    assert "get_ref" not in source


def test_the_first_preset_and_the_first_values_are_the_default():
    for name in CONFIGS:
        first = leaves(load(name, next(texts(name))))
        assert leaves(load(name)) == leaves(load(name, "")) == first


def test_what_a_run_does_not_use_is_not_there():
    assert "curriculum" not in load("supervised") and "probe" not in load("dino")
    drawn = load("supervised", "demo,curriculum=dsac")
    assert drawn.curriculum.kind == "dsac" and drawn.preset == "demo"
    probed = load("cass", "then=probe")
    assert "finetune" not in probed and probed.stages == ("pretrain", "probe")
    assert "average" not in probed.pretrain
    assert load("cass", "average=swa").pretrain.average.kind == "swa"
    for kind in ("stored", "trained", "hetero"):
        section = load("graph", f"paper,kind={kind}").graph
        assert section.kind == kind
        assert ("relations" in section) == (kind != "hetero")
        for own in ("trained", "hetero"):
            assert (own in section) == (own == kind)
    model = load("curriculum", "network=convnet").model
    assert set(model) == {"network", "dtype", "convnet"}


@pytest.mark.parametrize("kind", [k for k in common.CURRICULA if k != "none"])
def test_a_curriculum_has_the_leaves_that_its_kind_reads(kind):
    section = load("cass_mm", f"curriculum={kind}").curriculum
    assert set(section) == {"kind", *curricula.KINDS[kind]}
    curricula.check(section)
    every = load("curriculum").curriculum
    every.kind = kind
    curricula.check(every)


def test_a_kind_that_the_section_is_not_made_for_is_told():
    section = load("supervised", "curriculum=bac").curriculum
    section.kind = "dsac"
    with pytest.raises(ValueError, match="needs curriculum.warmup.*curriculum=dsac"):
        curricula.check(section)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("cass_mm", "big", r"unknown preset 'big'.*demo.*full.*paper"),
        ("minilm", "demo", r"unknown preset 'demo'.*full"),
        ("dino", "colour=red", r"unknown option 'colour'.*then"),
        ("template", "demo,then=probe", r"unknown option 'then'.*\[\]"),
        ("graph", "full,kind=whole", r"unknown kind 'whole'.*hetero.*stored.*trained"),
        ("cass", "full,demo", r"got 'demo' after the colon, expected NAME=VALUE"),
        ("cass", "then=probe,full", r"got 'full' after the colon, expected NAME=VALUE"),
        ("cass", "then=probe,then=probe", r"then is given twice"),
        ("cass_mm", "then=probe,curriculum=bac", r"curriculum is for fine-tuning"),
    ],
)
def test_unknown_texts_name_the_options(name, text, message):
    with pytest.raises(ValueError, match=message):
        load(name, text)


def test_a_stage_without_its_section_is_told(tmp_path):
    config = load("dino")
    config.stages = ("pretrain", "probe")
    with pytest.raises(ValueError, match="needs the section probe.*demo,then=probe"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_presets_without_built_in_data_need_a_folder(tmp_path):
    config = load("supervised", "full")
    config.weights.allow_random = True
    with pytest.raises(ValueError, match="data.name='memes' needs data.root"):
        train.run(config, tmp_path / "run")


@pytest.mark.parametrize("preset", ["full", "paper"])
@pytest.mark.parametrize("name", ["cass_mm", "cass", "dino", "supervised"])
def test_what_would_train_from_nothing_says_so(tmp_path, name, preset):
    text = "" if preset == "paper" and name != "cass_mm" else ", --config.weights.text"
    flags = rf"weights.image_cnn, --config.weights.image_vit{text} \(a folder"
    config = load(name, preset)
    with pytest.raises(CheckpointError, match=flags):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # What a run does not use needs no checkpoint.
    config.arms, config.model.arm.modalities = ("vit",), "image"
    config.weights.image_vit = "FILE"
    pretrained.check_start(config)
    config.model.arm.modalities = "both"
    if text:
        with pytest.raises(CheckpointError, match="give --config.weights.text \\("):
            pretrained.check_start(config)
    config.weights.allow_random = True
    pretrained.check_start(config)


def test_the_template_trains(tmp_path):
    sizes = {"finetune.steps": 4, "finetune.eval_every": 2}
    results = train.run(shrunk(load("template"), **sizes), tmp_path)
    assert results["config"] == "template"
    assert 0 <= results["summary"]["test_unseen"]["cnn"]["auroc"]["mean"] <= 1


# --- where they are found


def test_a_config_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, text = find_config("configs/cass_mm.py:full,then=probe")
    assert file.endswith("cass_mm.py") and text == "full,then=probe"
    assert load_config("configs/cass_mm.py").preset == "demo"
    (tmp_path / "mine.py").write_text("def get_config(): return 7")
    assert load_config("mine.py") == 7
    with pytest.raises(ValueError, match="no config file nowhere.py"):
        load_config("nowhere.py:demo")


PROGRAM = """
import sys
from absl import app
from memejax import command_line
CONFIG = command_line.define_config()
def main(_):
    config = CONFIG.value
    print(sys.argv[1], config.name, config.preset, config.seed, config.is_locked)
app.run(main)
"""


def start(*arguments, where, path=None):
    """A command with the flag --config, in a folder."""
    environment = {} if path is None else {"PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        cwd=where,
        env={"PYTHONPATH": str(ROOT), "PATH": ""} | environment,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folders as a wheel has them: the configs in the package."""
    site = tmp_path_factory.mktemp("site")
    (site / "memejax/configs").mkdir(parents=True)
    light = ("config", "command_line", "errors", "huge_pages", "lazy")
    files = ("__init__.py", *(f"{name}.py" for name in light))
    for file in (*files, "configs/__init__.py"):
        shutil.copy(ROOT / "memejax" / file, site / "memejax" / file)
    for path in (ROOT / "configs").glob("*.py"):
        shutil.copy(path, site / "memejax/configs")
    # Not ours, and not to be taken for ours.
    (site / "configs").mkdir()
    (site / "configs/common.py").write_text("raise ImportError('not this one')")
    return site


@pytest.mark.parametrize("where", ["checkout", "elsewhere", "installed", "mine"])
def test_the_flag_finds_configs(tmp_path, installed, where):
    """From the checkout's root, from another folder, as installed, and a user's own."""
    file, name = "configs/supervised.py", "supervised"
    if where == "mine":
        file, name = str(tmp_path / "mine.py"), "template"
        shutil.copy(ROOT / "configs/template.py", file)
    inside = ROOT if where == "checkout" else tmp_path
    path = installed if where in ("installed", "mine") else ROOT
    for asked in ([f"--config={file}:demo"], ["--config", f"{file}:demo"]):
        done = start(*asked, "--config.seed=3", where=inside, path=path)
        # The command line stays as it was typed.
        expected = f"{asked[0]} {name} demo 3 True"
        assert done.stdout.strip() == expected, done.stderr
    if where == "elsewhere":
        full = pathlib.Path(ROOT, file)
        assert start(f"--config={full}", where=inside).returncode == 0


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("configs/nowhere.py", "no config file configs/nowhere.py"),
        ("configs/supervised.py:big", "unknown preset 'big': choose one of ['demo'"),
        ("configs/supervised.py:demo,x=1", "unknown option 'x': choose one of ["),
    ],
)
def test_the_flag_says_in_one_line_what_is_wrong(tmp_path, flag, message):
    done = start(f"--config={flag}", where=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["cass", "dino", "supervised"])
def test_the_text_encoder_of_the_paper_is_chosen_by_name(name):
    words = load(name, "paper")
    assert words.model.text.name == "words" and "text" not in words.weights
    chosen = load(name, "paper,text=distilbert")
    assert chosen.model.text.name == "distilbert" and "text" in chosen.weights
    assert load(name, "full").model.text.name == "distilbert"
