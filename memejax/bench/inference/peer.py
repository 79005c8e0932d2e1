"""The peer: transformers' encoders on PyTorch behind a DataLoader of the same files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from memejax.bench.inference.problem import MEAN, STD, Problem
from memejax.bench.train_step import peer_networks


class Memes(Dataset):
    """Pictures, decoded and resized, with their captions."""

    def __init__(self, given: Problem):
        """Keep the names of the files."""
        self._paths, self._captions = given.paths, given.captions
        self._side = given.networks.pixels

    def __len__(self) -> int:
        """Number of memes."""
        return len(self._captions)

    def __getitem__(self, index: int) -> tuple[torch.Tensor | None, str]:
        """Return a picture, uint8 [3, s, s], and a caption."""
        if not self._paths:
            return None, self._captions[index]
        with Image.open(self._paths[index]) as image:
            size = (self._side, self._side)
            picture = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return pixels, self._captions[index]


class Features(torch.nn.Module):
    """The encoders of a case: a batch to features."""

    def __init__(self, given: Problem):
        """Make them with random parameters."""
        super().__init__()
        kinds = [kind for kind in (given.image, "text") if kind is not None]
        if not given.paths:
            kinds = ["text"]
        self.encoders = torch.nn.ModuleList(
            [peer_networks.Encoder(given.networks, kind) for kind in kinds]
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Map a batch to [b, d] of each encoder."""
        return [encoder(batch) for encoder in self.encoders]


class Scores(peer_networks.Labels):
    """Both arms: a batch to P(hateful)."""

    def forward(self, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Map a batch to [b]."""
        return [torch.sigmoid(torch.cat([self.cnn(batch), self.vit(batch)], 1).float())]


class Runner:
    """A case in PyTorch.

    Attributes:
        parameters: number of parameters of its networks.
        workers: processes that decode.
        threads: of the products.
    """

    def __init__(self, given: Problem, *, compiled: bool):
        """Make the networks with random parameters.

        Args:
            given: the case.
            compiled: whether by `torch.compile`.
        """
        torch.manual_seed(0)
        network = Scores(given.networks) if given.scores else Features(given)
        network = network.eval().to(memory_format=torch.channels_last)
        self.parameters = sum(p.numel() for p in network.parameters())
        self._network: Any = torch.compile(network) if compiled else network
        self._given = given
        self._half = given.networks.dtype == "bfloat16"
        self._loader: DataLoader | None = None
        self._mean, self._std = (
            torch.tensor(values)[:, None, None] for values in (MEAN, STD)
        )
        self.workers, self.threads = 0, torch.get_num_threads()

    def run(self) -> float:
        """Go through all memes once; return memes per second."""
        began = time.perf_counter()
        found = 0
        with torch.inference_mode():
            for batch in self._batches():
                with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
                    values = [x.float().numpy() for x in self._network(batch)]
                found += len(values[0])
        seconds = time.perf_counter() - began
        if found != len(self._given.captions):
            raise ValueError(f"got {found} results of {len(self._given.captions)}")
        return found / seconds

    def choose(self) -> tuple[int, int]:
        """Set the fastest numbers of worker processes and threads, and return both."""
        cores = os.cpu_count() or 1
        pairs = [(0, cores), (cores, 1), (cores, cores)]
        if not self._given.paths:
            pairs = [(0, 1), (0, cores)]
        speeds = {}
        for pair in pairs:
            self.use(*pair)
            self.run()
            speeds[pair] = self.run()
        best = max(speeds, key=lambda pair: speeds[pair])
        self.use(*best)
        return best

    def use(self, workers: int, threads: int) -> None:
        """Set the numbers of worker processes, which decode, and of threads."""
        torch.set_num_threads(threads)
        self.workers, self.threads = workers, threads
        self._loader = DataLoader(
            Memes(self._given),
            batch_size=self._given.batch,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_Collate(self._given),
        )

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        if self._loader is None:
            self.use(self.workers, self.threads)
        for batch in self._loader or ():
            if "image" in batch:
                pixels = (batch["image"].float() / 255 - self._mean) / self._std
                batch["image"] = pixels.contiguous(memory_format=torch.channels_last)
            yield batch


class _Collate:
    """Batches of memes, captions padded to the longest of the batch."""

    def __init__(self, given: Problem):
        self._tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=given.tokenizer, pad_token="[PAD]"
        )
        self._length = given.networks.tokens

    def __call__(self, memes: list[tuple[torch.Tensor | None, str]]) -> Any:
        pictures, captions = zip(*memes, strict=True)
        tokens = self._tokenizer(
            list(captions),
            padding="longest",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        batch = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        if pictures[0] is not None:
            batch["image"] = torch.stack(pictures)
        return batch
