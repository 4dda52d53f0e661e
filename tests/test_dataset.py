"""Chips as training crops: windows only, the original's crops, rare classes, continuous speed, any
number of workers."""

from dataclasses import replace

import affine
import numpy as np
import pandas as pd
import pytest
import torch
from rasterio.crs import CRS
from torch.utils.data import DataLoader

from spacenet5_nb import raster
from spacenet5_nb.base.path_options import join_source
from spacenet5_nb.core import Channels, DataError, StageError, TrainConfig
from spacenet5_nb.training import dataset
from spacenet5_nb.training.dataset import (
    EpochSampler,
    Key,
    RoadDataset,
    bit_of,
    cached_image,
    make_augmentation,
    place_crop,
    unpack_target,
)

CHANNELS = Channels.best()


def grid_of(size):
    return raster.Grid((size, size), affine.Affine(1, 0, 5e5, 0, -1, 4e6), CRS.from_epsg(32611))


def make_chips(folder, channels=CHANNELS, n=4, size=200, bands=8) -> pd.DataFrame:
    "Chips with a slow road each; the last one also has a fast road and a crossing."
    rows = []
    for k in range(n):
        road, fast = np.zeros((size, size), bool), np.zeros((size, size), bool)
        road[40:48] = True
        fast[:, 150:156] = k == n - 1
        mask = np.zeros((len(channels), size, size), np.uint8)
        for where, mph in ((road, 25), (fast, 65)):
            if channels.continuous:
                mask[0][where] = 255 * mph // 65
            else:
                mask[channels.bin_of(mph)][where] = 255
        mask[channels.road][road | fast] = 255
        if channels.has_crossing:
            mask[channels.crossing][road & fast] = 255
        image = np.random.default_rng(k).integers(200, 300, (bands, size, size)) + 200 * (
            road | fast
        )
        raster.write(folder / f"c{k}.tif", image.astype(np.uint16), grid=grid_of(size))
        raster.write(folder / f"m{k}.tif", mask, grid=grid_of(size), descriptions=channels.names)
        rows.append(
            dict(
                chip=f"c{k}",
                city="AB"[k == n - 1],
                image=str(folder / f"c{k}.tif"),
                mask=str(folder / f"m{k}.tif"),
            )
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("chips"))


@pytest.fixture(scope="module")
def data(chips, tmp_path_factory):
    return RoadDataset(chips, 8, CHANNELS.names, crop=64, cache=tmp_path_factory.mktemp("cache"))


def test_a_crop_reads_its_own_rows_of_the_cache_and_no_geotiff(data, monkeypatch):
    seen, reading = [], dataset.read_window

    def refuse(*args, **kwargs):
        raise AssertionError("a GeoTIFF was opened for a crop")

    def spied(array, y, x, n):
        seen.append((isinstance(array, np.memmap), n))
        return reading(array, y, x, n)

    monkeypatch.setattr(raster, "open_raster", refuse)
    monkeypatch.setattr(dataset, "read_window", spied)
    for seed in range(30):
        data[Key(seed % 4, seed)]
    assert (
        len(seen) == 60
        and all(mapped for mapped, _ in seen)
        and {n for _, n in seen} <= set(range(51, 78))
    )


