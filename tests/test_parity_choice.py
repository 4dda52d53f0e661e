"tests/data is what tests/data/choose.py takes from the full sets; it is small and says its origin."

import gzip
import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
from reference_cases import CHOICE

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


OURS = {"vectorize/AOI_2_Vegas_img1454_probs.tif"}  # of a network of ours, in no full set


def kept() -> set[str]:
    "The files of tests/data but those that explain it."
    files = (p for p in CHOICE.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(CHOICE).as_posix() for p in files} - {"README.md", "choose.py"}


def content(name: str, data: bytes) -> bytes:
    "What a file says: packing may differ from one version of a library to the next."
    if name.endswith(".gz"):
        return gzip.decompress(data)
    if name.endswith(".npz"):
        return np.load(io.BytesIO(data))["y"].tobytes()
    if name.endswith(".tif"):
        with rasterio.open(io.BytesIO(data)) as source:
            return source.read().tobytes()
    return data


def test_the_choice_is_small_and_says_where_it_comes_from():
    sizes = {name: (CHOICE / name).stat().st_size for name in kept()}
    said = (CHOICE / "README.md").read_text()
    assert sum(sizes.values()) <= 2_000_000, sizes
    assert "CC BY-SA 4.0" in said and "Apache-2.0" in said
    assert {n.split("/")[0] for n in sizes if f"`{n.split('/')[0]}/" not in said} == set()


@pytest.mark.shared
def test_the_choice_is_taken_from_the_full_sets(shared: Path):
    spec = importlib.util.spec_from_file_location("choose", CHOICE / "choose.py")
    choose = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(choose)
    made = dict(choose.files(shared))
    assert made.keys() == kept() - OURS
    changed = [n for n in made if content(n, made[n]) != content(n, (CHOICE / n).read_bytes())]
    assert changed == []
