"Every command in README and docs runs, or stands in a list with the test that runs it instead."

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine

from spacenet5_nb import graph, raster
from spacenet5_nb.roads import formats

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
MINIATURE = """
folds:
  - {encoder: mobilenetv3_small_050, bands: 3, pretrained: false}
  - {encoder: mobilenetv3_small_050, bands: 3, pretrained: false}
  - {encoder: mobilenetv3_small_050, bands: 3, pretrained: false}
train:
  stages:
    - crop_px: 96
      batch: 4
      epochs: 1
      steps_per_epoch: 2
      lr: [[0, 1.0e-3]]
      schedule: steps
      validate_every: 1
  validation_chips: 1
ensemble: {tta: none}
"""
DEMO = (
    "data: {demo: {cities: [Terra, Enigma], grid: [2, 3], test_grid: [1, 2], chip_m: "
    "220.0, gsd_m: 1.0}}\n"
)
ELSEWHERE = {  # command: (why it does not run here, the test that runs it)
    "make test": ("would run itself", "test_documented_commands.py::test_command"),
    "spacenet5 download": ("SpaceNet's bucket cannot be reached", "test_download.py"),
    "spacenet5 train --fold": (
        "full-size network; the same command trains small ones there",
        "test_training.py",
    ),
    "torchrun": ("full-size network on four GPUs; two CPU processes there", "test_training.py"),
    "--scheduler": ("needs a running cluster; a local one there", "test_end_to_end.py"),
}
STANDS_FOR = {  # what is left to the reader
    "train-own IMAGE.tif --osm extract.osm.pbf": "train-own own.tif --osm own.osm",
    "<folder>": "data/demo/SN5_roads",
    "<chips>": "data/demo/SN5_roads/train",
    "<AOI folder>": "data/demo/SN5_roads",
    "IMAGE.tif": "town.tif",
    "city.osm.pbf": "city.osm",
    "probabilities.tif": "probabilities.tif",
    "streets.gpkg": "streets.geojson",
    "-n 8": "-n 8 --overwrite",
    "--country FR": "--country FR --overwrite",
}


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> dict[str, str]:
    "The lines of the pages' shell blocks, without comments, each once: the page it stands on."
    found = {}
    for page in PAGES:
        blocks = re.findall(r"^```(?:sh|bash|shell)\n(.*?)^```", page.read_text(), re.S | re.M)
        for text in "".join(blocks).replace("\\\n", " ").splitlines():
            line = re.sub(r"\s{2,}#.*$", "", text).strip()
            if line and not line.startswith("#"):
                found.setdefault(line, page.stem)
    return found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """This workspace in a folder of its own, with presets that take seconds, and the demo run
    through."""
    home = tmp_path_factory.mktemp("workspace")
    for name in ("nbs", "spacenet5_nb", "configs"):
        shutil.copytree(
            ROOT / name,
            home / name,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    for name in ("settings.ini", "pyproject.toml", "constraints.txt", "Makefile"):
        shutil.copy(ROOT / name, home)
    (home / ".venv").symlink_to(sys.prefix)
    for name, more in (("demo", DEMO), ("small", "")):
        path = home / "configs" / f"{name}.yaml"
        (home / "configs" / f"{name}_whole.yaml").write_text(
            path.read_text().replace(f"name: {name}", f"name: {name}_whole")
        )
        path.write_text(f"base: {name}_whole\nname: {name}\n{MINIATURE}{more}")
    run(home, ".venv/bin/spacenet5 pipeline --preset demo")
    chip = next((home / "data/demo/SN5_roads/train").glob("*/PS-RGB/*.tif"))
    shutil.copy(chip, home / "town.tif")
    shutil.copy(next((home / "outputs/demo/probs").glob("*.tif")), home / "probabilities.tif")
    shutil.copy(home / "outputs/demo/solution.csv", home)
    label = next(
        (chip.parents[1] / "geojson_roads_speed").glob(f"*{chip.stem.rsplit('_', 1)[1]}.geojson")
    )
    formats.save(graph.from_labels(label), home / "city.osm")
    shutil.copy(label, home / "streets.geojson")
    draw_town(home / "own.tif", home / "own.osm")
    return home


def draw_town(image: Path, osm: Path, side: int = 1300) -> None:
    """A grid of bright streets, an image of more than a kilometre, and the same streets for
    OpenStreetMap."""
    grid, rng = (
        raster.Grid(
            (side, side), Affine(1, 0, 500_000, 0, -1, 4_000_000), raster.CRS.from_epsg(32611)
        ),
        np.random.default_rng(1),
    )
    at = list(range(90, side, 160))
    lines = [[(x, y) for x in (0, *at, side)] for y in at] + [
        [(x, y) for y in (0, *at, side)] for x in at
    ]
    pixels = rng.normal(90, 12, (3, side, side))
    for y in at:
        pixels[:, y - 4 : y + 4] = 170
    for x in at:
        pixels[:, :, x - 4 : x + 4] = 170
    raster.write(image, pixels.clip(1, 255).astype(np.uint8), grid=grid)
    rows = pd.DataFrame(
        {
            "ImageId": "own",
            "WKT_Pix": [shapely.LineString(line).wkt for line in lines],
            "length_m": 1.0 * side,
            "travel_time_s": side / 11,
        }
    )
    formats.save(graph.from_wkt_rows(rows, grid.transform, grid.crs), osm)


def run(home: Path, line: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SPACENET5_")} | {
        "SPACENET5_ROOT": str(home),
        "SPACENET5_WORKERS": "2",
        "SPACENET5_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-c", line], cwd=home, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.parametrize("line", [pytest.param(c, id=f"{p}: {c}") for c, p in commands().items()])
def test_command(line, workspace):
    for part, (why, where) in ELSEWHERE.items():
        if part not in line:
            continue
        assert (ROOT / "tests" / where.split("::")[0]).is_file()
        pytest.skip(f"{why}: tests/{where}")
    for name, thing in STANDS_FOR.items():
        line = line.replace(name, thing)
    run(workspace, line)


def test_nothing_in_the_list_is_stale():
    for part in ELSEWHERE:
        assert any(part in line for line in commands()), f"no page has a command with '{part}'"
