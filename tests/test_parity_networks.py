"""The original's four networks, output for output, after filling their state dicts by the
reference's rule."""

import zlib

import numpy as np
import pytest
import torch
from reference_cases import read_json

from spacenet5_nb.model import SELIM_SEF, from_selim_sef


def filled(name: str, shape: list[int]) -> torch.Tensor:
    "One tensor by the rule of the reference."
    r = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith("running_var"):
        values = r.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        values = r.standard_normal(shape) * 0.1
    elif len(shape) == 4:
        values = r.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = r.uniform(0.5, 1.5, shape)
    else:
        values = r.standard_normal(shape) * 0.1
    return torch.tensor(values.astype(np.float32))


@pytest.mark.parametrize("network", SELIM_SEF)
def test_outputs_equal_the_originals(reference, network):
    keys = read_json(reference / "model/state_dict_keys.json")[network]["keys"]
    net = from_selim_sef({"state_dict": {f"module.{k}": filled(k, s) for k, s in keys}}, network)
    expected = np.load(reference / f"model/{network}_128.npz")["y"]
    x = np.random.default_rng(128).standard_normal((1, net.spec["in_channels"], 128, 128))
    step = 128 // expected.shape[-1]  # every second or fourth row and column is stored
    with torch.inference_mode():
        y = net(torch.tensor(x.astype(np.float32)))[..., ::step, ::step].numpy()
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() / np.abs(expected).max() < 1e-4
