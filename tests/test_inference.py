"""Ensembles on chips and on rasters of any size: members that fit together, windows that agree
with the whole, resume, memory, damage."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from fresh import members
from hypothesis import given
from hypothesis import strategies as st

from spacenet5_nb import core, ensemble, model, raster
from spacenet5_nb.core import CheckpointError, DataError, EnsembleConfig, StageError
from spacenet5_nb.inference import sliding_windows, tiled_inference, window_store
from spacenet5_nb.raster import CRS, Grid

UTM = CRS.from_epsg(32611)


def preset(*folds, **more):
    return core.load_preset(
        {
            "name": "tiny",
            "decoder": [8, 8, 8, 8],
            "folds": [{"encoder": e, "pretrained": False, "bands": b} for e, b in folds],
        }
        | more
    )


def scene(path, shape, bands=3, pixel=0.5, hole=None, dtype=np.uint16):
    "Blocks of 16 pixels with noise, as a GeoTIFF."
    rng = np.random.default_rng(shape[0])
    image = (
        rng.gamma(6, 60, (bands, -(-shape[0] // 16), -(-shape[1] // 16)))
        .repeat(16, 1)
        .repeat(16, 2)[:, : shape[0], : shape[1]]
    )
    image = (image + rng.gamma(4, 15, image.shape)).clip(1, 65535).astype(dtype)
    if hole:
        image[:, *hole] = 0
    return raster.write(path, image, grid=Grid(shape, Affine(pixel, 0, 5e5, 0, -pixel, 4e6), UTM))


def inside(a, border=64):
    return a[:, border:-border, border:-border].astype(int)


@pytest.mark.slow
def test_twelve_members_rgb_and_eight_band_together(tmp_path):
    """Four folds of two encoders, one on eight bands, three checkpoints each, in windows as in the
    whole."""
    p = preset(("test_resnet", 3), ("test_resnet", 3), ("test_convnext", 8), ("test_convnext", 3))
    paths = members(tmp_path, p, ("last", "best_dice", "best_apls"))
    assert len(ensemble.open_members(paths, device="cpu")) == 12
    image = scene(tmp_path / "a.tif", (384, 416), bands=8)
    whole = ensemble.predict(paths, image, tta="d4", device="cpu", as_bytes=True)
    out = tiled_inference.predict_raster(
        paths,
        image,
        tmp_path / "out.tif",
        config=EnsembleConfig(tta="d4", window_px=320, margin_px=64, blend_px=32),
        devices="cpu",
    )
    got = raster.read(out)
    assert got.std() > 5 and np.abs(inside(got) - inside(whole)).max() <= 1
    alone = np.mean(
        [
            ensemble.predict([m], raster.read_chip(image, 8)[0], tta="none", device="cpu")
            for m in paths
        ],
        axis=0,
    )
    assert np.allclose(
        ensemble.predict(paths, raster.read_chip(image, 8)[0], tta="none", device="cpu"),
        alone,
        atol=1e-5,
    ), "the plain mean"


@pytest.mark.parametrize(
    ("shape", "gsd_m", "scales"),
    [
        ((500, 333), None, (1,)),
        ((640, 420), 0.8, (1,)),
        ((300, 260), 0.35, (1,)),
        ((40, 700), None, (1,)),
        ((500, 333), None, (1, 2)),
    ],
)
def test_any_size_and_pixel_agrees_with_one_window(tmp_path, shape, gsd_m, scales):
    paths = members(tmp_path, preset(("test_resnet", 3), data={"gsd_m": gsd_m}))
    image = scene(tmp_path / "a.tif", shape)
    one, many = (
        raster.read(
            tiled_inference.predict_raster(
                paths,
                image,
                tmp_path / f"{w}.tif",
                config=EnsembleConfig(tta="none", window_px=w, blend_px=32, scales=scales),
                devices="cpu",
            )
        )
        for w in (1024, 320 if scales == (1,) else 512)
    )
    assert one.shape == many.shape == (12, *raster.target_grid(image, gsd_m).shape)
    assert np.abs(one.astype(int) - many).max() <= 1, (
        "reflection at the border is the same in all windows"
    )


def test_pixel_sizes_are_averaged_and_part_of_the_plan(tmp_path):
    """A raster in windows and an array as a whole are seen at both sizes; what was made at one is
    made anew."""
    paths = members(tmp_path, preset(("test_resnet", 3)), std=0.5)
    image, out = scene(tmp_path / "a.tif", (160, 192)), tmp_path / "out.tif"
    fine, coarse, both = (
        ensemble.predict(paths, image, tta="none", scales=s, device="cpu")
        for s in ((1,), (2,), (1, 2))
    )
    assert np.abs(fine - coarse).max() > 0.05
    assert np.allclose(both, (fine + coarse) / 2, atol=1e-5)
    for scales in ((1,), (1, 2)):
        config = EnsembleConfig(tta="none", scales=scales)
        tiled_inference.predict_raster(paths, image, out, config=config, devices="cpu")
    assert np.abs(inside(raster.read(out)) - inside(255 * both)).max() <= 1
    for wrong in ([], [0], [1.5]):
        with pytest.raises(core.PresetError, match="scales"):
            core.load_preset({"base": "demo", "name": "x", "ensemble": {"scales": wrong}})


def test_seams_of_a_network_that_sees_everything_do_not_show(tmp_path):
    """An encoder with global pooling differs from window to window: the blend must leave no step
    at a seam."""
    paths = members(tmp_path, preset(("test_efficientnet", 3)))
    image = scene(tmp_path / "a.tif", (320, 1200))
    config = EnsembleConfig(tta="none", window_px=448)
    p = raster.read(
        tiled_inference.predict_raster(
            paths, image, tmp_path / "o.tif", config=config, devices="cpu"
        )
    ).astype(float)
    seams = [s.low for s in sliding_windows.spans(1200, window=448)[1:]]
    steps = np.abs(np.diff(p, axis=2)).mean((0, 1))  # between a column and the next
    near = np.concatenate([steps[s - 33 : s + 33] for s in seams])
    block = np.arange(len(steps)) % 16 == 15  # the picture's own edges
    ratio = near.mean() / np.delete(steps, [x for s in seams for x in range(s - 33, s + 33)]).mean()
    assert len(seams) == 4 and block.any() and 0.8 < ratio < 1.25


def test_members_that_do_not_fit_are_named(tmp_path):
    good = members(tmp_path / "a", preset(("test_resnet", 3)))
    for change, word in (
        ({"channels": "cresi"}, "channels.*speed_70"),
        ({"data": {"gsd_m": 0.5}}, "ground sample distance"),
        ({"data": {"stretch": "fixed"}}, "stretch"),
    ):
        other = members(tmp_path / word[:5], preset(("test_resnet", 3), **change))
        with pytest.raises(CheckpointError, match=f"has another {word}"):
            ensemble.open_members(good + other, device="cpu")
    old = model.load(good[0])
    del old.info["channels"]["orientations"], old.info["channels"]["continuous"]
    ensemble.open_members(
        [*good, model.save(old, tmp_path / "old.safetensors")], device="cpu"
    )  # written before these were there: the same channels


def test_a_hard_vote_counts_members(tmp_path):
    paths = members(tmp_path, preset(*[("test_resnet", 3)] * 3))
    image = raster.read_chip(scene(tmp_path / "a.tif", (96, 96)), 3)[0]
    alone = np.stack([ensemble.predict([m], image, tta="flips", device="cpu") for m in paths])
    assert np.allclose(
        ensemble.predict(paths, image, tta="flips", device="cpu", combine="vote"),
        (alone >= 0.5).mean(0),
    )
    assert np.allclose(
        ensemble.predict(
            paths, image, tta="flips", device="cpu", combine="vote", weights=[2, 1, 1]
        ),
        np.average(alone >= 0.5, axis=0, weights=[2, 1, 1]),
    )


KILLED = """
import os, signal, sys
from spacenet5_nb import core
from spacenet5_nb.inference import tiled_inference
real, n = tiled_inference.mean_of_members, int(sys.argv[3])
done = []
def counting(*a, **k):
    if len(done) == n: os.kill(os.getpid(), signal.SIGKILL)
    done.append(1)
    return real(*a, **k)
