"""Captions read off pictures by RapidOCR (the extra `ocr`), kept by their digests.

RapidOCR's models are in its wheel: nothing is downloaded. A picture is read once; its
lines are kept in a file, by the SHA-256 of the picture's bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import pathlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from memejax import user_cache
from memejax.data import images
from memejax.errors import UserError

PACKAGES = ("rapidocr", "onnxruntime")
# Boxes are of one line if their middles are closer than this share of the lower one.
SAME_LINE = 0.5


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of words.

    Attributes:
        text: its words.
        confidence: the reader's, in [0, 1]; the lowest of its boxes.
    """

    text: str
    confidence: float


@dataclasses.dataclass(frozen=True)
class Reading:
    """The words on a picture.

    Attributes:
        lines: in reading order; empty if there are no words.
    """

    lines: tuple[Line, ...]

    @property
    def caption(self) -> str:
        """The words of all lines, separated by spaces."""
        return " ".join(line.text for line in self.lines)

    @property
    def confidence(self) -> float:
        """The lowest confidence of a line; 1 without words."""
        return min((line.confidence for line in self.lines), default=1.0)


def default_cache() -> pathlib.Path:
    """Return the user's file of pictures read before."""
    return user_cache.folder() / "captions.jsonl"


class CaptionReader:
    """Reader of captions, whose models are loaded at the first picture.

    It may be used by several threads; they take turns.
    """

    def __init__(
        self,
        *,
        cache: str | os.PathLike[str] | None = None,
        threads: int = 0,
        say: Callable[[str], None] = print,
    ):
        """Make the reader.

        Args:
            cache: JSON lines of pictures read before, made if missing; those of another
                version of RapidOCR are not used. None: nothing is kept.
            threads: of the CPU for one picture; 0: all.
            say: called with a line if the cache cannot be written.
        """
        self._version = _version()
        self._threads, self._say = threads, say
        self._engine: Any = None
        self._lock = threading.Lock()
        self._path = None if cache is None else pathlib.Path(cache)
        self._known = (
            {} if self._path is None else _load_cache(self._path, self._version)
        )

    def read(
        self, picture: images.Picture, *, max_pixels: int = images.MAX_PIXELS
    ) -> Reading:
        """Read the words on a picture.

        Args:
            picture: path of a picture, or the content of its file.
            max_pixels: the largest width x height allowed.

        Raises:
            images.ImageError: if it is no picture, or too large.
            UserError: if RapidOCR is not installed.
        """
        content = picture if isinstance(picture, bytes) else images.read_bytes(picture)
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            if digest not in self._known:
                pixels = _load_pixels(picture, content, max_pixels)
                self._known[digest] = self._recognize(pixels)
                self._keep(digest)
            return self._known[digest]

    def _recognize(self, pixels: np.ndarray) -> Reading:
        if self._engine is None:
            self._engine = _engine(self._threads)
        # As OpenCV has them: blue, green, red.
        found = self._engine(np.ascontiguousarray(pixels[..., ::-1]))
        if found.boxes is None:
            return Reading(())
        boxes = np.asarray(found.boxes, float)
        return Reading(
            tuple(
                Line(
                    " ".join(found.txts[i].strip() for i in row),
                    float(min(found.scores[i] for i in row)),
                )
                for row in reading_order(boxes)
            )
        )

    def _keep(self, digest: str) -> None:
        if self._path is None:
            return
        lines = [[line.text, line.confidence] for line in self._known[digest].lines]
        row = {"sha256": digest, "reader": self._version, "lines": lines}
        try:
            _append(self._path, json.dumps(row, ensure_ascii=False).encode())
        except OSError as error:
            # A home that may not be written costs time on the next start, no more.
            self._say(f"captions that are read are not kept: {error}")
            self._path = None


def _append(path: pathlib.Path, line: bytes) -> None:
    """Append a line to a file, whose last one may have been cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(line + b"\n")


def reading_order(boxes: np.ndarray) -> list[list[int]]:
    """Put boxes into lines from top to bottom, each from left to right.

    Args:
        boxes: corners, `[n, 4, 2]`, x and y in pixels.

    Returns:
        The boxes' numbers, line by line.
    """
    top, bottom = boxes[:, :, 1].min(axis=1), boxes[:, :, 1].max(axis=1)
    middle, left = (top + bottom) / 2, boxes[:, :, 0].min(axis=1)
    lines: list[list[int]] = []
    for i in np.argsort(middle, kind="stable").tolist():
        if lines:
            last = lines[-1]
            height = min(bottom[i] - top[i], min(bottom[j] - top[j] for j in last))
            if middle[i] - np.mean(middle[last]) < SAME_LINE * height:
                last.append(i)
                continue
        lines.append([i])
    return [sorted(line, key=lambda i: left[i]) for line in lines]


def common_words(read: str, given: str) -> tuple[int, int, int]:
    """Count words, case and punctuation aside: common ones, those read, those given."""
    sides: Sequence[dict[str, int]] = ({}, {})
    for counts, words in zip(sides, (read, given), strict=True):
        kept = "".join(c if c.isalnum() or c.isspace() else " " for c in words.lower())
        for word in kept.split():
            counts[word] = counts.get(word, 0) + 1
    one, other = sides
    common = sum(min(n, other.get(word, 0)) for word, n in one.items())
    return common, sum(one.values()), sum(other.values())


def _load_pixels(
    picture: images.Picture, content: bytes, max_pixels: int
) -> np.ndarray:
    """Decode a picture's content; an error names its path."""
    try:
        return images.load(content, max_pixels=max_pixels)
    except images.ImageError as error:
        if isinstance(picture, bytes):
            raise
        raise images.ImageError(picture, error.reason) from error


def _version() -> str | None:
    """Return RapidOCR's version; None if it, or what runs it, is not installed."""
    if any(importlib.util.find_spec(name) is None for name in PACKAGES):
        return None
    return f"rapidocr {importlib.metadata.version('rapidocr')}"


def _engine(threads: int) -> Any:
    if _version() is None:
        raise UserError(
            f"reading captions off pictures takes {' and '.join(PACKAGES)}: pip "
            "install 'memejax[ocr]', or give the captions"
        )
    from rapidocr import RapidOCR

    # It logs every model that it loads, and a warning for every picture without words.
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    options: dict[str, Any] = {"Global.log_level": "error"}
    if threads:
        options["EngineConfig.onnxruntime.intra_op_num_threads"] = threads
    return RapidOCR(params=options)


def _load_cache(path: pathlib.Path, version: str | None) -> dict[str, Reading]:
    """Return the pictures read before; a last line cut short is left out."""
    known: dict[str, Reading] = {}
    if not path.exists():
        return known
    for row in path.read_text("utf-8").splitlines():
        try:
            found = json.loads(row)
        except json.JSONDecodeError:
            continue
        if found["reader"] == version:
            lines = tuple(Line(text, score) for text, score in found["lines"])
            known[found["sha256"]] = Reading(lines)
    return known
