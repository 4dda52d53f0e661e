"""Speed of vectorizing beside scikit-image's `skeletonize` alone and with sknw's graph of it, chip
and mosaic in one run; with --raster also a raster on disk in windows.

    .venv/bin/python benchmarks/vectorize.py [--repeat 7] [--preset best] [--raster 20000]

Needs the reference samples ($SPACENET5_SHARED or ../shared). One core, CPU seconds. The yardstick
thins the chip's mask above the threshold, cleaned of specks and holes, which is what ours thins
too. The mosaic is 16 chips on 5200 x 5200 pixels. Whatever else the machine does falls on both
alike: the ratio is the median of interleaved pairs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GDAL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # one core each

import numpy as np  # noqa: E402, I001
from spacenet5_nb.core import Channels, SpeedConfig, VectorizeConfig, section  # noqa: E402  (before rasterio)
import rasterio  # noqa: E402
from affine import Affine  # noqa: E402
from rasterio.windows import Window  # noqa: E402
import sknw  # noqa: E402
from skimage.morphology import skeletonize  # noqa: E402

from spacenet5_nb import speed, vectorize  # noqa: E402
from spacenet5_nb.base import kernels  # noqa: E402
from spacenet5_nb.roads import skeleton  # noqa: E402
from spacenet5_nb.roads.graph_edits import to_road_graph  # noqa: E402

SHARED = Path(
    os.environ.get("SPACENET5_SHARED") or Path(__file__).resolve().parents[1] / "../shared"
)
SELIM = Channels.selim_sef()


def chips() -> dict[str, tuple[np.ndarray, dict]]:
    "Noisy probabilities of real roads, and where they lie."
    places = json.loads((SHARED / "reference/vectorize/reference.json").read_text())
    out = {}
    for path in sorted((SHARED / "reference/vectorize").glob("*.tif")):
        with rasterio.open(path) as source:
            out[path.stem] = (
                source.read(),
                dict(
                    transform=Affine.from_gdal(*places[path.stem]["gdal_geotransform"]),
                    crs="EPSG:4326",
                ),
            )
    return out


def mosaic(found: dict) -> tuple[np.ndarray, dict]:
    "16 chips: each of the four four times, in rows that begin with another one."
    names = list(found)
    rows = [
        np.concatenate([found[names[(i + j) % len(names)]][0] for j in range(4)], axis=2)
        for i in range(4)
    ]
    return np.concatenate(rows, axis=1), found[names[0]][1]


def ours(
    probs: np.ndarray, place: dict, config: VectorizeConfig, speeds: SpeedConfig
) -> list[tuple[str, float]]:
    "Seconds of each part: mask, thinning and tracing, network, speeds."
    start = time.process_time()
    frame = skeleton.make_frame(probs.shape[1:], **place)
    at = [("begin", time.process_time() - start)]
    g = None
    for name, net in vectorize.steps(probs, frame, config, SELIM):
        g = net
        at.append((name, time.process_time() - start))
    g = to_road_graph(g)
    at.append(("graph", time.process_time() - start))
    speed.add_speeds(g, probs, **place, config=speeds)
    at.append(("speeds", time.process_time() - start))
    return [(name, b - a) for (_, a), (name, b) in zip(at, at[1:], strict=False)]


def yardstick(mask: np.ndarray) -> tuple[float, float]:
    "Seconds of `skeletonize`, and with sknw's graph of the lines, in pixels and without more."
    start = time.process_time()
    lines = skeletonize(mask)
    thinned = time.process_time() - start
    sknw.build_sknw(lines.astype(np.uint8), multi=True, iso=False, ring=True)
    return thinned, time.process_time() - start


def measured(
    probs: np.ndarray, place: dict, config: VectorizeConfig, speeds: SpeedConfig, repeat: int
) -> tuple[np.ndarray, float, np.ndarray, dict[str, float]]:
    "Seconds of both yardsticks, of ours, the ratios, and ours by step; medians."
    frame = skeleton.make_frame(probs.shape[1:], **place)
    near = round(vectorize.FAINT_M / frame.gsd_m)
    mask = skeleton.clean_mask(
        skeleton.threshold_mask(probs[SELIM.road], config.threshold, config.low_threshold, near),
        frame.gsd_yx,
        config.min_object_m2,
        config.min_hole_m2,
    )
    assert (kernels.thin_pixels(mask) == skeletonize(mask)).all()
    ours(probs, place, config, speeds)  # compiles
    pairs = [(yardstick(mask), ours(probs, place, config, speeds)) for _ in range(repeat)]
    base, total = (
        np.array([b for b, _ in pairs]),
        np.array([sum(s for _, s in parts) for _, parts in pairs]),
    )
    steps = {
        name: float(np.median([dict(parts)[name] for _, parts in pairs])) for name, _ in pairs[0][1]
    }
    ratios = np.median(total[:, None] / base, axis=0)
    return np.median(base, axis=0), float(np.median(total)), ratios, steps


def beside_rules(
    probs: np.ndarray, place: dict, config: VectorizeConfig, speeds: SpeedConfig, repeat: int
) -> str:
    "How many times as long `joins: learned` takes as `rules`, in turns."
    ways = [replace(config, joins=joins) for joins in ("rules", "learned")]
    for way in ways:
        ours(probs, place, way, speeds)  # compiles
    pairs = [
        [sum(s for _, s in ours(probs, place, way, speeds)) for way in ways] for _ in range(repeat)
    ]
    rules, learned = np.median(pairs, axis=0)
    ratio = np.median([b / a for a, b in pairs])
    return f"rules {rules:.4f} s, learned {learned:.4f} s, {ratio:.2f} times"


def write_raster(path: Path, probs: np.ndarray, place: dict, side: int) -> None:
    "A chip and its mirror images, over and over, as a tiled GeoTIFF; a strip in memory at a time."
    row = np.concatenate([probs, probs[:, :, ::-1]], 2)
    cell = np.concatenate([row, row[:, ::-1]], 1)
    columns = np.arange(side) % cell.shape[2]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(probs),
        height=side,
        width=side,
        dtype="uint8",
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="deflate",
        zlevel=1,
        interleave="band",
        BIGTIFF="YES",
        **place,
    ) as target:
        for r in range(0, side, 512):
            h = min(512, side - r)
            target.write(
                cell[:, np.arange(r, r + h) % cell.shape[1]][:, :, columns],
                window=Window(0, r, side, h),
            )


def in_windows(path: Path, workers: int) -> str:
    """A raster in a fresh process, its children included: seconds, and the peak of what they
    hold together.
    """
    code = f"""
