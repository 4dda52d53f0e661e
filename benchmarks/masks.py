"""Targets of real labels, ours beside the usual way (GeoPandas: read, project, buffer, dissolve,
burn each group): seconds and memory in one run.

    .venv/bin/python benchmarks/masks.py [--repeat 5]

Needs the reference samples ($SPACENET5_SHARED or ../shared). The mosaic is the largest chip's
labels repeated on a 4 x 4 grid of 5200 x 5200 pixels.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GDAL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # one core each

import geopandas as gpd  # noqa: E402, I001
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import rasterio  # noqa: E402
from affine import Affine  # noqa: E402
from rasterio.crs import CRS  # noqa: E402
from rasterio.features import rasterize  # noqa: E402

from spacenet5_nb import graph, masks, raster  # noqa: E402  (before rasterio)
from spacenet5_nb.core import Channels  # noqa: E402

SHARED = Path(
    os.environ.get("SPACENET5_SHARED") or Path(__file__).resolve().parents[1] / "../shared"
)
SPEED_ONLY = Channels(
    Channels.selim_sef().edges_mph, Channels.selim_sef().values_mph, has_junction=False
)


def naive(path: Path, grid: raster.Grid) -> np.ndarray:
    "Speed bins and road as a first script does it; the same result as style='reference'."
    roads = gpd.read_file(path, engine="pyogrio")
    roads = roads.to_crs(roads.estimate_utm_crs())
    roads["geometry"] = roads.buffer(2, quad_segs=1)
    groups = roads.dissolve(by="inferred_speed_mps").to_crs(grid.crs)
    burnt = np.zeros(grid.shape, "uint8")
    for _, group in groups.sort_index().iterrows():
        value = 25 * (1 + SPEED_ONLY.bin_of(float(group["inferred_speed_mph"])))
        one = rasterize(
            [(group.geometry, value)], grid.shape, transform=grid.transform, dtype="uint8"
        )
        burnt[one > 0] = one[one > 0]
    return np.stack(
        [np.where(burnt // 25 == k + 1, 255, 0).astype("uint8") for k in range(10)]
        + [np.where(burnt > 0, 255, 0).astype("uint8")]
    )


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def cases() -> list[tuple[str, Path, raster.Grid]]:
    places = json.loads((SHARED / "reference/vectorize/reference.json").read_text())
    out = []
    for path in sorted((SHARED / "reference/targets").glob("*.geojson")):
        place = places[path.stem]
        with rasterio.open(path.with_suffix(".tif"), driver="GTiff") as source:
            shape = source.shape
        out.append(
            (
                path.stem,
                path,
                raster.Grid(
                    shape,
                    Affine.from_gdal(*place["gdal_geotransform"]),
                    CRS.from_string(place["crs"]),
                ),
            )
        )
    return out


def mosaic(path: Path, grid: raster.Grid, target: Path) -> tuple[str, Path, raster.Grid]:
    "A chip's labels 16 times over."
    roads = gpd.read_file(path, engine="pyogrio")
    roads["geometry"] = roads.geometry.force_2d()
    width, height = grid.shape[1] * grid.transform.a, grid.shape[0] * grid.transform.e
    tiles = [
        roads.assign(geometry=roads.translate(i * width, j * height))
        for i in range(4)
        for j in range(4)
    ]
    pd.concat(tiles, ignore_index=True).to_file(target, driver="GeoJSON")
    return (
        "mosaic of 16",
        target,
        raster.Grid((4 * grid.shape[0], 4 * grid.shape[1]), grid.transform, grid.crs),
    )


def peak_of_one_mosaic(path: Path, grid: raster.Grid, folder: Path) -> tuple[float, float, float]:
    """GB of a fresh process: as imported, after all thirteen targets of the mosaic, and after
    stage 02's whole work on it (image read, targets written).
    """
    image = raster.write(folder / "mosaic.tif", np.full((3, *grid.shape), 90, "uint8"), grid=grid)
    code = f"""
from spacenet5_nb import masks, raster
from spacenet5_nb.core import Channels, MasksConfig
def peak():
    status = open("/proc/self/status")
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
before = peak()
out = masks.make_masks({str(path)!r}, {str(image)!r}, Channels.best())
assert out.shape[0] == 13 and out.any()
after = peak()
del out
image, label, mask = {str(image)!r}, {str(path)!r}, {str(folder / "mask.tif")!r}
masks.make_chip_mask((image, label, mask, None, Channels.best(), MasksConfig()))
print(before, after, peak())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(int(kb) / 1e6 for kb in done.stdout.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    if not (SHARED / "reference/targets").is_dir():
        sys.exit(f"no reference samples at {SHARED}; set SPACENET5_SHARED")
    warnings.simplefilter("ignore")
    found = cases()
    with tempfile.TemporaryDirectory() as folder:
        found.append(mosaic(*found[0][1:], Path(folder) / "mosaic.geojson"))
        print(
            f"{'labels':20} {'pixels':>11} {'roads':>6} {'naive s':>9} {'speed s':>9} "
            f"{'ratio':>6} {'all 13 s':>9} {'ratio':>6}  agrees with naive"
        )
        for name, path, grid in found:
            same = masks.compare_masks(
                masks.make_masks(path, grid, SPEED_ONLY, style="reference"),
                naive(path, grid),
                SPEED_ONLY.names,
            )["agreement"].min()
            times = {"naive": [], "speed": [], "all": []}
            for _ in range(
                repeat
            ):  # in turn, so that whatever else the machine does falls on all alike
                times["naive"].append(seconds(naive, path, grid))
                times["speed"].append(seconds(masks.make_masks, path, grid, SPEED_ONLY))
                times["all"].append(seconds(masks.make_masks, path, grid, Channels.best()))
            n, s, a = (float(np.median(times[k])) for k in ("naive", "speed", "all"))
            print(
                f"{name:20} {grid.shape[0]:5} x "
                f"{grid.shape[1]:<4}{len(graph.read_labels(path)):6} {n:9.3f} {s:9.4f} "
                f"{n / s:6.1f} {a:9.4f} {n / a:6.1f}  {same:.5f}"
            )
        before, after, whole = peak_of_one_mosaic(*found[-1][1:], Path(folder))
        print(
            f"memory of a fresh process: {before:.2f} GB imported, {after:.2f} GB at the peak "
            "of the mosaic's 13 targets (0.35 GB of them the result), "
            f"{whole:.2f} GB with its image read and the targets written"
        )


if __name__ == "__main__":
    main()