def test_a_window_of_a_large_geotiff_is_all_that_is_read_of_it(tmp_path):
    "The far end of the file is destroyed: whoever reads the whole of it fails."
    size, path = 1024, tmp_path / "town.tif"
    image = (
        np.random.default_rng(0).integers(1, 60000, (3, size, size)).astype(np.uint16)
    )  # noise: compression keeps blocks in order
    raster.write(path, image, grid=grid_of(size))
    whole = path.read_bytes()
    part = join_source(path, window="0,0,256,256")
    before = np.load(cached_image(part, 3, cache=tmp_path / "a"))
    path.write_bytes(whole[: -len(whole) // 4] + b"\xff" * (len(whole) // 4))
    with pytest.raises(DataError):
        cached_image(path, 3, cache=tmp_path / "b")
    assert before.shape == (3, 256, 256) and np.array_equal(
        np.load(cached_image(part, 3, cache=tmp_path / "c")), before
    )


def test_crops_have_the_originals_sizes_and_places():
    rng = np.random.default_rng(0)
    crops = np.array([place_crop(rng, (1300, 1300), 384) for _ in range(4000)])
    y, n = crops[:, 0], crops[:, 2]
    assert n.min() == 307 and n.max() == 461 and 0.08 < (n == 384).mean() < 0.13, (
        "one in ten is cut at its own size"
    )
    moved = (y < 0) | (y + n > 1300)
    assert 0.05 < moved.mean() < 0.1 and y.min() >= -260 and (y + n).max() <= 1560, (
        "a fifth of the side at most"
    )
    still = np.array([place_crop(rng, (1300, 1300), 384, shift=0) for _ in range(4000)])
    assert still[:, 0].min() >= 0 and (still[:, 0] + still[:, 2]).max() <= 1300
    middle = still[:, 0] / (1300 - still[:, 2])
    assert np.abs(np.histogram(middle, 5, (0, 1))[0] / 4000 - 0.2).max() < 0.03, (
        "everywhere as often"
    )


@pytest.mark.parametrize("bands", [3, 8])
@pytest.mark.parametrize("colour", dataset.COLOURS)
def test_every_change_of_colour_takes_any_number_of_bands(bands, colour):
    image = np.random.default_rng(0).integers(0, 256, (90, 90, bands)).astype(np.uint8)
    for seed in range(3):
        changed = make_augmentation(64, colour=(colour,), rotate_p=1)
        changed.set_random_seed(seed)
        out = changed(image=image, mask=np.ones((90, 90, 2), np.uint16))
        assert (
            out["image"].shape == (64, 64, bands)
            and out["image"].dtype == np.uint8
            and out["mask"].dtype == np.uint16
        )


def test_an_image_is_never_recoloured_without_colours():
    image = np.full((64, 64, 8), 100, np.uint8)
    plain = make_augmentation(64, colour=(), rotate_p=0)
    assert all(
        set(np.unique(plain(image=image, mask=image[..., :1])["image"])) == {100} for _ in range(5)
    )


def test_image_and_target_stay_together(data):
    "Roads are brighter, so wherever the target says road the picture must be bright."
    for seed in range(20):
        image, planes = data[Key(seed % 4, seed)]
        road = unpack_target(planes[None], CHANNELS.names)[0, CHANNELS.road]
        if 100 < road.sum() < 3000:
            assert image[0].float()[road].mean() > image[0].float()[~road].mean() + 20, seed


def test_workers_change_nothing(data):
    def epoch(workers):
        sampler = EpochSampler(data.cities, 12, seed=5, balanced=True)
        return [
            torch.cat([i.flatten(), p.flatten().float()])
            for i, p in DataLoader(data, 3, sampler=sampler, num_workers=workers)
        ]

    alone = epoch(0)
    for workers in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(alone, epoch(workers), strict=True))
    assert len({tuple(b[:200].tolist()) for b in alone}) == len(alone), "no two batches alike"


def test_cities_and_rare_classes_are_drawn_as_asked(data):
    plain = list(EpochSampler(data.cities, 400, seed=1))
    even = list(EpochSampler(data.cities, 400, seed=1, balanced=True))
    assert [sum(k.chip == 3 for k in keys) for keys in (plain, even)] == [100, 200]
    rare = data.find_rare(dataset.rare_channels(CHANNELS, 45))
    assert rare == {9: [3], CHANNELS.crossing: [3]}, "the fast road and its crossing, on one chip"
    keys = list(EpochSampler(data.cities, 400, seed=1, rare=rare, rare_share=0.25))
    placed = [k for k in keys if k.rare >= 0]
    assert (
        70 < len(placed) < 130
        and {k.chip for k in placed} == {3}
        and [k.seed for k in keys] == [k.seed for k in plain]
    )
    hits = [bool(unpack_target(data[k][1][None], CHANNELS.names)[0, k.rare].any()) for k in placed]
    assert np.mean(hits) > 0.9, "a rotation turns few out of sight"


def test_two_processes_share_an_epoch(data):
    whole = list(EpochSampler(data.cities, 12, seed=3, rank=0))
    shares = [list(EpochSampler(data.cities, 12, seed=3, rank=r, world=2)) for r in (0, 1)]
    assert not set(shares[0]) & set(shares[1]) and {*shares[0], *shares[1]} == set(whole)
    for step in range(2):
        assert {*shares[0][3 * step : 3 * step + 3], *shares[1][3 * step : 3 * step + 3]} == set(
            whole[6 * step : 6 * step + 6]
        ), "the same batch, whoever takes what"


def test_continuous_speed_reaches_the_loss_as_a_share_of_the_highest(tmp_path):
    channels = Channels.of_speed(65, has_crossing=True)
    data = RoadDataset(
        make_chips(tmp_path, channels),
        3,
        channels.names,
        crop=200,
        cache=tmp_path / "cache",
        train=TrainConfig(colour=(), shift=0.0),
    )
    planes = np.load(data.masks[3])
    target = unpack_target(torch.from_numpy(planes.astype(np.int32))[None], channels.names)[0]
    assert target.dtype == torch.float32 and np.allclose(
        sorted(target[0].unique()), [0, 98 / 255, 1], atol=1e-6
    )
    assert torch.equal(target[0] > 0, target[channels.road] > 0) and np.array_equal(
        bit_of(planes, channels.names, channels.road), target[channels.road] > 0
    )
    image, crop = data[Key(3, 1)]
    seen = set(unpack_target(crop[None], channels.names)[0, 0].unique().tolist())
    assert seen <= {*target[0].unique().tolist(), -1.0}, (
        "nearest: no speed is invented; -1 where a turned crop shows nothing"
    )


def test_what_cannot_be_trained_on_is_named(tmp_path, chips):
    turned = replace(Channels.selim_sef(), orientations=4)
    with pytest.raises(StageError, match="flips turn directions"):
        RoadDataset(chips, 3, turned.names, crop=64, cache=tmp_path)
    with pytest.raises(DataError, match="02_masks"):
        RoadDataset(chips, 3, Channels.cresi().names, crop=64, cache=tmp_path)
    raster.write(
        tmp_path / "small.tif",
        np.zeros((len(CHANNELS), 50, 50), np.uint8),
        grid=grid_of(50),
        descriptions=CHANNELS.names,
    )
    with pytest.raises(DataError, match="differ in size"):
        RoadDataset(
            chips[:1].assign(mask=str(tmp_path / "small.tif")),
            3,
            CHANNELS.names,
            crop=64,
            cache=tmp_path,
        )


def test_many_chips_are_converted_by_several_processes_in_their_order(tmp_path, monkeypatch):
    few = make_chips(tmp_path, n=2, size=40, bands=3)
    many = pd.concat([few] * 40, ignore_index=True)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = dataset.cache_chips(many, 3, CHANNELS.names, cache=tmp_path / "cache")
    assert (
        len(made) == 80
        and all(a == b for a, b in zip(made, made[:2] * 40, strict=True))
        and made[0][0].name.startswith("c0-")
        and made[1][1].name.startswith("m1-")
    )
