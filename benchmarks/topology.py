"""What the topology losses cost: per 384 px crop on one core, forward and backward, beside the slow
routes; and over a batch in threads.

    python benchmarks/topology.py [--size 384] [--batch 4] [--repeat 5] [--threads 2]

Persistence is timed on three pictures: noise (the worst there is: every fifth pixel is born or
dies), a network's untrained output (smooth noise) and a street grid with gaps. The slow routes are
gudhi's general complex on the same ranks, and that complex asked for the cells of its pairs, as the
loss was first published. Milliseconds are CPU milliseconds of one thread, the least of the repeats,
taken in turn; those of a batch in threads are the clock's, and want an idle machine.
"""

import argparse
import time

import gudhi
import numpy as np
from scipy.ndimage import gaussian_filter

from spacenet5_nb import core  # noqa: F401  before torch
from spacenet5_nb.topology import (
    Vgg19,
    cldice_loss,
    perceptual_loss,
    persistence_loss,
    persistence_pairs,
)

import torch  # isort: skip


def streets(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "A grid of roads with gaps and soft edges as probabilities, and its truth."
    truth = np.zeros((size, size), np.float32)
    for at in rng.integers(10, size - 20, 6):
        truth[at : at + 13] = 1
    for at in rng.integers(10, size - 20, 6):
        truth[:, at : at + 13] = 1
    seen = truth.copy()
    for y, x in rng.integers(0, size - 12, (40, 2)):
        seen[y : y + 12, x : x + 12] = 0.2
    return np.clip(
        gaussian_filter(seen, 2) * 0.9 + 0.05 + rng.normal(0, 0.02, seen.shape), 0.01, 0.99
    ).astype(np.float32), truth


def pictures(size: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(0)
    seen, truth = streets(size, rng)
    noise = rng.standard_normal((size, size)).astype(np.float32)
    smooth = gaussian_filter(noise, 3)
    as_batch = lambda x: torch.from_numpy(np.ascontiguousarray(x))[None, None]
    return {
        "noise": (as_batch(noise), as_batch(truth)),
        "untrained": (as_batch(smooth / smooth.std()), as_batch(truth)),
        "streets": (torch.logit(as_batch(seen)), as_batch(truth)),
    }


def ranks(image: np.ndarray) -> np.ndarray:
    rank = np.empty(image.size)
    rank[np.argsort(image, axis=None)] = np.arange(image.size)
    return rank.reshape(image.shape)


def general_complex(image: np.ndarray) -> gudhi.CubicalComplex:
    cubes = gudhi.CubicalComplex(top_dimensional_cells=ranks(image))
    cubes.compute_persistence(min_persistence=0.0)
    return cubes


def milliseconds(ways: dict, repeat: int, clock=time.process_time) -> dict[str, float]:
    "The least of several turns."
    found = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            start = clock()
            way()
            found[name].append(1e3 * (clock() - start))
    return {name: min(v) for name, v in found.items()}


def backward(loss, logits: torch.Tensor, targets: torch.Tensor) -> None:
    torch.autograd.grad(loss(logits, targets), logits)


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--size", type=int, default=384)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--repeat", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.set_num_threads(1)
    one_core = lambda x, t: persistence_loss(x, t, threads=1)
    print(f"{a.size} x {a.size} px, one core, milliseconds")
    print(
        "picture | pairs | persistence, forward and backward | its pairs alone | "
        "general complex | with cofaces"
    )
    for name, (x, t) in pictures(a.size).items():
        x, image = x.requires_grad_(), 1 - x.detach().sigmoid()[0, 0].numpy()
        fast = milliseconds(
            {
                "loss": lambda x=x, t=t: backward(one_core, x, t),
                "pairs": lambda image=image: persistence_pairs(image),
            },
            a.repeat,
        )
        slow = milliseconds(
            {
                "general": lambda image=image: general_complex(image),
                "cofaces": lambda image=image: general_complex(
                    image
                ).cofaces_of_persistence_pairs(),
            },
            2,
        )
        print(
            f"{name} | {sum(map(len, persistence_pairs(image)))} | {fast['loss']:.1f} | "
            f"{fast['pairs']:.1f} | {slow['general']:.0f} | {slow['cofaces']:.0f}",
            flush=True,
        )
    x, t = pictures(a.size)["streets"]
    x, vgg = x.requires_grad_(), Vgg19(False)
    others = {
        "clDice": cldice_loss,
        "VGG19": lambda x, t: perceptual_loss(x, t, features=vgg),
        "VGG19, two layers": (lambda two: lambda x, t: perceptual_loss(x, t, features=two))(
            Vgg19(False, layers=2)
        ),
    }
    print(
        "streets, forward and backward: "
        + ", ".join(
            f"{k} {v:.0f}"
            for k, v in milliseconds(
                {k: (lambda f=f: backward(f, x, t)) for k, f in others.items()}, 2
            ).items()
        )
    )
    noisy, t = (v.expand(a.batch, -1, -1, -1) for v in pictures(a.size)["noise"])
    x = noisy.clone().requires_grad_()
    ways = {
        n: (lambda n=n: backward(lambda x, t: persistence_loss(x, t, threads=n), x, t))
        for n in (1, a.threads)
    }
    found = milliseconds(ways, a.repeat, time.perf_counter)
    print(
        f"batch of {a.batch}, noise: one thread {found[1]:.0f}, {a.threads} threads "
        f"{found[a.threads]:.0f}, {found[1] / found[a.threads]:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
