"A built wheel in an empty environment: every room, the presets, the assets and the program."

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "spacenet5_nb"
SOURCES = ("spacenet5_nb", "configs", "pyproject.toml", "README.md", "LICENSE")
LOOK = """
import json, pkgutil, sys
from importlib import metadata, resources
import networkx as nx
from shapely import LineString
import spacenet5_nb
from spacenet5_nb import maps
from spacenet5_nb.core import load_preset, preset_names

g = nx.MultiGraph(crs="EPSG:32611")
for n, x in enumerate((0.0, 100.0)):
    g.add_node(n, x=5e5 + x, y=4e6)
line = LineString([(5e5, 4e6), (5e5 + 100, 4e6)])
g.add_edge(0, 1, geometry=line, length=100.0, speed_kph=50.0, travel_time=7.2)
maps.save(maps.speed_map(g), "map.html")
walked = pkgutil.walk_packages(spacenet5_nb.__path__, "spacenet5_nb.")
print(json.dumps({
    "where": [*spacenet5_nb.__path__],
    "modules": sorted(m.name for m in walked if not m.ispkg),
    "assets": sorted(p.name for p in resources.files("spacenet5_nb").joinpath("assets").iterdir()),
    "presets": preset_names(),
    "demo": load_preset("demo").name,
    "version": metadata.version("spacenet5_nb"),
}))
"""


def call(*command, where: Path, **more: str) -> str:
    "A command's output; it knows nothing of this checkout."
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPACENET5_", "PYTHON"))}
    done = subprocess.run(command, cwd=where, env=kept | more, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    "An environment with the wheel; dependencies are reached on a path of their own."
    home = tmp_path_factory.mktemp("wheel")
    (home / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, home / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--quiet"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", home, home / "source"]
    call(*build, where=home)
    shutil.rmtree(home / "source")
    venv.create(home / "env", with_pip=False)
    python = home / "env/bin/python"
    (wheel,) = home.glob("*.whl")
    call(*pip, "--python", python, "install", *offline, wheel, where=home)
    (own,) = (home / "env").glob("lib/*/site-packages")
    needed = [importlib.util.find_spec(name).origin for name in ("numpy", "typer", "networkx")]
    # plain folders: .pth files within them, such as the checkout's own, are not read
    (own / "dependencies.pth").write_text(
        "".join(f"{folder}\n" for folder in {str(Path(n).parents[1]) for n in needed})
    )
    return home


def test_every_room_preset_and_asset_is_in_the_wheel(installed):
    found = json.loads(call(installed / "env/bin/python", "-c", LOOK, where=installed))
    assert [Path(p).is_relative_to(installed) for p in found["where"]] == [True]
    names = (p.relative_to(ROOT).with_suffix("") for p in PACKAGE.rglob("*.py"))
    assert found["modules"] == sorted(".".join(n.parts) for n in names if n.name != "__init__")
    assert found["assets"] == sorted(p.name for p in (PACKAGE / "assets").iterdir())
    assert found["presets"] == sorted(p.stem for p in (ROOT / "configs").glob("*.yaml"))
    assert found["demo"] == "demo" and found["version"]
    page = (installed / "map.html").read_text()
    assert "leaflet" in page and (PACKAGE / "assets/map.js").read_text()[:200] in page


@pytest.mark.parametrize("arguments", [("--help",), ("stages",), ("score", "--help")])
def test_the_program_runs_outside_the_checkout(installed, arguments):
    said = call(installed / "env/bin/spacenet5", *arguments, where=installed)
    assert "01_explore" in said if arguments == ("stages",) else "Usage" in said
