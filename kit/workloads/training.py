"""The trained two-stream network: its examples, its training, and what it can tell on clips that it has not seen.

A class is a texture together with a motion. Each stream is trained on it by itself (Simonyan & Zisserman 2014, section
3), so that nothing but its own input keeps it from naming the other stream's half; fused, their scores are averaged.
"""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kit import clips
from kit.clips.scenes import Float32
from kit.errors import KitError
from kit.executors.thread_counts import intra_op_threads
from kit.models import TwoStream
from kit.models.two_stream import TRAINED_SIZE, TRAINED_WEIGHTS, untrained
from kit.models.weights import save_weights
from kit.paths import check_writable
from kit.progress import progress_bar
from kit.reprs import one_line
from kit.workloads.recognition import HALVES, LENGTH, halves

CLASSES = tuple((texture, motion) for texture in clips.TEXTURES for motion in clips.MOTIONS)
HELD_OUT = 1_000_000  # seeds from here on are never trained on
STREAMS = ("spatial", "temporal", "fused")


@one_line
@dataclass(frozen=True)
class Recipe:
    """All that a training depends on, but for the versions of the libraries."""

    seed: int = 0
    clips: int = 4500  # to train on
    held_out: int = 900
    epochs: int = 12
    batch: int = 32
    learning_rate: float = 3e-3  # the highest of one cycle
    weight_decay: float = 0.05
    workers: int = 2  # processes that paint clips


@one_line
class Examples(NamedTuple):
    """Clips as a two-stream network sees them."""

    frames: Tensor  # (N, 3, S, S) float16
    flows: Tensor  # (N, 20, S, S) float16
    labels: Tensor  # (N,) int64, into CLASSES


class Share(NamedTuple):
    """So many right out of so many, with the 95% interval of Wilson (1927)."""

    right: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends, 0 to 1."""
        z, n, p = 1.959964, self.total, self.right / self.total
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.right / self.total:.1%} [{low:.1%}, {high:.1%}]"


@one_line
@dataclass(frozen=True, eq=False)
class Evaluation:
    """How often each stream names what."""

    confusions: dict[str, dict[str, NDArray[np.int64]]]  # stream -> texture or motion -> counts (true, told)
    joint: dict[str, Share]  # stream -> both at once

    def share(self, stream: str, half: str) -> Share:
        """How often a stream of STREAMS is right on "texture", "motion" or "joint"."""
        if half == "joint":
            return self.joint[stream]
        counts = self.confusions[stream][half]
        return Share(int(counts.trace()), int(counts.sum()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        shares = {
            stream: {
                half: share._asdict() | {"interval": [round(end, 4) for end in share.interval]}
                for half in (*HALVES, "joint")
                for share in [self.share(stream, half)]
            }
            for stream in STREAMS
        }
        counts = {s: {half: matrix.tolist() for half, matrix in by.items()} for s, by in self.confusions.items()}
        return {"accuracy": shares, "confusions": counts}


def examples(count: int, first_seed: int = HELD_OUT, *, workers: int = 1, progress: bool = False) -> Examples:
    """Labelled clips of consecutive seeds, class by class, as inputs at TRAINED_SIZE.

    Each is seen through a camera that its seed picks. ``workers`` above 1 paint in as many processes.
    """
    seeds = range(first_seed, first_seed + count)
    frames, flows = [], []
    with progress_bar(count, progress, "clips") as step:
        for i, (frame, flow) in enumerate(_painted(seeds, workers), start=1):
            frames.append(torch.from_numpy(frame).half())
            flows.append(torch.from_numpy(flow).half())
            step(i)
    labels = torch.tensor([seed % len(CLASSES) for seed in seeds])
    return Examples(torch.cat(frames), torch.cat(flows), labels)


def _painted(seeds: range, workers: int) -> Iterator[tuple[Float32, Float32]]:
    if workers == 1:
        yield from map(_example, seeds)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_example, seeds, chunksize=len(CLASSES))


def _example(seed: int) -> tuple[Float32, Float32]:
    dice = random.Random(seed)
    quality = dice.choice((None, 60, 80, 95))
    camera = clips.Camera(dice.uniform(0, 3), dice.randrange(2), dice.uniform(0, 6), quality)
    size = TRAINED_SIZE
    clip = clips.labelled(*CLASSES[seed % len(CLASSES)], LENGTH + 1, size, size, seed=seed, camera=camera)
    return clips.two_stream_inputs(clip, size=size, length=LENGTH)


def evaluate(model: TwoStream, on: Examples) -> Evaluation:
    """What each stream alone, and both fused by the model's merge, tell of examples."""
    branches = model.streams.branches
    with torch.inference_mode():
        alone = [_scores(branches[name], x) for name, x in (("spatial", on.frames), ("temporal", on.flows))]
        scores = dict(zip(STREAMS, [*alone, model.streams.merge(alone)], strict=True))
    confusions: dict[str, dict[str, NDArray[np.int64]]] = {}
    for stream, values in scores.items():
        confusions[stream] = {}
        true = torch.unravel_index(on.labels, tuple(len(names) for names in HALVES.values()))
        for (half, names), here, odds in zip(HALVES.items(), true, halves(values), strict=True):
            pairs = (here * len(names) + odds.argmax(1)).numpy()
            confusions[stream][half] = np.bincount(pairs, minlength=len(names) ** 2).reshape(len(names), -1)
    joint = {s: Share(int((values.argmax(1) == on.labels).sum()), len(on.labels)) for s, values in scores.items()}
    return Evaluation(confusions, joint)


