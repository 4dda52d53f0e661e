"""What `spacenet5 extract` takes by each engine (`ensemble.engine`), on a real chip and on an image
laid out of several: seconds of processors and peak memory of fresh processes in turns.

    .venv/bin/python benchmarks/extract_engines.py ../shared/data/spacenet3_vegas/AOI_2_Vegas/PS-RGB
        [--sides 1300 5000] [--rounds 1] [--engines torch openvino auto] [--tta flips]

One thread, the members that come with the workspace, map included. Probabilities of each engine are
compared with the first one's, in 255ths, and so is the length of the roads.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from startup import COMMAND, spent_by

from spacenet5_nb import graph, raster


def laid_out(folder: Path, side: int, out: Path) -> Path:
    "An image of a folder's chips, row by row and again from the first, cut to a side."
    chips = sorted(folder.glob("*.tif"))
    grid = max((raster.grid_of(chip) for chip in chips), key=lambda grid: grid.shape)
    px = grid.shape[0]
    chips = [chip for chip in chips if raster.grid_of(chip).shape == grid.shape]
    image = np.zeros((3, side, side), np.uint16)
    places = itertools.product(range(0, side, px), range(0, side, px))
    for (y, x), chip in zip(places, itertools.cycle(chips), strict=False):
        there = image[:, y : y + px, x : x + px]
        there[:] = raster.read(chip)[:3, : there.shape[1], : there.shape[2]]
    return raster.write(out, image, grid=raster.Grid((side, side), grid.transform, grid.crs))


def preset(folder: Path, engine: str, tta: str) -> Path:
    path = folder / f"{engine}.yaml"
    path.write_text(f"base: world\nname: {engine}\nensemble: {{engine: {engine}, tta: {tta}}}\n")
    return path


def main() -> None:
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ask.add_argument("chips", type=Path)
    ask.add_argument("--sides", type=int, nargs="+", default=[1300, 5000])
    ask.add_argument("--rounds", type=int, default=1)
    ask.add_argument("--engines", nargs="+", default=["torch", "openvino", "auto"])
    ask.add_argument("--tta", default="flips")
    a = ask.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", SPACENET5_THREADS="1", SPACENET5_WORKERS="1")
    print("| side | engine | seconds of processors | peak, GB | differs by, 255ths | roads, km |")
    print("|---|---|---|---|---|---|")
    for side in a.sides:
        with tempfile.TemporaryDirectory() as name:
            measure(side, a, Path(name))


def measure(side: int, a: argparse.Namespace, folder: Path) -> None:
    image = laid_out(a.chips, side, folder / "image.tif")
    found = {e: [] for e in a.engines}
    for k, e in itertools.product(range(a.rounds), a.engines):
        out = folder / f"{e}_{k}.gpkg"
        how = ["--members", "world", "--preset", preset(folder, e, a.tta), "--out", out]
        found[e].append(spent_by(sys.executable, ["-c", COMMAND, "extract", image, *how]))
    first = None
    for e, spent in found.items():
        probs = raster.read(folder / f"{e}_0_probs.tif").astype(int)
        first = probs if first is None else first
        km = sum(d["length"] for *_, d in graph.read(folder / f"{e}_0.gpkg").edges(data=True)) / 1e3
        seconds, peak = (statistics.median(s) for s in zip(*spent, strict=True))
        off = np.abs(probs - first).max()
        print(f"| {side} | {e} | {seconds:.1f} | {peak:.1f} | {off} | {km:.2f} |", flush=True)


if __name__ == "__main__":
    main()
