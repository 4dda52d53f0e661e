"The published weights: found in the bucket, fetched, checked, turned into members."

import numpy as np
import pytest
import torch
from reference_cases import CHOICE, read_json
from test_download import moto, server  # noqa: F401  (fixtures: a local S3 server)
from test_parity_networks import filled
from typer.testing import CliRunner

from spacenet5_nb.acquire import published_weights
from spacenet5_nb.acquire.download import BUCKET
from spacenet5_nb.acquire.s3_transfer import DownloadError
from spacenet5_nb.model import load
from spacenet5_nb.pipeline import app


def put(server, **files):  # noqa: F811
    for name, data in files.items():
        server.s3.put_object(
            Bucket=BUCKET, Key=published_weights.PREFIX + name, Body=data, ACL="public-read"
        )


def test_an_entrant_is_found_fetched_once_and_checked(server, tmp_path, capsys):  # noqa: F811
    put(server, **{"3-selim_sef/a.pth": b"one" * 1000, "1-xd_xd/b.pth": b"two"})
    assert [f.read_bytes() for f in published_weights.download_weights("selim_sef", tmp_path)] == [
        b"one" * 1000
    ]
    assert "agrees with the MD5 sum" in capsys.readouterr().out
    published_weights.download_weights("selim_sef", tmp_path)
    assert "is there" in capsys.readouterr().out
    assert sorted(f.name for f in (tmp_path / "weights/selim_sef").iterdir()) == [
        "a.pth",
        "a.pth.stamp",
    ]
    with pytest.raises(DownloadError, match="There are: 1-xd_xd, 3-selim_sef"):
        published_weights.download_weights("nobody", tmp_path)


def test_the_command_makes_members(server, tmp_path):  # noqa: F811
    "A checkpoint in his format, under its published kind of name, becomes a member that loads."
    keys = read_json(CHOICE / "model/state_dict_keys.json")["dpn_unet"]["keys"]
    file = tmp_path / "dpn_unet_dpn92_3_best_dice"
    torch.save(
        {
            "epoch": 1,
            "state_dict": {f"module.{k}": filled(k, s) for k, s in keys},
            "dice_best": np.float64(0.5),
        },
        file,
    )
    put(server, **{"3-selim_sef/dpn_unet_dpn92_3_best_dice": file.read_bytes()})
    done = CliRunner().invoke(app, ["download", "--weights", "selim_sef", "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (
        load(tmp_path / "weights/selim_sef/members/dpn_unet_dpn92_3_best_dice.safetensors").spec[
            "encoder"
        ]
        == "dpn92"
    )
