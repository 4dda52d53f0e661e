"Masks as labels: folders of public data sets, whatever can be wrong with them, and real tiles."

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spacenet5_nb import apls, explore, graph, masks, raster  # isort: skip
import rasterio  # isort: skip
from rasterio.errors import NotGeoreferencedWarning

from spacenet5_nb.apls import score_folder
from spacenet5_nb.base.known_channels import FROM_MASK, read_known
from spacenet5_nb.base.local_grid import PixelSize, local_grid
from spacenet5_nb.core import Channels, DataError, StageError
from spacenet5_nb.workflow.mask_labels import make_chips

SIDE = 200


def picture(path: Path, pixels: np.ndarray, **options) -> Path:
    "An image file without a georeference."
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
    size = dict(count=len(pixels), height=pixels.shape[1], width=pixels.shape[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver=driver, dtype=pixels.dtype, **size, **options) as t:
            t.write(pixels)
    return path


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    "A picture of two streets that cross, 200 px, and where they are."
    rng, road = np.random.default_rng(seed), np.zeros((SIDE, SIDE), bool)
    road[80 + seed : 88 + seed], road[:, 120 - seed : 128 - seed] = True, True
    image = rng.normal(90, 14, (3, SIDE, SIDE)) + 60 * road
    return image.clip(1, 255).astype("uint8"), road


def write_set(root: Path, n: int = 3, image: str = "images/{}.png", mask: str = "masks/{}.png"):
    "A folder of images and masks of 0 and 255."
    for k in range(n):
        pixels, road = scene(k)
        picture(root / image.format(k), pixels)
        picture(root / mask.format(k), road[None] * np.uint8(255))
    return root


def said_by(root: Path, out: Path, **options) -> list[str]:
    "Everything that making chips says."
    lines: list[str] = []
    make_chips(root, out, say=lines.append, **{"gsd": "0.5"} | options)
    return lines


LAYOUTS = {
    "DeepGlobe": ("train/{}_sat.jpg", "train/{}_mask.png"),
    "Massachusetts": ("train/sat/{}.tiff", "train/map/{}.tif"),
    "Massachusetts of Kaggle": ("tiff/train/{}.tiff", "tiff/train_labels/{}.tif"),
    "CIL": ("training/images/satImage_00{}.png", "training/groundtruth/satImage_00{}.png"),
    "labels": ("images/{}.jpg", "labels/{}.png"),
    "gt": ("images/{}.png", "gt_image/{}.png"),
    "one folder": ("{}.jpg", "{}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folders_of_public_sets_are_found(layout, tmp_path):
    image, mask = LAYOUTS[layout]
    write_set(tmp_path / "set", 2, image, mask)
    lines = said_by(tmp_path / "set", tmp_path / "chips")
    chips = explore.scan_chips(explore.find_chips(tmp_path / "chips"))
    assert not any("warning" in line for line in lines), lines
    assert len(chips) == 2 and not chips["fatal"].any()
    assert chips["road_km"].between(0.197, 0.203).all(), "100 m across and 100 m down"
    assert (chips["known_channels"] == ",".join(FROM_MASK)).all()
    assert not chips["problems"].any(), "no speed was guessed, so there is nothing to say"


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("0 and 1", lambda road: road[None].astype("uint8"), {}),
        ("grey 16 bit", lambda road: road[None] * np.uint16(65535), {}),
        ("yellow", lambda road: np.stack([road, road, road & False]) * np.uint8(255), {}),
        ("black on white", lambda road: ~road[None] * np.uint8(255), {}),
        ("with transparency", lambda road: _rgba(road), {}),
        ("128 as given", lambda road: road[None] * np.uint8(128), {"road_value": "128"}),
    ],
)
def test_masks_of_any_colours_give_the_same_lines(name, make, options, tmp_path):
    write_set(tmp_path / "plain", 2)
    for k in range(2):
        pixels, road = scene(k)
        picture(tmp_path / f"set/images/{k}.png", pixels)
        picture(tmp_path / f"set/masks/{k}.png", make(road))
    said_by(tmp_path / "plain", tmp_path / "a")
    said_by(tmp_path / "set", tmp_path / "b", **options)
    for k in range(2):
        a, b = (json.loads((tmp_path / f"{c}/labels/{k}.geojson").read_text()) for c in "ab")
        assert a["features"] == b["features"]


def _rgba(road: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [np.stack([road] * 3) * np.uint8(255), np.full((1, SIDE, SIDE), 255, "uint8")]
    )


def test_a_palette_is_colours(tmp_path):
    pixels, road = scene()
    picture(tmp_path / "set/images/0.png", pixels)
    path = picture(tmp_path / "set/masks/0.png", road[None].astype("uint8"))
    with rasterio.open(
        path, "w", driver="PNG", dtype="uint8", count=1, height=SIDE, width=SIDE
    ) as t:
        t.write(road[None].astype("uint8"))
        t.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 128, 0, 255)})
    assert "road is #ff8000" in said_by(tmp_path / "set", tmp_path / "chips")[0]


