"environment.yml, Dockerfile, constraints and imports agree with pyproject.toml."

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [
    Requirement(r)
    for r in [
        *PROJECT["dependencies"],
        *EXTRAS["train"],
        *EXTRAS["lab"],
        *EXTRAS["download"],
        *EXTRAS["osm"],
        *EXTRAS["cluster"],
        *EXTRAS["onnx"],
        *EXTRAS["openvino"],
        *EXTRAS["dev"],
    ]
]
PINNED = dict(
    line.strip().split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
)
IMPORT_NAMES = {
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "affine": "rasterio",
    "packaging": "jupyterlab",
    "nbformat": "papermill",
    "traitlets": "papermill",
    "cv2": "albumentations",
    "llvmlite": "numba",
    "IPython": "jupyterlab",
    "nbclient": "papermill",
    "jupyter_client": "papermill",
    "torchvision": "timm",
    "branca": "folium",
    "botocore": "boto3",
}


def test_every_declared_dependency_is_pinned_within_its_range():
    pins = {canonicalize_name(k): v for k, v in PINNED.items()}
    for r in DECLARED:
        assert canonicalize_name(r.name) in pins, f"{r.name} is not in constraints.txt"
        assert r.specifier.contains(pins[canonicalize_name(r.name)]), (
            f"{r.name} {pins[canonicalize_name(r.name)]} is outside {r.specifier}"
        )


OLDEST = "3.11.2"  # Debian 12's Python: a pin that wants a later 3.11 cannot be installed there
TORCH_PINS = re.compile(
    r"(nvidia|cuda)-|triton$"
)  # of the CUDA build; torch names exact versions itself


def installed_closure(start: Requirement) -> dict:
    "What installing a requirement brings here, to the last: name -> distribution."
    found, queue = {}, [start]
    while queue:
        r = queue.pop()
        if canonicalize_name(r.name) in found and not r.extras:
            continue
        here = found[canonicalize_name(r.name)] = metadata.distribution(r.name)
        needs = [Requirement(text) for text in here.requires or []]
        queue += [
            n
            for n in needs
            if n.marker is None or any(n.marker.evaluate({"extra": e}) for e in ("", *r.extras))
            if not TORCH_PINS.match(n.name)
        ]
    return found


def test_whatever_comes_along_is_pinned_and_installs_on_debians_python():
    pins = {canonicalize_name(k): v for k, v in PINNED.items()}
    brought = {name: d for r in DECLARED for name, d in installed_closure(r).items()}
    assert not {n for n in brought if n not in pins} - {"setuptools", "wheel"}, (
        "the next release of these would be taken unseen"
    )
    wants = {
        n: SpecifierSet(d.metadata.get("Requires-Python") or "")
        for n, d in brought.items()
        if d.version.split("+")[0] == pins.get(n)
    }
    assert len(wants) > 150 and not {n: str(s) for n, s in wants.items() if not s.contains(OLDEST)}


def test_the_user_fixed_packages_are_there():
    names = {r.name for r in DECLARED}
    assert names >= {
        "jupyterlab",
        "papermill",
        "torch",
        "timm",
        "albumentations",
        "rasterio",
        "matplotlib",
        "folium",
        "sknw",
        "networkx",
        "pandas",
        "nbdev",
    }


def test_torch_is_pinned_without_a_build_tag():
    assert re.fullmatch(r"\d+\.\d+\.\d+", PINNED["torch"]), (
        "a local tag such as +cpu would exclude the CUDA build, and the other way round"
    )


def test_the_poisoned_lightning_releases_stay_out():
    assert PINNED["lightning"] == PINNED["pytorch-lightning"] == "2.6.6"


def test_environment_and_dockerfile_install_from_the_same_pins():
    pip = next(
        d["pip"]
        for d in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
        if isinstance(d, dict)
    )
    assert pip == ["--constraint constraints.txt", "--editable .[all]"]
    docker = (ROOT / "Dockerfile").read_text()
    assert (
        "make install" in docker
        and "--constraint constraints.txt" in (ROOT / "Makefile").read_text()
    )
    assert (
        re.search(r"^USER (?!root)", docker, re.M)
        and "HEALTHCHECK" in docker
        and "EXPOSE 8888" in docker
    )
    assert "python=3.11" in (ROOT / "environment.yml").read_text() and re.search(
        r"^ARG BASE=python:3\.11-", docker, re.M
    )


def test_the_dockerfile_names_the_cuda_that_the_pinned_torch_wants():
    assert f"torch {PINNED['torch']}" in (ROOT / "Dockerfile").read_text(), (
        "read the new torch's requirements, and write them and the driver they ask "
        "for into the comment"
    )


def third_party(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        for name in names:
            top = name.split(".")[0]
            if top and top not in sys.stdlib_module_names and top != "spacenet5_nb":
                yield top


@pytest.mark.parametrize(
    "path", sorted((ROOT / "spacenet5_nb").rglob("*.py")), ids=lambda p: p.stem
)
def test_imports_are_declared(path):
    declared = {canonicalize_name(r.name) for r in DECLARED}
    missing = {
        n for n in third_party(path) if canonicalize_name(IMPORT_NAMES.get(n, n)) not in declared
    }
    assert not missing
