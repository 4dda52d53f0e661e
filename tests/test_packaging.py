"environment.yml, Dockerfile, constraints and imports agree with pyproject.toml."
import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT/"pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [Requirement(r) for r in [*PROJECT["dependencies"], *EXTRAS["train"], *EXTRAS["lab"], *EXTRAS["download"], *EXTRAS["osm"], *EXTRAS["cluster"], *EXTRAS["dev"]]]
PINNED = dict(line.strip().split("==") for line in (ROOT/"constraints.txt").read_text().splitlines() if line.strip() and not line.startswith("#"))
IMPORT_NAMES = {"skimage": "scikit-image", "yaml": "pyyaml", "affine": "rasterio", "packaging": "jupyterlab", "nbformat": "papermill", "traitlets": "papermill",
                "cv2": "albumentations", "llvmlite": "numba", "IPython": "jupyterlab", "nbclient": "papermill", "torchvision": "timm", "branca": "folium", "botocore": "boto3"}


def test_every_declared_dependency_is_pinned_within_its_range():
    pins = {canonicalize_name(k): v for k, v in PINNED.items()}
    for r in DECLARED:
        assert canonicalize_name(r.name) in pins, f"{r.name} is not in constraints.txt"
        assert r.specifier.contains(pins[canonicalize_name(r.name)]), f"{r.name} {pins[canonicalize_name(r.name)]} is outside {r.specifier}"


def test_the_user_fixed_packages_are_there():
    names = {r.name for r in DECLARED}
    assert names >= {"jupyterlab", "papermill", "torch", "timm", "albumentations", "rasterio", "matplotlib", "folium", "sknw", "networkx", "pandas", "nbdev"}


def test_torch_is_pinned_without_a_build_tag():
    assert re.fullmatch(r"\d+\.\d+\.\d+", PINNED["torch"]), "a local tag such as +cpu would exclude the CUDA build, and the other way round"


def test_the_poisoned_lightning_releases_stay_out():
    assert PINNED["lightning"] == PINNED["pytorch-lightning"] == "2.6.6"


def test_environment_and_dockerfile_install_from_the_same_pins():
    pip = next(d["pip"] for d in yaml.safe_load((ROOT/"environment.yml").read_text())["dependencies"] if isinstance(d, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[all]"]
    docker = (ROOT/"Dockerfile").read_text()
    assert "make install" in docker and "--constraint constraints.txt" in (ROOT/"Makefile").read_text()
    assert re.search(r"^USER (?!root)", docker, re.M) and "HEALTHCHECK" in docker and "EXPOSE 8888" in docker
    assert "python=3.11" in (ROOT/"environment.yml").read_text() and "python3.11" in docker


def third_party(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            top = name.split(".")[0]
            if top and top not in sys.stdlib_module_names and top != "spacenet5_nb": yield top


@pytest.mark.parametrize("path", sorted((ROOT/"spacenet5_nb").glob("*.py")), ids=lambda p: p.stem)
def test_imports_are_declared(path):
    declared = {canonicalize_name(r.name) for r in DECLARED}
    missing = {n for n in third_party(path) if canonicalize_name(IMPORT_NAMES.get(n, n)) not in declared}
    assert not missing