def test_pixels_that_are_not_square_stay_true(tmp_path):
    write_set(tmp_path / "set", 1)
    said_by(tmp_path / "set", tmp_path / "chips", gsd="0.4x0.8")
    chip = explore.scan_chips(explore.find_chips(tmp_path / "chips")).iloc[0]
    assert abs(chip["road_km"] - (SIDE * 0.4 + SIDE * 0.8) / 1000) < 0.003
    image, grid, _ = raster.read_chip(chip["image"], 3, gsd_m=0.4)
    assert image.shape[1:] == (2 * SIDE, SIDE) and abs(raster.gsd_of(grid) - 0.4) < 1e-3


def test_a_table_gives_each_source_its_pixel_size(tmp_path):
    for source in ("fine", "coarse"):
        write_set(tmp_path / "set", 1, f"{source}/images/{{}}.png", f"{source}/masks/{{}}.png")
    table = tmp_path / "sizes.csv"
    table.write_text("dataset,image,gsd_m\nfine,0.png,0.25\ncoarse,0.png,1\n")
    said_by(tmp_path / "set", tmp_path / "chips", gsd=str(table))
    made = pd.read_csv(tmp_path / "chips/masks.csv").set_index("folder")
    assert made["road_km"]["coarse"] == pytest.approx(4 * made["road_km"]["fine"], rel=0.03)
    assert explore.find_chips(tmp_path / "chips")["chip"].tolist() == ["coarse_0", "fine_0"]


def test_a_georeference_is_kept_and_its_image_not_copied(tmp_path):
    pixels, road = scene()
    grid = local_grid((SIDE, SIDE), PixelSize(0.3, 0.3))
    elsewhere = grid._replace(transform=grid.transform @ grid.transform.translation(5000, 0))
    image = raster.write(tmp_path / "set/images/0.tif", pixels, grid=elsewhere)
    picture(tmp_path / "set/masks/0.png", road[None] * np.uint8(255))
    lines = said_by(tmp_path / "set", tmp_path / "chips", gsd="0.9")
    made = tmp_path / "chips/images/0.tif"
    assert made.is_symlink() and made.resolve() == image.resolve()
    assert any("not --gsd" in line for line in lines)


def test_targets_teach_what_a_mask_knows_and_nothing_else(tmp_path):
    write_set(tmp_path / "set", 1)
    said_by(tmp_path / "set", tmp_path / "chips")
    chip, best = explore.find_chips(tmp_path / "chips").iloc[0], Channels.best()
    target = tmp_path / "target.tif"
    masks.make_chip_mask((chip.image, chip.label, str(target), None, best, masks.MasksConfig()))
    bands, grid, names = raster.read_named(target)
    with rasterio.open(target) as source:
        assert source.tags()["known_channels"] == "road,junction"
    taught = [n for n, band in zip(names, bands, strict=True) if band.any()]
    assert taught == ["road", "junction"], "no speed is invented, and no bridge"
    width = (bands[best.road] > 0).sum() * 0.25 / 200
    assert abs(width - 4) < 0.3, f"streets of 4 m in the mask are {width:.1f} m in the target"


def test_a_chip_of_a_mask_is_judged_by_length(tmp_path):
    write_set(tmp_path / "set", 2)
    said_by(tmp_path / "set", tmp_path / "chips")
    label = tmp_path / "chips/labels/0.geojson"
    truth = graph.from_labels(label)
    assert read_known(label) == FROM_MASK
    assert not any("speed_kph" in d or "travel_time" in d for *_, d in truth.edges(data=True))
    assert apls.apls(truth, truth, weight="length").score == pytest.approx(1)
    for k in range(2):
        timed = graph.from_labels(
            explore.find_chips(tmp_path / "chips")["label"][k], crs=truth.graph["crs"]
        )
        for *_, d in timed.edges(data=True):
            d |= {"speed_kph": 40.0, "travel_time": d["length"] / 40 * 3.6}
        graph.write(timed, tmp_path / f"graphs/{k}.gpkg")
    found = score_folder(tmp_path / "chips", tmp_path / "graphs", workers=1)
    assert found.table["apls_length"].tolist() == pytest.approx([1, 1])
    assert found.table["apls_time"].isna().all() and set(found.table["untimed"]) == {"truth"}


