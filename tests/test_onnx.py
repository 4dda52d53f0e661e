"""Members as ONNX: every encoder that presets name, several members in one file, what Deepness
reads, and what is said where it cannot be."""

import json
import sys

import numpy as np
import pytest
import torch
from fresh import ENCODERS

from spacenet5_nb import core, extract, model, raster
from spacenet5_nb.core import StageError
from spacenet5_nb.inference.members import open_members
from spacenet5_nb.inference.onnx_export import export_onnx, run_onnx

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def own(members, pixels: np.ndarray, channels) -> np.ndarray:
    "What members say themselves."
    from spacenet5_nb.inference.members import probabilities

    images = torch.from_numpy(pixels)
    said = [probabilities(m, images[:, : m.net.spec["in_channels"]]) for m in members]
    return (sum(said) / len(said))[:, channels].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: f"{e[0]}-{e[1]}-{e[3]}")
def test_every_encoder_of_the_presets_is_exported(tmp_path, encoder):
    name, bands, decoder, norm = encoder
    torch.manual_seed(0)
    net = model.RoadUNet(name, bands, 12, decoder=decoder, norm=norm).eval()
    torch.nn.init.normal_(net.head.weight, std=0.3)
    net.info = model.build(core.load_preset("demo"), 0).info
    members = open_members([net], device="cpu")
    path = export_onnx(members, tmp_path / "a.onnx", outputs="all", tile=96)
    pixels = np.random.default_rng(1).integers(0, 256, (1, bands, 96, 96), dtype=np.uint8)
    said = own(members, pixels, list(range(12)))
    assert np.ptp(said) > 0.01 and np.abs(run_onnx(path, pixels) - said).max() < 1 / 255


@pytest.mark.slow
def test_a_shortcut_of_speeds_is_exported(tmp_path):
    torch.manual_seed(0)
    how = dict(decoder=[16] * 4, norm="batch", shortcut=(16, 10))
    net = model.RoadUNet("mobilenetv3_small_050", 3, 12, **how).eval()
    torch.nn.init.normal_(net.shortcut[1].weight, std=0.5)
    net.info = model.build(core.load_preset("demo"), 0).info
    members = open_members([net], device="cpu")
    path = export_onnx(members, tmp_path / "a.onnx", outputs="all", tile=96)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 3, 96, 96), dtype=np.uint8)
    said = own(members, pixels, list(range(12)))
    assert np.ptp(said[:, :10]) > 0.5 > np.ptp(said[:, 10:]), "speeds alone see the shortcut"
    assert np.abs(run_onnx(path, pixels) - said).max() < 1 / 255


@pytest.mark.slow
def test_the_members_that_come_with_the_workspace(tmp_path):
    "On the sample image at the members' pixel size, as Deepness reads a file: keys, square output."
    scales = core.load_preset("world").ensemble.scales
    members = open_members(extract.find_members("world"), device="cpu", scales=scales)
    path = export_onnx(members, tmp_path / "roads.onnx", tile=256, threshold=0.5)
    folder = extract.world_folder().parent / "sample"
    pixels = raster.read_chip(folder / "las_vegas.tif", 3, gsd_m=0.6)[0][None, :, :256, :256]
    assert len(scales) == 2 and pixels.shape[2:] == (256, 202)
    pixels = np.pad(pixels, ((0, 0), (0, 0), (0, 0), (0, 54)), "reflect")
    seen = run_onnx(path, pixels)
    road = model.info_channels(members[0].net.info).road
    assert len(members) == 1 and seen.shape == (1, 1, 256, 256)
    assert np.abs(seen - own(members, pixels, [road])).max() < 1 / 255
    assert 0.01 < (seen > 0.5).mean() < 0.6, "streets of Las Vegas are seen"
    said = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    assert (said["model_type"], said["tile_size"], said["resolution"]) == ("Segmentor", 256, 60)
    assert said["class_names"] == {"0": "not_road", "1": "road"} and said["seg_thresh"] == 0.5
    assert said["members"] == ["0.safetensors"]


def as_deepness_reads(path) -> dict:
    """What the plugin's model_base.py and segmentor.py (version of 2025) make of a file, in our own
    words: one input and one output, sizes from their last axes, values as JSON, classes counted
    from 0, a single channel is a binary mask of two classes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    said = session.get_modelmeta().custom_metadata_map
    names = sorted(json.loads(said["class_names"]).items(), key=lambda item: int(item[0]))
    assert [int(k) for k, _ in names] == list(range(len(names))), "classes are consecutive"
    assert len(made.shape) == 4 and made.shape[2] == made.shape[3], "square outputs"
    mean, std = (json.loads(said[f"standardization_{k}"]) for k in ("mean", "std"))
    assert len(mean) == len(std) == given.shape[-3]
    return dict(
        kind=str(json.loads(said["model_type"])).capitalize(),
        classes=[name for _, name in names],
        channels=2 if made.shape[-3] == 1 else made.shape[-3],
        tile=int(json.loads(said["tile_size"])),
        pixels=list(given.shape[-2:]),
        resolution=float(json.loads(said["resolution"])),
        overlap=int(json.loads(said["tiles_overlap"])),
        threshold=float(json.loads(said.get("seg_thresh", "0"))),
        small=int(json.loads(said.get("seg_small_segment", "0"))),
        scaling=float(json.loads(said.get("reg_output_scaling", "0"))),
    )


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["road", "all"])
def test_the_plugin_can_read_what_is_written(tmp_path, outputs):
    torch.manual_seed(0)
    net = model.RoadUNet("mobilenetv3_small_050", 3, 12, decoder=[16] * 4, norm="batch").eval()
    net.info = model.build(core.load_preset("demo"), 0).info
    members = open_members([net], device="cpu")
    seen = as_deepness_reads(export_onnx(members, tmp_path / "a.onnx", outputs=outputs, tile=64))
    is_road = outputs == "road"
    assert seen["kind"] == ("Segmentor" if is_road else "Regressor")
    assert seen["pixels"] == [seen["tile"]] * 2 == [64, 64]
    assert len(seen["classes"]) == seen["channels"] == (2 if is_road else 12)
    assert seen["resolution"] == 100 * net.info["gsd_m"] and 0 < seen["overlap"] < 100
    expected = (0.5, 9, 0.0) if is_road else (0.0, 0, 1.0)
    assert (seen["threshold"], seen["small"], seen["scaling"]) == expected


def test_a_library_that_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(StageError, match=r"needs onnxruntime.*spacenet5_nb\[onnx\]"):
        export_onnx([], tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
