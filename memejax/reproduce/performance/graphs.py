"""Table 7: training graph networks, with the detector and the encoders apart."""

from __future__ import annotations

import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from memejax import logs, parallel
from memejax.bench import detector as bench_detector
from memejax.bench import usage
from memejax.config import load_config
from memejax.data import hateful_memes, images, synthetic_memes
from memejax.extract import cutting, extract
from memejax.extract.detector import TRAINED_EPS, Detector, load_detector, mask_rcnn
from memejax.extract.encoders import make_encoders
from memejax.extract.sources import find_source
from memejax.reproduce.performance import published
from memejax.reproduce.performance.parts import Measured, clock, machine, share
from memejax.stages import graph
from memejax.weights.maskrcnn import maskrcnn_variables

COLUMNS = (
    "network",
    "detector, once",
    "encoders, once",
    "network, per epoch",
    "20 epochs on stored features",
    "20 epochs, features computed in each",
    "cores",
    "memory",
    "published 20 epochs",
    "published cores",
    "published memory",
)
_TITLES = {"gcn": "GCN", "gat": "GAT", "sage": "GraphSAGE"}
# Memes that are timed: in the detector, the encoders, the graph network.
_TIMED = {"demo": (2, 32, 256), "full": (64, 256, 4096), "paper": (64, 256, 4096)}
# Pixels of the detector's resized pictures; torchvision's, but for the demo.
_DEMO_SIDES = {"extract.min_side": 320, "extract.max_side": 320}


def measure(
    preset: str, *, root: str | None = None, weights: str | None = None
) -> dict[str, Any]:
    """Time the detector, the encoders and each network, all compiled and warm.

    Args:
        preset: "demo" (small encoders, a smaller picture for the detector), "full" or
            "paper".
        root: folder of memes; None: built-in ones.
        weights: file of torchvision's Mask R-CNN; None: random weights, which take as
            long.

    Returns:
        JSON: seconds per meme of the detector and of the encoders, and for each network
        seconds per meme and epoch, with the figures of `usage.Watch`.
    """
    of_detector, of_encoders, of_network = _TIMED[preset]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        config = _config(preset, root, folder, memes=of_network)
        memes = hateful_memes.read(config.data.root).splits["train"]
        logs.say(f"table7: the detector on {of_detector} memes")
        detector = _detector_seconds(config, memes[:of_detector], weights)
        logs.say(f"table7: the encoders on {of_encoders} memes and their entities")
        encoders = _encoder_seconds(config, memes[:of_encoders], folder)
        config.features = str(folder / "store")
        extract(config, config.features)
        networks = {}
        for name in _TITLES:
            logs.say(f"table7: an epoch of {name}, after one to warm up")
            networks[name] = _network_seconds(config, name, folder)
        device = jax.local_devices()[0]
        return {
            "preset": preset,
            "root": root,
            "timed memes": [len(memes[:of_detector]), len(memes[:of_encoders])],
            "detector side": config.extract.min_side,
            "random detector": weights is None,
            "platform": device.platform,
            "device": device.device_kind,
            "devices": len(jax.local_devices()),
            "detector seconds per meme": detector,
            "encoder seconds per meme": encoders,
            "networks": networks,
        }


def _config(
    preset: str, root: str | None, folder: pathlib.Path, *, memes: int
) -> ConfigDict:
    """Config of graphs of stored features of these memes, by random encoders."""
    config = load_config(f"configs/graph.py:{preset}").unlock()
    if root is None:
        root = str(folder / "memes")
        synthetic_memes.write(
            root, train=memes, dev=16, test=16, size=config.data.image_size
        )
    config.data.root = root
    config.data.dev = "dev_seen"
    # The entities of the store are tiles: as many nodes, whatever the detector finds.
    changes = {
        "extract.allow_random": True,
        "extract.entities": "grid",
        "extract.crop": "box",
        "extract.masks": False,
        "extract.box_features": False,
    }
    changes |= _DEMO_SIDES if preset == "demo" else {}
    config.update_from_flattened_dict(changes)
    return config


def _warm_seconds(run: Callable[[], Any]) -> float:
    """Seconds of a call, after one to compile."""
    run()
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _detector_seconds(
    config: ConfigDict, memes: list[hateful_memes.Meme], weights: str | None
) -> float:
    c = config.extract
    if weights is None:
        sizes = {"classes": bench_detector.CLASSES, "norm_eps": TRAINED_EPS}
        tensors = bench_detector.random_tensors(bench_detector.shapes())
        detector = Detector(maskrcnn_variables(tensors, sizes=sizes), sizes)
    else:
        detector = load_detector(weights)
    finder = mask_rcnn(
        detector,
        most=c.k,
        score=c.score,
        min_side=c.min_side,
        max_side=c.max_side,
        masks=True,
        mesh=parallel.mesh(1),
        batch=min(c.detector_batch, len(memes)),
    )
    pictures = [
        cutting.read_picture(meme.image, max_pixels=config.data.max_pixels)[0]
        for meme in memes
    ]
    return _warm_seconds(lambda: finder.find(pictures)) / len(memes)