# --- what can be wrong: each is an error that names the file and the cure, or a line that says so


def small_mask(root):
    picture(root / "masks/1.png", scene(1)[1][None, ::2, ::2] * np.uint8(255))


def three_colours(root):
    mask = scene(1)[1][None] * np.uint8(255)
    mask[0, :30, :30] = 128
    picture(root / "masks/1.png", mask)


def swapped(root):
    a, b = root / "images/1.png", root / "masks/1.png"
    third = a.rename(root / "third.png")
    b.rename(a)
    third.rename(b)


def all_swapped(root):
    (root / "images").rename(root / "third")
    (root / "masks").rename(root / "images")
    (root / "third").rename(root / "masks")


def all_swapped_jpeg(root):
    for k in range(3):
        (root / f"masks/{k}.png").unlink()
        picture(root / f"masks/{k}.jpg", scene(k)[1][None] * np.uint8(255), quality=60)
    all_swapped(root)


def three_colours_jpeg(root):
    for k in range(3):
        (root / f"masks/{k}.png").unlink()
        mask = scene(k)[1][None] * np.uint8(255)
        mask[0, :60, :60] = 128
        picture(root / f"masks/{k}.jpg", mask, quality=60)


def no_roads(root):
    for k in range(3):
        picture(root / f"masks/{k}.png", np.zeros((1, SIDE, SIDE), "uint8"))


def probability(root):
    smooth = np.linspace(0, 255, SIDE * SIDE).reshape(1, SIDE, SIDE)
    picture(root / "masks/1.png", smooth.astype("uint8"))


def truncated(root):
    path = root / "images/1.png"
    path.write_bytes(path.read_bytes()[:5000])


def grey(root):
    picture(root / "images/1.png", scene(1)[0][:1])


def two_masks(root):
    picture(root / "labels/1.png", scene(1)[1][None] * np.uint8(255))