def _scores(stream: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([stream(part.float()) for part in torch.split(x, 128)])


def train(recipe: Recipe, weights: Path = TRAINED_WEIGHTS, *, progress: bool = False) -> Evaluation:
    """Train the network of :func:`kit.models.trained_two_stream`; writes its weights, and the recipe beside them.

    The recipe's file, ``.json``, holds what the training depends on, its curve, and the evaluation on held-out clips.

    Raises:
        UnavailableError: OpenCV, scikit-image or safetensors is not installed.
        KitError: the weights or the recipe cannot be written there, which is looked at first.
    """
    about_path = weights.with_suffix(".json")
    if about_path == weights:
        raise KitError(
            f"{weights} would be overwritten by the recipe's .json file: give the weights a name that ends in "
            ".safetensors."
        )
    for path in (weights, about_path):
        check_writable(path, make_folder=True)
    with intra_op_threads(1):  # a thread for each stream: no time lost between them, and sums in one order
        seen = examples(recipe.clips, recipe.seed, workers=recipe.workers, progress=progress)
        held_out = examples(recipe.held_out, workers=recipe.workers, progress=progress)
        model = untrained(recipe.seed)
        branches = model.streams.branches
        inputs = {"spatial": seen.frames, "temporal": seen.flows}
        with progress_bar(2 * recipe.epochs, progress, "epochs") as step, ThreadPoolExecutor(2) as pool:
            fits = {name: pool.submit(_fit, branches[name], x, seen.labels, recipe, step) for name, x in inputs.items()}
            curve = {name: fit.result() for name, fit in fits.items()}
        model.eval()
        result = evaluate(model, held_out)
    libraries = ("torch", "numpy", "cv2", "skimage")
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "recipe": asdict(recipe),
        "versions": {name: importlib.import_module(name).__version__ for name in libraries},
        "loss": curve,
        **result.to_dict(),
    }
    text = json.dumps(about, indent=1) + "\n"
    save_weights(model, weights)
    about_path.write_text(text)
    return result


def _fit(stream: nn.Module, x: Tensor, labels: Tensor, recipe: Recipe, step: Callable[[int], None]) -> list[float]:
    """Train one stream by itself; the mean loss of each epoch."""
    order = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(stream.parameters(), weight_decay=recipe.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, epochs=recipe.epochs, steps_per_epoch=math.ceil(len(x) / recipe.batch)
    )
    stream.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    losses = []
    for epoch in range(recipe.epochs):
        total = 0.0
        for batch in torch.split(torch.randperm(len(x), generator=order), recipe.batch):
            inputs = x[batch].float().contiguous(memory_format=torch.channels_last)
            loss = cross_entropy(stream(inputs), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cycle.step()
            total += loss.item() * len(batch)
        losses.append(round(total / len(x), 4))
        step(epoch + 1)
    return losses
