"""Can roads be told by colour alone? A pixel-wise linear classifier on all eight bands against the
demo's networks.

    .venv/bin/python benchmarks/colour_baseline.py [--run demo]

Both go through the same vectorizer and judge, on the same held-out chips. The classifier gets every
advantage: all eight bands in full 16-bit depth and their logarithms, every training chip, and the
probability threshold that scores best on the training chips.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
import torch

from spacenet5_nb import apls, graph, raster, vectorize
from spacenet5_nb.core import open_run
from spacenet5_nb.explore import load_chips

warnings.filterwarnings("ignore", module="rasterio")


def features(path):
    "Reflectances of every pixel and their logarithms: (16, H*W)."
    image = raster.read(path).astype(np.float32)
    return np.concatenate([image / 1000, np.log1p(image)]).reshape(2 * len(image), -1), image.shape[
        1:
    ]


def fit(chips, run):
    "Balanced logistic regression by L-BFGS over a seeded sample of pixels of every training chip."
    rng, xs, ys = np.random.default_rng(0), [], []
    for chip in chips.itertuples():
        x, _ = features(chip.ps_ms)
        mask, _, names = raster.read_named(run.mask(chip.chip))
        y = mask[names.index("road")].ravel() > 127
        for label in (0, 1):
            pick = np.flatnonzero(y == label)
            pick = rng.choice(pick, min(2000, len(pick)), replace=False)
            xs.append(x[:, pick].T)
            ys.append(np.full(len(pick), label))
    x, y = torch.from_numpy(np.concatenate(xs)), torch.from_numpy(np.concatenate(ys)).float()
    mean, std = x.mean(0), x.std(0) + 1e-6
    layer = torch.nn.Linear(x.shape[1], 1)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            layer((x - mean) / std)[:, 0], y
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    return lambda f: (
        torch.sigmoid(layer((torch.from_numpy(f.T) - mean) / std)[:, 0]).detach().numpy()
    )


def length_score(chip, classify, threshold, preset):
    "APLS_length of one chip when pixels above `threshold` are road."
    f, shape = features(chip.ps_ms)
    grid, probs = raster.grid_of(chip.ps_ms), np.zeros((len(preset.channels), *shape), np.float32)
    # the vectorizer keeps its own threshold: probabilities are shifted so that both thresholds meet
    probs[preset.channels.road] = np.clip(
        classify(f).reshape(shape) - threshold + preset.vectorize.threshold, 0, 1
    )
    g = vectorize.vectorize(
        probs,
        transform=grid.transform,
        crs=grid.crs,
        config=preset.vectorize,
        channels=preset.channels,
    )
    return apls.apls(graph.from_labels(chip.label, crs=g.graph["crs"]), g, weight="length").score


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", default="demo")
    r = open_run(parser.parse_args().run, "demo")
    chips, scores = load_chips(r), pd.read_csv(r.need(r.scores_csv, "07_apls"))
    train, test = (
        chips[chips.split == "train"],
        chips[chips.chip.isin(scores[scores.trained_city].chip)],
    )
    classify = fit(train, r)
    sample = train.groupby("city").head(3)
    best = max(
        np.arange(0.3, 0.96, 0.05),
        key=lambda t: np.mean(
            [length_score(c, classify, t, r.preset) for c in sample.itertuples()]
        ),
    )
    colour = np.mean([length_score(c, classify, best, r.preset) for c in test.itertuples()])
    network = scores[scores.trained_city].apls_length.mean()
    print(f"held-out chips of trained cities: {len(test)}")
    print(
        f"APLS_length  colour alone {colour:.3f} (threshold {best:.2f})   networks "
        f"{network:.3f}   difference {network - colour:+.3f}   wanted >= 0.15"
    )


if __name__ == "__main__":
    main()
