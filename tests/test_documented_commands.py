"Every command in README and docs runs, or stands in a list with the test that runs it instead."

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from paper_sets import draw_city_scale
from pictures_with_masks import draw_pictures
from small_workspace import environment

from spacenet5_nb import graph, raster
from spacenet5_nb.roads import formats

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
ELSEWHERE = {  # command: (why it does not run here, the test that runs it)
    "make test": ("would run itself", "test_documented_commands.py::test_command"),
    "spacenet5 download": ("SpaceNet's bucket cannot be reached", "test_download.py"),
    "spacenet5 train --fold": (
        "full-size network; the same command trains small ones there",
        "test_training.py",
    ),
    "torchrun": ("full-size network on four GPUs; two CPU processes there", "test_training.py"),
    "pip install -e": ("would point the tests' environment to a copy", "test_wheel.py"),
    "--labels mended.gpkg": ("trains for minutes", "test_corrections.py"),
    "--scheduler": ("needs a running cluster; a local one there", "test_end_to_end.py"),
}
STANDS_FOR = {  # what is left to the reader; the small demo has two folds
    "-p fold 2": "-p fold 1",
    "04_train-fold2": "04_train-fold1",
    "train-own IMAGE.tif --osm extract.osm.pbf": "train-own own.tif --osm own.osm",
    "<folder>": "data/demo/SN5_roads",
    "<chips>": "data/demo/SN5_roads/train",
    "<AOI folder>": "data/demo/SN5_roads",
    "<City-Scale>": "20cities",
    "<results>": "results",
    "IMAGE.tif": "town.tif",
    "las_vegas.tif": "town.tif",
    "city.osm.pbf": "city.osm",
    "area.osm.pbf": "city.osm",
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
def workspace(world) -> Path:
    "The small workspace, and beside its demo what commands are given."
    home = world.home
    chip = next((home / "data/demo/SN5_roads/train").glob("*/PS-MS/*.tif"))
    shutil.copy(chip, home / "town.tif")
    shutil.copy(next((home / "outputs/demo/probs").glob("*.tif")), home / "probabilities.tif")
    shutil.copy(home / "outputs/demo/solution.csv", home)
    number = chip.stem.rsplit("_", 1)[1]
    label = next((chip.parents[1] / "geojson_roads_speed").glob(f"*{number}.geojson"))
    formats.save(graph.from_labels(label), home / "city.osm")
    shutil.copy(label, home / "streets.geojson")
    draw_town(home / "own.tif", home / "own.osm")
    draw_pictures(home / "pictures")
    draw_city_scale(home / "20cities")
    (home / "results").mkdir()
    shutil.copy(home / "20cities/region_8_refine_gt_graph.p", home / "results/8.p")
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


def shell(home: Path, line: str) -> None:
    "A line as a reader types it; the settings are those of the folder."
    set_by_ini = ("SPACENET5_OUTPUTS", "SPACENET5_DATA")
    own = {k: v for k, v in environment(home).items() if k not in set_by_ini}
    done = subprocess.run(["bash", "-c", line], cwd=home, capture_output=True, text=True, env=own)
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("line", [pytest.param(c, id=f"{p}: {c}") for c, p in commands().items()])
def test_command(line, workspace):
    for part, (why, where) in ELSEWHERE.items():
        if part not in line:
            continue
        assert (ROOT / "tests" / where.split("::")[0]).is_file()
        pytest.skip(f"{why}: tests/{where}")
    for name, thing in STANDS_FOR.items():
        line = line.replace(name, thing)
    shell(workspace, line)


def test_nothing_in_the_list_is_stale():
    for part in ELSEWHERE:
        assert any(part in line for line in commands()), f"no page has a command with '{part}'"