tiled_inference.mean_of_members = counting
options = dict(config=core.EnsembleConfig(tta="none", window_px=320), devices="cpu")
tiled_inference.predict_raster([sys.argv[1]], sys.argv[2], sys.argv[4], **options)
print(len(done))
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_at_the_same_bytes(tmp_path):
    "SIGKILL in mid-run, twice; windows that were finished are not computed again."
    (path,) = members(tmp_path, preset(("test_resnet", 3)))
    image = scene(tmp_path / "a.tif", (480, 520), hole=(slice(0, 250), slice(0, 250)))

    def run(kill_at, out):
        return subprocess.run(
            [sys.executable, "-c", KILLED, path, image, str(kill_at), tmp_path / out],
            capture_output=True,
            text=True,
            env=os.environ | {"SPACENET5_PROGRESS": "0"},
        )

    whole = int(run(999, "whole.tif").stdout.split()[-1])
    counts = []
    for kill_at in (5, 4):
        assert (
            run(kill_at, "out.tif").returncode == -signal.SIGKILL
            and not (tmp_path / "out.tif").exists()
        )
        counts.append(len(list((tmp_path / "out.tif.parts").glob("[pc]*_*"))))
    left = run(999, "out.tif")
    assert left.returncode == 0, left.stderr
    assert (
        int(left.stdout.split()[-1]) <= whole - 5
        and (tmp_path / "out.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    )
    assert (
        not list(tmp_path.glob("*.parts")) and not list(tmp_path.glob(".tmp*")) and min(counts) > 0
    )


def test_other_members_or_another_image_start_anew(tmp_path):
    a, b = members(tmp_path, preset(("test_resnet", 3), ("test_resnet", 3)))
    image, config = scene(tmp_path / "a.tif", (400, 300)), EnsembleConfig(tta="none", window_px=320)
    one = tiled_inference.predict_raster(
        [a], image, tmp_path / "o.tif", config=config, devices="cpu"
    ).read_bytes()
    two = tiled_inference.predict_raster(
        [b], image, tmp_path / "o.tif", config=config, devices="cpu"
    ).read_bytes()
    assert (
        one != two
        and one
        == tiled_inference.predict_raster(
            [a], image, tmp_path / "o.tif", config=config, devices="cpu"
        ).read_bytes()
    )
    stale = tmp_path / "p.tif.parts"
    stale.mkdir()
    (stale / "plan.json").write_text("{}")
    (stale / "cell_0000_0000.tif").write_bytes(b"of something else")
    assert (
        one
        == tiled_inference.predict_raster(
            [a], image, tmp_path / "p.tif", config=config, devices="cpu"
        ).read_bytes()
    )


def test_one_process_at_a_time(tmp_path):
    (path,) = members(tmp_path, preset(("test_resnet", 3)))
    with tiled_inference.workplace(tmp_path / "o.tif", {"a": 1}):
        with (
            pytest.raises(StageError, match="another process"),
            tiled_inference.workplace(tmp_path / "o.tif", {"a": 1}),
        ):
            pass


def test_two_devices_divide_the_windows(tmp_path):
    "Two copies of the members beside each other, as on two GPUs; the result is the same file."
    paths = members(tmp_path, preset(("test_resnet", 3), ("test_resnet", 8)))
    image, config = (
        scene(tmp_path / "a.tif", (420, 500), bands=8),
        EnsembleConfig(tta="flips", window_px=320),
    )
    one, two = (
        tiled_inference.predict_raster(
            paths, image, tmp_path / f"{d.count(',')}.tif", config=config, devices=d
        )
        for d in ("cpu", "cpu,cpu")
    )
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(StageError, match="cuda:99.*is not here"):
        tiled_inference.predict_raster(paths, image, tmp_path / "x.tif", devices="cpu,cuda:99")
    with pytest.raises(StageError, match="open on one"):
        tiled_inference.predict_raster(
            ensemble.open_members(paths, device="cpu"), image, tmp_path / "x.tif", devices="cpu,cpu"
        )


@pytest.mark.slow
def test_many_hands_make_the_same_file(tmp_path, monkeypatch):
    """As beside a GPU: four threads look at values, three read, three write, two windows are
    computed at once; each cell is made once."""
    paths, image = (
        members(tmp_path / "m", preset(("test_resnet", 3))),
        scene(tmp_path / "a.tif", (1100, 1300)),
    )
    config = EnsembleConfig(tta="none", window_px=320, blend_px=32)
    one = tiled_inference.predict_raster(
        paths, image, tmp_path / "one.tif", config=config, devices="cpu"
    )
    made, real = [], window_store.make_cell
    monkeypatch.setattr(window_store, "make_cell", lambda w, at: (made.append(at), real(w, at)))
    monkeypatch.setattr(tiled_inference, "crew", lambda device: (3, 2))
    monkeypatch.setenv("SPACENET5_WORKERS", "12")
    many = tiled_inference.predict_raster(
        paths, image, tmp_path / "many.tif", config=config, devices="cpu"
    )
    assert many.read_bytes() == one.read_bytes() and len(made) == len(set(made)) > 20


def test_fused_members_say_the_same(tmp_path):
    paths, image = (
        members(tmp_path / "m", preset(("test_resnet", 3), ("dpn92", 3), decoder_norm="none")),
        np.random.default_rng(0).integers(0, 256, (3, 96, 128), dtype=np.uint8),
    )
    plain, fused = (
        ensemble.predict(ensemble.open_members(paths, device="cpu", fuse=f), image, tta="none")
        for f in (False, True)
    )
    assert np.abs(plain - fused).max() < 1e-4


def test_no_data_costs_nothing_and_stays_empty(tmp_path, monkeypatch):
    (path,) = members(tmp_path, preset(("test_resnet", 3)))
    image = scene(tmp_path / "a.tif", (800, 800), hole=(slice(0, 700), slice(0, 800)))
    calls, real = [], tiled_inference.mean_of_members
    monkeypatch.setattr(
        tiled_inference, "mean_of_members", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    out = tiled_inference.predict_raster(
        [path],
        image,
        tmp_path / "o.tif",
        config=EnsembleConfig(tta="none", window_px=320),
        devices="cpu",
    )
    rows, columns = (sliding_windows.spans(800, window=320) for _ in range(2))
    assert len(calls) == sum(s.last > 700 for s in rows) * len(columns) < len(rows) * len(columns)
    p = raster.read(out)
    with raster.open_raster(out) as source:
        mask = source.dataset_mask()
    assert not p[:, :700].any() and p[:, 700:].any() and not mask[:700].any() and mask[700:].all()


def test_the_result_is_cloud_optimized_and_says_its_bands(tmp_path):
    (path,) = members(tmp_path, preset(("test_resnet", 3)))
    out = tiled_inference.predict_raster(
        [path],
        scene(tmp_path / "a.tif", (700, 1100)),
        tmp_path / "o.tif",
        config=EnsembleConfig(tta="none"),
        devices="cpu",
    )
    with raster.open_raster(out) as source:
        assert (
            source.descriptions == core.Channels.selim_sef().names
            and source.profile["tiled"]
            and source.profile["compress"] == "deflate"
        )
        assert source.block_shapes[0] == (512, 512) and source.overviews(1) == [2, 4, 8]
        directories = [
            int(source.get_tag_item("IFD_OFFSET", "TIFF", bidx=1, **at))
            for at in ({}, {"ovr": 0}, {"ovr": 1}, {"ovr": 2})
        ]
        assert max(directories) < min(
            int(source.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=b)) for b in range(1, 13)
        )


def test_one_stretch_for_the_whole_raster(tmp_path):
    "A bright half does not change how the dark half is seen next to it."
    path = scene(tmp_path / "a.tif", (300, 900))
    image = raster.read(path)
    image[:, :, 450:] *= 5
    raster.write(path, image, grid=raster.grid_of(path))
    found = sliding_windows.open_scene(path, 3)
    assert np.allclose(found.limits, raster.stretch_limits(image))
    chip, seen = raster.read_chip(path, 3)[0], []
    for s in sliding_windows.spans(900, window=320):
        seen.append(
            sliding_windows.read_window(found, sliding_windows.spans(300)[0], s)[0][
                :, 32:332, s.low - s.start : s.high - s.start
            ]
        )
    assert np.array_equal(np.concatenate(seen, 2), chip)


def test_a_damaged_raster_is_named_and_leaves_no_result(tmp_path):
    (path,) = members(tmp_path, preset(("test_resnet", 3)))
    image = scene(tmp_path / "a.tif", (600, 600))
    data = image.read_bytes()
    image.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError, match="truncated|damaged"):
        tiled_inference.predict_raster(
            [path], image, tmp_path / "o.tif", config=EnsembleConfig(window_px=320), devices="cpu"
        )
    assert not (tmp_path / "o.tif").exists()


def test_a_list_of_tiles_is_one_raster(tmp_path):
    (path,) = members(tmp_path, preset(("test_resnet", 3)))
    image = scene(tmp_path / "a.tif", (400, 640))
    pixels, grid = raster.read(image), raster.grid_of(image)
    rows = ""
    for c in (0, 320):
        raster.write(
            tmp_path / f"{c}.tif",
            pixels[:, :, c : c + 320],
            grid=Grid((400, 320), grid.transform * Affine.translation(c, 0), UTM),
        )
    for b in (1, 2, 3):
        rows += (
            f'<VRTRasterBand dataType="UInt16" band="{b}">'
            + "".join(
                '<SimpleSource><SourceFilename relativeToVRT="1">'
                f"{c}.tif</SourceFilename><SourceBand>{b}</SourceBand><SrcRect "
                'xOff="0" yOff="0" xSize="320" ySize="400"/>'
                f'<DstRect xOff="{c}" yOff="0" xSize="320" ySize="400"/></SimpleSource>'
                for c in (0, 320)
            )
            + "</VRTRasterBand>"
        )
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="640" rasterYSize="400"><SRS>{UTM.to_wkt()}</SRS>'
        "<GeoTransform>"
        f"{', '.join(map(str, grid.transform.to_gdal()))}</GeoTransform>"
        f"{rows}</VRTDataset>"
    )
    config = EnsembleConfig(tta="none", window_px=320)
    one, two = (
        raster.read(
            tiled_inference.predict_raster(
                [path], s, tmp_path / f"{s.suffix}.tif", config=config, devices="cpu"
            )
        )
        for s in (image, tmp_path / "a.vrt")
    )
    assert np.array_equal(one, two)


