"The original's four networks, output for output, after filling their state dicts by the reference's rule."

import json
import zlib

import numpy as np
import pytest
import torch

from spacenet5_nb.model import SELIM_SEF, from_selim_sef

pytestmark = pytest.mark.shared


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
def test_outputs_equal_the_originals(shared, network):
    keys = json.loads((shared / "reference/model/state_dict_keys.json").read_text())[network][
        "keys"
    ]
    net = from_selim_sef({"state_dict": {f"module.{k}": filled(k, s) for k, s in keys}}, network)
    expected = np.load(shared / f"reference/model/{network}_128.npz")["y"]
    x = (
        np.random.default_rng(128)
        .standard_normal((1, net.spec["in_channels"], 128, 128))
        .astype(np.float32)
    )
    with torch.inference_mode():
        y = net(torch.tensor(x))[..., ::2, ::2].numpy()
    assert np.abs(y - expected).max() / np.abs(expected).max() < 1e-4
