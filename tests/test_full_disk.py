"""A disk that is really full, at every write: an error that names the file and the cure, nothing
partial, and with room again the same bytes as if it had never been full."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from fresh import members
from small_workspace import command, environment, results
from test_inference import preset, scene

from spacenet5_nb import core, graph, maps, model, raster
from spacenet5_nb.base.files import write_bytes
from spacenet5_nb.base.pyplot import Figure
from spacenet5_nb.core import EnsembleConfig, WriteError
from spacenet5_nb.inference import tiled_inference
from spacenet5_nb.inference.tiled_inference import predict_raster
from spacenet5_nb.mapping.static_map import save_png
from spacenet5_nb.roads import formats
from spacenet5_nb.training.resume import State, write_resume

pytestmark = pytest.mark.slow
SIZE_MB = 64
SHARES = (0, 0.3, 0.7, 0.8, 0.9, 0.97, 1.1, 1.6, 2.2, 3)  # of a file's size, as free space


class Disk:
    "A file system of a few megabytes, filled up as a test wants it."

    def __init__(self, folder: Path):
        self.folder, self.ballast = folder, folder / "ballast"

    def leave(self, free: int) -> None:
        "Fill it up to so many free bytes."
        self.empty()
        there = os.statvfs(self.folder)
        rest = there.f_bavail * there.f_frsize - free
        with open(self.ballast, "wb") as f:
            if rest > 0:
                os.posix_fallocate(f.fileno(), 0, rest)

    def empty(self) -> None:
        self.ballast.unlink(missing_ok=True)

    def files(self) -> dict[str, bytes]:
        "Everything on it, hidden files too, but for the ballast."
        found = [p for p in self.folder.rglob("*") if p.is_file() and p != self.ballast]
        return {p.relative_to(self.folder).as_posix(): p.read_bytes() for p in found}


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Iterator[Disk]:
    "A tmpfs of its own; who may not mount one skips these tests."
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def streets(n: int = 800):
    "A chain of streets."
    g = graph.empty("EPSG:32637")
    at = [(411000.0 + 9 * k, 6178000.0 + 5 * (k % 7)) for k in range(n + 1)]
    for k, (x, y) in enumerate(at):
        g.add_node(k, x=x, y=y)
    for k in range(n):
        line = shapely.LineString(at[k : k + 2])
        g.add_edge(
            k, k + 1, geometry=line, length=line.length, speed_kph=36.0,
            travel_time=line.length / 10,
        )  # fmt: skip
    return g


def pixels(bands: int = 3, side: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (bands, side, side)).astype("uint8")


def grid(side: int = 400) -> raster.Grid:
    return raster.Grid(
        (side, side), raster.Affine(0.5, 0, 5e5, 0, -0.5, 4e6), raster.CRS.from_epsg(32611)
    )


def write_figure(path: Path) -> None:
    figure = Figure((8, 8))
    figure.subplots().imshow(pixels()[0])
    save_png(figure, path)


def write_table(path: Path) -> None:
    table = pd.DataFrame({"chip": [f"chip{k}" for k in range(30_000)], "length_m": 1.5})
    core.write_text(path, table.to_csv(index=False))


def write_parquet(path: Path) -> None:
    write_bytes(path, pd.DataFrame({"a": pixels().ravel()}).to_parquet())


def network():
    return model.RoadUNet("mobilenetv3_small_050", 3, 12, decoder=(8, 8, 8, 8))


def write_member(path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model.save(network(), path)


def write_checkpoint(path: Path) -> None:
    import torch

    torch.manual_seed(0)
    net = network()
    write_resume(path, State("a training"), net, torch.optim.AdamW(net.parameters()))


WRITERS: dict[str, Callable[[Path], object]] = {
    "mask.tif": lambda p: raster.write(p, pixels(), grid=grid()),
    "roads.gpkg": lambda p: graph.write(streets(), p),
    "roads.graphml": lambda p: graph.write(streets(), p),
    "roads.geojson": lambda p: formats.save(streets(), p),
    "roads.osm": lambda p: formats.save(streets(), p),
    "report.json": lambda p: core.write_json(p, list(range(60_000))),
    "solution.csv": write_table,
    "chips.parquet": write_parquet,
    "last.safetensors": write_member,
    "resume.ckpt": write_checkpoint,
    "map.html": lambda p: maps.save(maps.speed_map({"AOI_7_Moscow_chip1": streets()}), p),
    "map.png": write_figure,
}


@pytest.mark.parametrize(
    "name, temporary",
    [*((name, "beside") for name in WRITERS), ("roads.gpkg", "elsewhere"), ("roads.gpkg", "alone")],
)
def test_a_full_disk(disk, tmp_path, monkeypatch, name, temporary):
    """With ever more room: first an error, at last the file, in between nothing else. What
    libraries need meanwhile (TMPDIR) lies beside it; or elsewhere; or it alone is on the full
    disk."""
    write = WRITERS[name]
    write(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    place = (tmp_path if temporary == "alone" else disk.folder) / "out" / name
    if temporary != "elsewhere":
        monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    outcomes = []
    for share in SHARES:
        disk.leave(int(share * len(whole)))
        try:
            write(place)
        except WriteError as e:
            assert str(place) in str(e) and "disk is full" in str(e), e
            assert not place.exists() and not disk.files(), share
            outcomes.append(False)
        else:
            assert place.read_bytes() == whole, (share, "partial, and no error")
            outcomes.append(True)
            place.unlink()
    disk.empty()
    assert outcomes == sorted(outcomes), "once there is room, there is"
    assert outcomes[-1] and (temporary == "alone" or not outcomes[0])
    write(place)
    assert place.read_bytes() == whole
    shutil.rmtree(place.parent)
    assert not disk.files()


def test_a_raster_goes_on_when_there_is_room(disk, tmp_path, monkeypatch):
    """Probabilities in windows, with ever more room: parts stay, the file on the way to the raster
    does not, and what comes out at last is what an empty disk gives."""
    image = scene(tmp_path / "a.tif", (500, 520))
    (member,) = members(tmp_path, preset(("test_resnet", 3)))
    options = dict(config=EnsembleConfig(tta="none", window_px=320), devices="cpu")
    whole = predict_raster([member], image, tmp_path / "whole.tif", **options).read_bytes()
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    out = disk.folder / "out" / "probs.tif"

    def refused(**more) -> None:
        with pytest.raises(WriteError) as e:
            predict_raster([member], image, out, **options, **more)
        assert str(out.parent) in str(e.value) and "disk is full" in str(e.value)
        assert not out.exists() and not [n for n in disk.files() if ".tmp-" in n]

    for free in (0, 1_500_000, 1_500_000):
        disk.leave(free)
        refused()
    disk.empty()
    for share in (0, 0.5, 1.2, 1.9, 2.15):
        seen: set[tuple[int, int]] = set()

        def fill(w, cells, share=share, seen=seen) -> None:
            "All cells are there: now the raster is written, and so much room is left."
            seen.update(cells)
            if len(seen) == len(w.all()):
                disk.leave(int(share * len(whole)))

        refused(beside=fill)
        assert not list(disk.folder.rglob("whole*")) and list(disk.folder.rglob("cell_*"))
    disk.empty()
    predict_raster([member], image, out, **options)
    assert list(disk.files()) == ["out/probs.tif"] and out.read_bytes() == whole
    shutil.rmtree(out.parent)


def plan_of(paths, image, *, config, devices) -> dict:
    "What a run with these would write as its plan."
    opened = tiled_inference.open_everywhere(paths, config, tiled_inference.find_devices(devices))
    return tiled_inference.make_plan(opened[0], tiled_inference.scene_for(opened[0], image), config)


def test_a_leftover_of_an_older_version_is_no_obstacle(tmp_path):
    "`whole.tif` of a run whose disk was full: GDAL refuses to open such a file again."
    image = scene(tmp_path / "a.tif", (300, 320))
    (member,) = members(tmp_path, preset(("test_resnet", 3)))
    options = dict(config=EnsembleConfig(tta="none", window_px=320), devices="cpu")
    whole = predict_raster([member], image, tmp_path / "whole.tif", **options).read_bytes()
    plan = plan_of([member], image, **options)
    for left in (b"", whole[: len(whole) // 2]):
        parts = tmp_path / "out.tif.parts"
        parts.mkdir()
        core.write_json(parts / "plan.json", plan)
        (parts / "whole.tif").write_bytes(left)
        out = predict_raster([member], image, tmp_path / "out.tif", **options)
        assert out.read_bytes() == whole and not parts.exists()
        out.unlink()


def test_a_pipeline_on_a_full_disk(world, disk):
    """One line that names a file and the cure, and nothing half-written; with room the same bytes
    as on a disk that was never full."""
    own = {"TMPDIR": str(world.home / "tmp"), "SPACENET5_OUTPUTS": str(disk.folder)}
    Path(own["TMPDIR"]).mkdir()

    def pipeline() -> subprocess.CompletedProcess:
        call = command("pipeline", "--preset", "demo", "--devices", "cpu")
        env = environment(world.home) | own
        return subprocess.run(call, cwd=world.home, env=env, capture_output=True, text=True)

    for free in (0, 300_000, 800_000):
        disk.leave(free)
        done = pipeline()
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 1 and len(lines) == 1, done.stderr[-3000:]
        assert "disk is full" in lines[0] and "demo/" in lines[0], lines
        assert not [n for n in disk.files() if ".tmp-" in n or ".running" in n]
    disk.empty()
    done = pipeline()
    assert done.returncode == 0, done.stderr[-3000:]
    again = results(world.home, str(disk.folder))
    assert [name for name in world.made if again[name] != world.made[name]] == []
    shutil.rmtree(disk.folder / "demo")
