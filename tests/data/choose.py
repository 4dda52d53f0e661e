"""Choose the reference cases of this folder from the full sets, which stay outside the repository.

`python tests/data/choose.py SHARED` writes them again; README.md says where they come from.
`tests/test_parity_choice.py` holds the two together where the full sets are at hand.
"""

import gzip
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.io import MemoryFile

HERE = Path(__file__).parent
CASES = (  # of the original judge: each kind of change, on chips of different size; all samples
    "gt_gt__img99",
    "gt_gt_sameids__img991",
    "empty_gt__img99",
    "empty_prop__img99",
    "del30__img991",
    "gaps3x20__img991",
    "gaps5x8__img99",
    "jit3__img990",
    "jit6__img99",
    "mix__img991",
    "other__img99__img990",
    "speed__img991",
    "spurs__img990",
    "sample__gt_json_prop_json__AOI_2_Vegas_img99",
    "sample__gt_json_prop_json__AOI_2_Vegas_img990",
    "sample__gt_json_prop_json__AOI_2_Vegas_img991",
    "sample__gt_json_prop_pkl__AOI_2_Vegas_img0",
    "sample__gt_json_prop_wkt__AOI_2_Vegas_img0",
    "sample__gt_pkl_prop_pkl__RGB-PanSharpen_AOI_2_Vegas_img0",
    "sample_tt__gt_json_prop_wkt__AOI_2_Vegas_img0",
)
PLAIN = (  # taken as they are, from the folder of references
    "apls/topo_sp.json",
    "model/losses.json",
    "targets/speeds_mph.json",
    "targets/*.geojson",
    "vectorize/*_truth.json",
    "vectorize/*_solution_reference.csv",
)
RASTERS = ("targets/*.tif", "vectorize/AOI_2_Vegas_img99.tif")  # the same pixels, packed tighter
EVERY = 2  # rows and columns of a network's stored output: this one in so many


def packed(value) -> bytes:
    "JSON in gzip, the same bytes each time."
    return gzip.compress(json.dumps(value, separators=(",", ":")).encode(), 9, mtime=0)


def chosen_cases(source: Path) -> dict:
    "The chosen cases, with all parameter sets."
    whole = json.loads(gzip.decompress(source.read_bytes()))
    return whole | {"cases": {name: whole["cases"][name] for name in CASES}}


def repacked(source: Path) -> bytes:
    "A raster's pixels, bands one after the other, deflated."
    with rasterio.open(source) as opened:
        pixels = opened.read()
    bands, height, width = pixels.shape
    shape = dict(count=bands, height=height, width=width, dtype=pixels.dtype, blockysize=height)
    with MemoryFile() as file:
        with file.open(
            driver="GTiff", interleave="band", compress="deflate", zlevel=9, **shape
        ) as made:
            made.write(pixels)
        return file.read()


def thinned(source: Path) -> bytes:
    "A network's output, every second row and column of what is stored."
    out = io.BytesIO()
    np.savez_compressed(out, y=np.load(source)["y"][..., ::EVERY, ::EVERY])
    return out.getvalue()


def places(source: Path) -> bytes:
    "Where each chip lies; the rest of the file is times of the machine it was made on."
    kept = {
        name: {k: stored[k] for k in ("gdal_geotransform", "crs")}
        for name, stored in json.loads(source.read_text()).items()
    }
    return json.dumps(kept, indent=1).encode()


def files(shared: Path) -> Iterator[tuple[str, bytes]]:
    "Every chosen file: its name here and its bytes."
    full = shared / "reference"
    yield "apls/cosmiq_cases.json.gz", packed(chosen_cases(full / "apls/cosmiq_cases.json.gz"))
    for pattern in PLAIN:
        for path in sorted(full.glob(pattern)):
            yield path.relative_to(full).as_posix(), path.read_bytes()
    for pattern in RASTERS:
        for path in sorted(full.glob(pattern)):
            yield path.relative_to(full).as_posix(), repacked(path)
    for path in sorted(full.glob("model/*_128.npz")):
        yield path.relative_to(full).as_posix(), thinned(path)
    keys = json.loads((full / "model/state_dict_keys.json").read_text())
    yield "model/state_dict_keys.json.gz", packed(keys)
    yield "vectorize/reference.json", places(full / "vectorize/reference.json")
    for name in json.loads((full / "targets/speeds_mph.json").read_text()):
        path = next((shared / "data").rglob(name))
        yield f"labels/{name}", path.read_bytes()
    rows = (shared / "data/submissions/albu_sn3_test_4000rows.csv").read_text().splitlines(True)
    yield "submissions/albu_sn3_test_400rows.csv", "".join(rows[:401]).encode()


if __name__ == "__main__":
    for name, data in files(Path(sys.argv[1])):
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(data)