PEAK = """
import sys
from spacenet5_nb import core
from spacenet5_nb.inference import sliding_windows, tiled_inference
tiled_inference._CACHE = 16_000_000   # GDAL's own, which fills up with any raster, is not measured
sliding_windows.KEPT_BYTES = 0        # nor are the pixels that are kept of a small one
options = dict(config=core.EnsembleConfig(tta="none", window_px=512), devices="cpu")
tiled_inference.predict_raster([sys.argv[1]], sys.argv[2], sys.argv[3], **options)
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_raster(tmp_path):
    """Five times the pixels (65 MB of probabilities more, 260 as 32-bit numbers) within 40 MB of
    the same peak."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to read a process's peak memory")
    (path,) = members(tmp_path, preset(("test_resnet", 3)))
    peaks = []
    for n in (1, 5):
        image = scene(tmp_path / f"{n}.tif", (900 * n, 1500))
        done = subprocess.run(
            [sys.executable, "-c", PEAK, path, image, tmp_path / f"o{n}.tif"],
            capture_output=True,
            text=True,
            env=os.environ | {"SPACENET5_PROGRESS": "0"},
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]) / 1000)
    print(f"peaks {peaks} MB")
    assert peaks[1] < peaks[0] + 40


@given(
    st.integers(1, 4000),
    st.integers(224, 1500),
    st.sampled_from([0, 16, 64]),
    st.sampled_from([32, 64]),
)
def test_windows_cover_an_axis_once(n, window, blend, multiple):
    """Cells tile the axis, weights add up to 1, windows begin in phase and hold what they answer
    for, with a margin."""
    try:
        found = sliding_windows.spans(n, window=window, margin=32, blend=blend, multiple=multiple)
    except StageError:
        assert window < 2 * 128 + 64
        return
    total = np.zeros(n)
    for s in found:
        assert (
            s.start % multiple == s.stop % multiple == 0
            and s.start <= s.first <= s.low < s.high <= s.last <= s.stop
        )
        total[s.first : s.last] += sliding_windows.turns(s, n, blend)
    assert (
        [s.high for s in found[:-1]] == [s.low for s in found[1:]]
        and found[0].low == 0
        and found[-1].high == n
        and np.allclose(total, 1, atol=1e-5)
    )


def test_a_preset_says_how_members_are_used():
    p = core.load_preset(
        {
            "base": "demo",
            "name": "x",
            "ensemble": {
                "combine": "vote",
                "weights": [1, 2],
                "precision": "bfloat16",
                "window_px": 512,
            },
        }
    )
    assert (
        replace(
            p.ensemble,
            combine="mean",
            weights=None,
            precision="float32",
            window_px=core.EnsembleConfig().window_px,
        )
        == core.load_preset("demo").ensemble
    )
    with pytest.raises(core.PresetError, match="combine"):
        core.load_preset({"base": "demo", "name": "x", "ensemble": {"combine": "median"}})
    assert json.loads(json.dumps(p.ensemble.weights)) == [1, 2]
