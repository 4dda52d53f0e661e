"""How long the chips of a whole city take: found, scanned and turned into targets, with the peak
memory of a worker.

    .venv/bin/python benchmarks/scan.py [--chips 3000] [--workers 2]

One chip of SpaceNet 5's size (1300 x 1300 px, 8 bands, 16 bits, about 2 km of road) is made and
linked under as many names as asked.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402, I001
from affine import Affine  # noqa: E402
from rasterio.crs import CRS  # noqa: E402

from spacenet5_nb import explore, masks, raster  # noqa: E402  (before rasterio)
from spacenet5_nb.core import Channels, MasksConfig  # noqa: E402
from spacenet5_nb.base.parallel import Failure, parallel  # noqa: E402


def one_chip(folder: Path) -> tuple[Path, Path]:
    "An image and its label."
    rng, n = np.random.default_rng(0), 1300
    grid = raster.Grid((n, n), Affine(2.7e-6, 0, 37.6, 0, -2.7e-6, 55.7), CRS.from_epsg(4326))
    coarse = rng.integers(150, 1200, (8, n // 10, n // 10))
    image = (
        (np.kron(coarse, np.ones((1, 10, 10))) + rng.normal(0, 25, (8, n, n)))
        .clip(1)
        .astype("uint16")
    )
    lines = [
        [[37.6 + 2.7e-6 * x, 55.7 - 2.7e-6 * y] for x, y in path]
        for path in (
            [(0, 300), (650, 310), (1300, 330)],
            [(0, 900), (650, 905), (1300, 880)],
            [(650, 0), (650, 310), (650, 905), (640, 1300)],
            [(200, 0), (260, 1300)],
            [(0, 600), (650, 620)],
        )
    ]
    label = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"highway": kind, "lanes": "2"},
                "geometry": {"type": "LineString", "coordinates": line},
            }
            for kind, line in zip(
                ("primary", "secondary", "residential", "service", "tertiary"), lines, strict=True
            )
        ],
    }
    (folder / "chip.geojson").write_text(json.dumps(label))
    return raster.write(folder / "chip.tif", image, grid=grid), folder / "chip.geojson"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--chips", type=int, default=300)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as d:
        root, city = Path(d), Path(d) / "chips/AOI_7_Moscow"
        for name in ("PS-MS", "geojson_roads_speed"):
            (city / name).mkdir(parents=True)
        image, label = one_chip(root)
        for k in range(options.chips):
            os.link(image, city / f"PS-MS/SN5_roads_train_AOI_7_Moscow_PS-MS_chip{k}.tif")
            kind = "geojson_roads_speed"
            os.link(label, city / kind / f"SN5_roads_train_AOI_7_Moscow_{kind}_chip{k}.geojson")
        start = time.perf_counter()
        chips = explore.find_chips(root / "chips")
        found = time.perf_counter()
        scanned = explore.scan_chips(chips, bands_wanted=[8], workers=options.workers)
        done = time.perf_counter()
        assert (
            len(scanned) == options.chips
            and (scanned["fatal"] == "").all()
            and scanned["road_km"].min() > 1
        )
        jobs = [
            (
                c.image,
                c.label,
                str(root / f"masks/{c.chip}.tif"),
                None,
                Channels.best(),
                MasksConfig(),
            )
            for c in chips.itertuples()
        ]
        made = parallel(
            masks.make_chip_mask,
            jobs,
            desc="masks",
            module="masks",
            errors="collect",
            workers=options.workers,
        )
        end = time.perf_counter()
        assert not [m for m in made if isinstance(m, Failure)]
    print(f"{options.chips} chips of 1300 x 1300 px, 8 bands; {options.workers} workers")
    print(f"  found    {found - start:7.1f} s")
    print(f"  scanned  {done - found:7.1f} s   {options.chips / (done - found):6.1f} chips/s")
    print(f"  targets  {end - done:7.1f} s   {options.chips / (end - done):6.1f} chips/s, written")
    print(f"  largest worker {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
