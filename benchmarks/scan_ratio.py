"""Whether scanning became slower: 1,000 chips found and scanned by two installations in turns, as
a ratio of their processor time, which other programs on the machine hardly change.

    .venv/bin/python benchmarks/scan_ratio.py OTHER/.venv/bin/python [--chips 1000] [--rounds 3]

The chips are 400 x 400 px, three bands of 8 bits, with 24 roads each in OpenStreetMap's words.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SCAN = """
import os, sys
from spacenet5_nb.explore import find_chips, scan_chips
chips = find_chips(sys.argv[1])
scan_chips(chips.iloc[:5], workers=1)  # what is loaded once is loaded
before = os.times()
found = scan_chips(find_chips(sys.argv[1]), workers=1)
after = os.times()
assert (found["fatal"] == "").all() and found["road_km"].min() > 1, found["fatal"].max()
print(len(found), after.user + after.system - before.user - before.system)
"""


def make_chips(folder: Path, count: int, n: int = 400) -> None:
    "Images and labels under as many names."
    from spacenet5_nb import raster  # before rasterio

    # isort: split
    import numpy as np
    from affine import Affine
    from rasterio.crs import CRS

    rng, place = np.random.default_rng(0), Affine(5e-6, 0, 37.6, 0, -5e-6, 55.7)
    image = rng.integers(1, 255, (3, n, n), "uint8")
    grid = raster.Grid((n, n), place, CRS.from_epsg(4326))
    raster.write(folder / "chip.tif", image, grid=grid)
    lines = [[place * (0, 15 * k + 9), place * (n, 15 * k + 9)] for k in range(24)]
    tags = {"highway": "residential", "lanes": "2", "maxspeed": "50", "surface": "asphalt"}
    features = [
        {
            "type": "Feature",
            "properties": tags | {"osm_id": k, "name": f"Street {k}", "oneway": "no"},
            "geometry": {"type": "LineString", "coordinates": line},
        }
        for k, line in enumerate(lines)
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (folder / "chip.geojson").write_text(text)
    (folder / "chips").mkdir()
    for k in range(count):
        for kind in ("tif", "geojson"):
            os.link(folder / f"chip.{kind}", folder / f"chips/c{k:04}.{kind}")


def seconds(python: str, chips: Path) -> float:
    "Processor time of one installation."
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    run = [python, "-c", SCAN, str(chips)]
    out = subprocess.run(run, check=True, capture_output=True, text=True, env=env, cwd=chips)
    return float(out.stdout.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("other", help="Python of the installation to compare with")
    parser.add_argument("--chips", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as d:
        make_chips(Path(d), options.chips)
        pairs = [
            (seconds(options.other, Path(d) / "chips"), seconds(sys.executable, Path(d) / "chips"))
            for _ in range(options.rounds)
        ]
    for before, after in pairs:
        print(f"  before {before:6.1f} s   after {after:6.1f} s   ratio {after / before:.3f}")
    ratio = statistics.median(after / before for before, after in pairs)
    print(f"{options.chips} chips, processor time, median ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