def half_white(root):
    for k in range(3):
        mask = np.zeros((1, SIDE, SIDE), "uint8")
        mask[:, : SIDE // 2 + k] = 255
        picture(root / f"masks/{k}.png", mask)


WRONG = {
    "mask of another size": (small_mask, {}, ("masks/1.png", "100 x 100", "200 x 200")),
    "mask of three colours": (three_colours, {}, ("1.png", "3 colours", "128", "--road-value")),
    "image and mask swapped": (swapped, {}, ("masks/1.png", "swapped")),
    "images and masks swapped": (all_swapped, {}, ("masks/0.png", "swapped")),
    "images and masks of JPEG swapped": (all_swapped_jpeg, {}, ("masks/0.png", "swapped")),
    "JPEG masks of three colours": (three_colours_jpeg, {}, ("3 colours", "--road-value")),
    "no road in any mask": (no_roads, {}, ("one colour", "no road")),
    "a probability": (probability, {}, ("masks/1.png", "picture of 256 colours")),
    "a truncated image": (truncated, {}, ("images/1.png", "truncated")),
    "a grey image": (grey, {}, ("images/1.png", "red, green and blue")),
    "two masks of an image": (two_masks, {}, ("1.png", "two masks")),
    "two colours alike": (half_white, {}, ("could both be road", "--road-value")),
    "no pixel size": (None, {"gsd": ""}, ("images/0.png", "--gsd 0.5")),
    "a pixel size far outside": (None, {"gsd": "50"}, ("50 x 50 m", "half a metre")),
    "pixels of Landsat": (None, {"gsd": "30"}, ("30 x 30 m", "half a metre")),
    "centimetres for metres": (None, {"gsd": "0.01"}, ("0.01 x 0.01 m", "half a metre")),
    "pixel sizes mixed up": (None, {"gsd": "0.3x2"}, ("0.3 x 2 m", "across, then down")),
    "a pixel size that is none": (None, {"gsd": "half"}, ("--gsd half", "0.6x0.76")),
    "a table that is not there": (None, {"gsd": "none.csv"}, ("none.csv", "no such table")),
    "a road value that is none": (None, {"road_value": "red"}, ("--road-value red", "#ffff00")),
    "a road value not there": (None, {"road_value": "7"}, ("road value 7", "255")),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_file_and_cure_and_nothing_is_written(name, tmp_path):
    spoil, options, words = WRONG[name]
    root = write_set(tmp_path / "set")
    if spoil:
        spoil(root)
    with pytest.raises((DataError, StageError)) as e:
        said_by(root, tmp_path / "chips", **options)
    assert e.value.cure and all(word in str(e.value) for word in words), str(e.value)
    assert not (tmp_path / "chips/masks.csv").exists()
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize(
    "name",
    [n for n, (spoil, *_) in WRONG.items() if spoil in (small_mask, swapped, truncated, grey)],
)
def test_what_is_wrong_can_be_left_out_and_is_listed(name, tmp_path):
    root = write_set(tmp_path / "set")
    WRONG[name][0](root)
    lines = said_by(root, tmp_path / "chips", skip_problems=True)
    assert explore.find_chips(tmp_path / "chips")["chip"].tolist() == ["0", "2"]
    assert [line for line in lines if line.startswith("left out: ") and "1.png" in line]


def test_a_mask_without_any_road_is_reported_and_teaches_that_there_is_none(tmp_path):
    root = write_set(tmp_path / "set")
    picture(root / "masks/1.png", np.zeros((1, SIDE, SIDE), "uint8"))
    lines = said_by(root, tmp_path / "chips")
    assert "warning: 1: no road in it" in lines
    label = json.loads((tmp_path / "chips/labels/1.geojson").read_text())
    assert label["features"] == [] and read_known(tmp_path / "chips/labels/1.geojson") == FROM_MASK


def test_jpeg_in_a_mask_is_reported_and_moves_no_road(tmp_path):
    write_set(tmp_path / "plain")
    root = write_set(tmp_path / "set")
    for k in range(3):
        (root / f"masks/{k}.png").unlink()
        picture(root / f"masks/{k}.jpg", scene(k)[1][None] * np.uint8(255), quality=40)
    lines = said_by(root, tmp_path / "chips")
    said_by(tmp_path / "plain", tmp_path / "exact")
    assert sum("JPEG" in line for line in lines) >= 1
    for k in range(3):
        a, b = (graph.from_labels(tmp_path / f"{c}/labels/{k}.geojson") for c in ("exact", "chips"))
        assert apls.apls(a, b, weight="length").score > 0.98


def test_labels_of_half_of_the_images_are_reported(tmp_path):
    root = write_set(tmp_path / "set", 4)
    for k in (2, 3):
        (root / f"masks/{k}.png").rename(root / f"masks/other_{k}.png")
    lines = said_by(root, tmp_path / "chips")
    assert "warning: 2 of 4 images have no mask (2.png, 3.png): they become test chips" in lines
    assert any("2 of 4 masks have no image (other_2.png, other_3.png)" in line for line in lines)
    chips = explore.find_chips(tmp_path / "chips")
    assert (chips["label"] != "").tolist() == [True, True, False, False]


def test_lines_of_half_of_the_images_are_reported(tmp_path):
    "Labels that are lines: what has none is said; two that belong to no image are an error."
    root, line = tmp_path / "chips", '{"type": "FeatureCollection", "features": []}'
    for k in range(4):
        grid = local_grid((SIDE, SIDE), PixelSize(0.5, 0.5), slot=k, pitch_m=200)
        raster.write(root / f"images/{k}.tif", scene(k)[0], grid=grid)
    for k in (0, 1):
        (root / f"images/{k}.geojson").write_text(line)
    chips = explore.scan_chips(explore.find_chips(root), workers=1)
    assert ["no label" in p for p in chips["problems"]] == [False, False, True, True]
    for k in (8, 9):
        (root / f"images/{k}.geojson").write_text(line)
    with pytest.raises(DataError, match=r"9\.geojson.*belongs to no image.*Name each label file"):
        explore.find_chips(root)


def test_a_pixel_size_that_makes_roads_too_wide_is_warned_of(tmp_path):
    root = write_set(tmp_path / "set")
    lines = said_by(root, tmp_path / "chips", gsd="4.5")
    assert any("m wide: look at the pixel size" in line for line in lines)


def test_chips_with_lines_among_images_with_masks_are_an_error(tmp_path):
    root = write_set(tmp_path / "set")
    (root / "images/1.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(DataError, match="has lines beside it"):
        said_by(root, tmp_path / "chips")


def test_what_was_interrupted_goes_on_and_what_is_gone_is_removed(tmp_path):
    root, out = write_set(tmp_path / "set"), tmp_path / "chips"
    said_by(root, out)
    kept = (out / "labels/0.geojson").stat().st_mtime_ns
    (out / "labels/1.geojson").unlink()
    said_by(root, out)
    assert (out / "labels/0.geojson").stat().st_mtime_ns == kept
    assert (out / "labels/1.geojson").is_file()
    for path in (root / "images/2.png", root / "masks/2.png"):
        path.unlink()
    said_by(root, out)
    assert explore.find_chips(out)["chip"].tolist() == ["0", "1"]


def test_two_pictures_do_not_touch_each_other(tmp_path):
    write_set(tmp_path / "set", 3)
    said_by(tmp_path / "set", tmp_path / "chips")
    chips = explore.scan_chips(explore.find_chips(tmp_path / "chips"))
    boxes = chips[["minx", "maxx"]].sort_values("minx").to_numpy()
    assert (boxes[1:, 0] > boxes[:-1, 1] + 0.0005).all(), "50 m apart at least"


@pytest.mark.slow
def test_preparing_a_folder_of_images_and_masks_just_works(tmp_path):
    "Stages 01 and 02 read what was made of it; the notebooks run as they are."
    root = write_set(tmp_path / "set", 6)
    code = (
        "from spacenet5_nb.pipeline import run; "
        f"r = run('small', run='m', data_root={str(root)!r}, gsd='0.5', stop='02_masks'); "
        "print(sorted(p.name for p in (r.folder / 'masks').glob('*.tif')))"
    )
    environment = {"SPACENET5_OUTPUTS": str(tmp_path / "outputs"), "SPACENET5_WORKERS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'0.tif', '1.tif'" in done.stdout, done.stdout[-2000:]
    chips = pd.read_parquet(tmp_path / "outputs/m/chips.parquet")
    assert (chips["known_channels"] == ",".join(FROM_MASK)).all()


# --- real tiles


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    "Chips of all real tiles, with what the tiles' table says."
    root, out = shared / "data/real_roads", tmp_path_factory.mktemp("real") / "chips"
    if not root.is_dir():
        pytest.skip(f"no real tiles at {root}")
    made = make_chips(root, out, gsd=str(root / "tiles.csv"), say=lambda _: None)
    table = pd.read_csv(root / "tiles.csv")
    table["chip"] = table["dataset"] + "_" + table["image"].str.rsplit(".", n=1).str[0]
    return out, made.merge(table, on="chip", suffixes=("", "_table"))


def test_real_tiles_have_about_the_length_that_their_table_says(real):
    "Its lengths are of a mask's skeleton, pixel by pixel, which is longer than a line."
    _, made = real
    assert len(made) == 78
    sums = made.groupby("dataset")[["road_km", "road_km_table"]].sum()
    share = sums["road_km"] / sums["road_km_table"]
    print(sums.assign(share=share))
    assert share["spacenet3_vegas"] > 0.96 and share["massachusetts_roads"] > 0.94
    assert share["spacenet3_shanghai"] > 0.92 and share["gsi_japan_roads"] > 0.87
    assert (share < 1.01).all()


def test_lines_of_real_masks_lie_in_their_masks_and_cover_them(real):
    out, made = real
    for row in made.groupby("dataset").head(3).itertuples():
        grid = raster.grid_of(out / row.folder / "images" / f"{row.chip}.tif")
        y_m, x_m = raster.ground_size(grid)
        assert row.has_place or (x_m, y_m) == pytest.approx(
            (row.gsd_x_m_table, row.gsd_y_m_table), 1e-4
        )
        label = out / row.folder / "labels" / f"{row.chip}.geojson"
        channels = Channels.best()
        band = masks.make_masks(label, grid, channels, road_half_width_m=0.1)[channels.road] > 0
        with rasterio.open(row.mask) as source:
            road = source.read(1) > 127
        assert road[band].mean() > 0.97, f"{row.chip}: lines leave their mask"


def test_targets_may_be_the_masks_own_surface(tmp_path):
    "`masks.surface`: the road band is the mask; junctions, and chips with lines, stay as they are."
    write_set(tmp_path / "set", 1)
    said_by(tmp_path / "set", tmp_path / "chips", gsd="1")
    chip, best = explore.find_chips(tmp_path / "chips").iloc[0], Channels.best()
    made = {}
    for surface in (False, True):
        target = tmp_path / f"{surface}.tif"
        config = masks.MasksConfig(surface=surface)
        masks.make_chip_mask((chip.image, chip.label, str(target), None, best, config))
        made[surface] = raster.read(target)
    road = scene(0)[1]
    assert ((made[True][best.road] > 0) == road).all(), "8 m wide, as the mask is"
    assert (made[False][best.road] > 0).sum() < 0.6 * road.sum(), "4 m along the centre lines"
    assert (made[True][best.junction] == made[False][best.junction]).all()
    lines = json.loads(Path(chip.label).read_text())
    assert all(abs(f["properties"]["width_m"] - 8) < 1 for f in lines["features"])
    del lines["surface"]
    Path(chip.label).write_text(json.dumps(lines))
    with pytest.raises(DataError, match="keeps no surface.*from-masks"):
        masks.make_chip_mask((chip.image, chip.label, str(target), None, best, config))
