"""Does the loader keep the device busy? Samples per second of the loader, by worker processes,
beside the training step's.

    .venv/bin/python benchmarks/loader.py [--encoder test_resnet dpn92] [--crop 384] [--batch 10]
        [--workers 0 1 2] [--device cuda]

Chips of 1300 x 1300 px and eight bands are generated, so that windows and strides are the real
ones. The first table has each part of a sample alone; the last one the loader's share: below 1 the
step waits for nothing. A loader without worker processes takes its time from the step's own core.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import affine
import numpy as np
import pandas as pd
import torch
from rasterio.crs import CRS
from torch.utils.data import DataLoader

from spacenet5_nb import raster
from spacenet5_nb.core import Channels, load_preset
from spacenet5_nb.losses import ComboLoss
from spacenet5_nb.model import RoadUNet, find_device, set_threads
from spacenet5_nb.training.dataset import (
    EpochSampler,
    RoadDataset,
    augment,
    place_crop,
    read_window,
    unpack_target,
)

CHANNELS = Channels.selim_sef()


def make_chips(folder, n, size=1300):
    "Noise with the layout of real chips; what is in it makes no difference to a loader."
    rows, grid = (
        [],
        raster.Grid((size, size), affine.Affine(0.3, 0, 5e5, 0, -0.3, 4e6), CRS.from_epsg(32611)),
    )
    for k in range(n):
        rng = np.random.default_rng(k)
        mask = np.zeros((12, size, size), np.uint8)
        mask[10, ::40] = mask[4, ::40] = 255
        raster.write(
            folder / f"c{k}.tif",
            rng.integers(100, 900, (8, size, size)).astype(np.uint16),
            grid=grid,
        )
        raster.write(folder / f"m{k}.tif", mask, grid=grid, descriptions=CHANNELS.names)
        rows.append(
            dict(
                chip=f"c{k}",
                city="A",
                image=str(folder / f"c{k}.tif"),
                mask=str(folder / f"m{k}.tif"),
            )
        )
    return pd.DataFrame(rows)


def parts_of_a_sample(data, n=40):
    "Milliseconds for cutting the window, for the whole chip instead, and for the augmentation."
    times = {"window": [], "whole chip": [], "augmentation": []}
    for seed in range(n):
        rng = np.random.default_rng(seed)
        image, mask = (
            np.load(data.images[seed % len(data)], mmap_mode="r"),
            np.load(data.masks[seed % len(data)], mmap_mode="r"),
        )
        where = place_crop(rng, image.shape[1:], data.crop)
        t = [time.perf_counter()]
        i, m = (np.ascontiguousarray(read_window(a, *where)) for a in (image, mask))
        t.append(time.perf_counter())
        np.array(image), np.array(mask)
        t.append(time.perf_counter())
        augment(data.augmentation, i, m, seed)
        t.append(time.perf_counter())
        for name, a, b in zip(times, t, t[1:], strict=False):
            times[name].append(1000 * (b - a))
    return {name: median(v) for name, v in times.items()}


def loader_rate(data, batch, workers, seconds):
    "Samples a second once the workers have started."
    loader, count = (
        DataLoader(
            data,
            batch,
            sampler=EpochSampler(data.cities, 100000, seed=0),
            num_workers=workers,
            drop_last=True,
        ),
        0,
    )
    batches = iter(loader)
    for _ in range(2 * max(workers, 1)):
        next(batches)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += len(next(batches)[0])
    return count / (time.perf_counter() - start)


def step_rate(encoder, data, batch, device, seconds):
    "Samples a second of forward, backward and update on one batch that is there already."
    norm, widths = (
        ("batch", (48, 32, 24, 16))
        if encoder.startswith("test_")
        else ("none", (256, 256, 128, 64))
    )
    net = (
        RoadUNet(encoder, 8, 12, decoder=widths, norm=norm)
        .to(device, memory_format=torch.channels_last)
        .train()
    )
    loss, optimizer = (
        ComboLoss(load_preset("faithful").loss, channels=CHANNELS),
        torch.optim.Adam(net.parameters(), lr=1e-4),
    )
    images, planes = (
        t.to(device)
        for t in next(
            iter(DataLoader(data, batch, sampler=EpochSampler(data.cities, batch, seed=0)))
        )
    )

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss(
                net(net.prepare(images).contiguous(memory_format=torch.channels_last)),
                unpack_target(planes, CHANNELS.names),
            ).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    start, n = time.perf_counter(), 0
    while n == 0 or time.perf_counter() - start < seconds:
        step()
        n += 1
    return n * batch / (time.perf_counter() - start)


def main():
    ask = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    ask.add_argument("--encoder", nargs="+", default=["test_resnet", "dpn92"])
    ask.add_argument("--crop", type=int, default=384)
    ask.add_argument("--batch", type=int, default=4)
    ask.add_argument("--chips", type=int, default=6)
    ask.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    ask.add_argument("--seconds", type=float, default=8)
    ask.add_argument("--device", default="auto")
    a = ask.parse_args()
    device = find_device(a.device)
    set_threads()
    with tempfile.TemporaryDirectory() as d:
        data = RoadDataset(
            make_chips(Path(d), a.chips), 8, CHANNELS.names, crop=a.crop, cache=Path(d) / "cache"
        )
        print(
            f"8 bands, crops of {a.crop} px, batch {a.batch}, {torch.get_num_threads()} "
            f"threads, {device}"
        )
        print(
            "one sample, ms:",
            ", ".join(f"{name} {ms:.1f}" for name, ms in parts_of_a_sample(data).items()),
        )
        rates = {w: loader_rate(data, a.batch, w, a.seconds) for w in a.workers}
        print("loader, samples/s:", ", ".join(f"{w} workers {r:.0f}" for w, r in rates.items()))
        for encoder in a.encoder:
            step = step_rate(encoder, data, a.batch, device, a.seconds)
            print(
                f"step of {encoder}: {step:.1f} samples/s; step / loader:",
                ", ".join(f"{w} workers {step / r:.2f}" for w, r in rates.items()),
            )


if __name__ == "__main__":
    main()