import time
from spacenet5_nb.roads.windowed_tracing import vectorize_windows
if __name__ == "__main__":
    start = time.perf_counter()
    g = vectorize_windows({str(path)!r}, workers={workers})
    metres = sum(d["length"] for *_, d in g.edges(data=True))
    took = time.perf_counter() - start
    print(f"{{took:.0f}} s, {{g.number_of_edges()}} edges, {{metres/1000:.0f}} km")
"""
    script = path.with_suffix(".py")
    script.write_text(code)
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("peak_memory.py")),
            sys.executable,
            str(script),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return "; ".join(done.stdout.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--preset", default="best")
    parser.add_argument(
        "--raster", type=int, default=0, help="also a raster of so many pixels a side, in windows"
    )
    parser.add_argument("--joins", action="store_true", help="learned joins beside rules, too")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not (SHARED / "reference/vectorize").is_dir():
        sys.exit(f"no reference samples at {SHARED}; set SPACENET5_SHARED")
    warnings.simplefilter("ignore")
    config, speeds = (
        section(options.preset, VectorizeConfig, vectorize.NAMED),
        section(options.preset, SpeedConfig, speed.NAMED),
    )
    found, total = chips(), {}
    print(
        f"{'':18} {'pixels':>11} {'skeletonize s':>14} {'with sknw':>10} {'ours s':>8} "
        f"{'ratios':>11}   per step, ms"
    )
    for name, (probs, place) in {**found, "mosaic of 16": mosaic(found)}.items():
        base, total[name], ratio, steps = measured(probs, place, config, speeds, options.repeat)
        print(
            f"{name:18} {probs.shape[1]:5} x {probs.shape[2]:<4}{base[0]:14.4f} {base[1]:10.4f} "
            f"{total[name]:8.4f} {ratio[0]:5.2f} {ratio[1]:5.2f}   "
            f"{', '.join(f'{k} {1000 * v:.1f}' for k, v in steps.items())}",
            flush=True,
        )
        if options.joins:
            print(f"{'':18} {beside_rules(probs, place, config, speeds, options.repeat)}")
    mean = np.mean([total[name] for name in found])
    print(
        f"16 times the mean chip: {16 * mean:.3f} s, the mosaic {total['mosaic of 16']:.3f} "
        f"s: {total['mosaic of 16'] / 16 / mean:.2f} times linear"
    )
    if not options.raster:
        return
    with tempfile.TemporaryDirectory() as folder:
        write_raster(path := Path(folder) / "raster.tif", *found[next(iter(found))], options.raster)
        print(
            f"{options.raster} x {options.raster} x 12 on disk "
            f"({path.stat().st_size / 1e9:.1f} GB), {options.workers} processes: "
            f"{in_windows(path, options.workers)}"
        )


if __name__ == "__main__":
    main()