def _encoder_seconds(
    config: ConfigDict, memes: list[hateful_memes.Meme], folder: pathlib.Path
) -> float:
    """Seconds per meme for its picture, its k entities and its caption."""
    captions = [meme.text for meme in memes]
    source = find_source(config, captions=captions, folder=folder)
    encoders = make_encoders(source, mesh=parallel.mesh(1), batch=config.extract.batch)
    squares, _, _ = images.decode_all(
        [meme.image for meme in memes], size=encoders.size, resize=encoders.resize
    )
    several = np.concatenate([squares] * (1 + config.extract.k))

    def run() -> None:
        encoders.image(several)
        encoders.text(captions)

    return _warm_seconds(run) / len(memes)


def _network_seconds(
    config: ConfigDict, name: str, folder: pathlib.Path
) -> dict[str, Any]:
    """Seconds per meme and epoch of a network on stored features, and usage."""
    config = config.copy_and_resolve_references()
    config.graph.network = name
    if config.preset == "paper" and name == "sage":
        config.graph.optimizer.groups.all.lr = 0.01
    data, mesh = graph.load(config, folder), graph.devices(config)
    n = len(data.splits["train"].ids)
    steps = max(1, n // config.graph.batch)
    # As many epochs as take a second or so; the plan's stretches are equally long.
    repeats = 8
    config.graph.epochs = float(repeats * steps * config.graph.batch / n)
    config.graph.eval_every = config.checkpoint.every = config.log.every = steps
    config.graph.optimizer.warmup = 0
    stage = graph.make(config, data, seed=0, mesh=mesh)
    state, chunks = stage.init(), stage.feeder.chunks(0)
    state, metrics = stage.run_chunk(state, next(chunks)[1])
    jax.block_until_ready(metrics)
    with usage.Watch(every=0.05) as watch:
        began, done = time.perf_counter(), 0
        for count, chunk in chunks:
            state, metrics = stage.run_chunk(state, chunk)
            done += count
        jax.block_until_ready((state, metrics))
        seconds = time.perf_counter() - began
    return {
        "seconds per meme": seconds / (done * config.graph.batch),
        "batch": config.graph.batch,
        "device bytes": usage.device_bytes(list(mesh.devices.flat)),
        **watch.figures,
    }


def tabulate(figures: Mapping[str, Any]) -> Measured:
    """Make the table of `measure`'s figures."""
    n, epochs = published.GRAPH_MEMES, published.GRAPH_EPOCHS
    detector = n * figures["detector seconds per meme"]
    encoders = n * figures["encoder seconds per meme"]
    rows = []
    for name, one in figures["networks"].items():
        epoch = n * one["seconds per meme"]
        hours, minutes = published.GRAPH_HOURS[name]
        rows.append(
            [
                _TITLES[name],
                clock(detector),
                clock(encoders),
                clock(epoch),
                clock(detector + encoders + epochs * epoch),
                clock(epochs * (detector + encoders + epoch)),
                *_utilisation(figures, one),
                f"{hours} h {minutes} min",
                share(published.GRAPH_CORE),
                share(published.GRAPH_MEMORY),
            ]
        )
    of_detector, of_encoders = figures["timed memes"]
    notes = [
        f"All times are for {n:,} memes, the published number, from warm calls on "
        f"{of_detector} memes for the detector, {of_encoders} for the encoders (a "
        "picture, ten entities, a caption each), and whole epochs for the network.",
        "Published: detector and encoders ran in every step, and the encoders were "
        "trained; features computed in each epoch are without that backward pass "
        "(configs/graph.py:kind=trained trains them). The published hours are what a "
        "progress bar had taken or still expected, not a whole run.",
        "Cores and memory: while the network trains on stored features.",
    ]
    if figures["random detector"]:
        notes.append("The detector has random weights, which take as long.")
    if figures["preset"] == "demo":
        notes.append(
            "Preset demo: small encoders, and pictures of "
            f"{figures['detector side']} pixels for the detector; not comparable with "
            "the published hours."
        )
    if figures["platform"] == "cpu":
        notes.append(
            f"On {os.cpu_count()} CPU cores; the published shares are a GPU's, and "
            "nothing here is comparable with them."
        )
    memes = "built-in memes" if figures["root"] is None else figures["root"]
    return Measured(
        name="table7",
        title=published.TITLES["table7"],
        preset=figures["preset"],
        protocol=f"warm times on {memes}, one {figures['device']} device",
        columns=COLUMNS,
        rows=rows,
        figures=figures,
        machine=machine(),
        notes=notes,
    )


def _utilisation(figures: Mapping[str, Any], one: Mapping[str, Any]) -> tuple[str, str]:
    if figures["platform"] == "cpu":
        of = "of the machine"
        return (
            f"{share(one['core utilisation'])} {of}",
            f"{share(one['memory utilisation'])} {of}",
        )
    (card, *_), (held, *_) = one["gpus"], one["device bytes"]
    used = None if held is None else held / card["total"]
    return share(card["utilisation"]), share(used)
