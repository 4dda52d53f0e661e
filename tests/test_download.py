"""Tarballs come whole, checked and unpacked from a real S3 server on the loopback interface,
whatever interrupts, corrupts or attacks them."""

import gzip
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

boto3 = pytest.importorskip("boto3", reason="the extra [download] is not installed")
ThreadedMotoServer = pytest.importorskip(
    "moto.server", reason="moto, a local S3 server, is not installed"
).ThreadedMotoServer

from spacenet5_nb.acquire import download as d  # noqa: E402
from spacenet5_nb.acquire import s3_transfer, unpack  # noqa: E402
from spacenet5_nb.acquire.s3_transfer import DownloadError  # noqa: E402
from spacenet5_nb.core import DataError, WriteError  # noqa: E402
from spacenet5_nb.explore import find_chips  # noqa: E402

ROOT = Path(__file__).parents[1]
PART = 100_000
MOSCOW, MOSCOW_TEST = "SN5_roads_train_AOI_7_Moscow", "SN5_roads_test_public_AOI_7_Moscow"
VEGAS, VEGAS_SPEED, VEGAS_TEST = (
    "SN3_roads_train_AOI_2_Vegas",
    "SN3_roads_train_AOI_2_Vegas_geojson_roads_speed",
    "SN3_roads_test_public_AOI_2_Vegas",
)
# what SpaceNet 5's tarballs begin with
DISK = "nfs/data/cosmiq/spacenet/competitions/SN5_roads/tiles_upload/"


def key(name):
    return f"spacenet/{name[:9]}/tarballs/{name}.tar.gz"


def pack(*members):
    "A tar.gz of (name, bytes or TarInfo)."
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name, data = name, content if isinstance(content, bytes) else b""
            if isinstance(content, bytes):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def chips(name, folder, *products, kind="chip", n=3, size=40_000):
    """The members of a small SpaceNet tarball; bytes that do not shrink, so that it has several
    parts."""
    return [
        (
            f"{folder}/{p}/{name}_{p}_{kind}{i}.{'geojson' if 'geojson' in p else 'tif'}",
            os.urandom(size),
        )
        for p in products
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def moscow():
    return pack(
        (DISK.rstrip("/"), directory()),
        *chips(MOSCOW, f"{DISK}train/AOI_7_Moscow", "PS-MS", "PS-RGB", "geojson_roads_speed"),
    )


def directory():
    info = tarfile.TarInfo()
    info.type = tarfile.DIRTYPE
    return info


def special(kind, target=""):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


class Gate:
    "Stands before the server: remembers ranges, and can hold, cut or replace what is sent."

    def __init__(self, app):
        self.app, self.ranges, self.signed = app, [], []
        self.hold_from, self.cuts, self.before = None, 0, lambda start: None
        self.reached, self.release, self.ignore_ranges, self.deny_lists = (
            threading.Event(),
            threading.Event(),
            False,
            False,
        )

    def __call__(self, environ, start_response):
        if environ.get("HTTP_AUTHORIZATION") and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            self.signed.append(environ["PATH_INFO"])
        if self.deny_lists and "list-type" in environ["QUERY_STRING"]:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        wanted = re.fullmatch(r"bytes=(\d+)-\d+", environ.get("HTTP_RANGE", ""))
        if not wanted:
            return self.app(environ, start_response)
        start = int(wanted[1])
        self.ranges.append(start)
        self.before(start)
        if self.ignore_ranges:
            del environ["HTTP_RANGE"]
        return self._send(start, b"".join(self.app(environ, start_response)))

    def _send(self, start, body):
        yield body[: len(body) // 2]
        if self.hold_from is not None and start >= self.hold_from:
            self.reached.set()
            self.release.wait(120)
        if self.cuts:
            self.cuts -= 1
            raise ConnectionAbortedError("cut on purpose")
        yield body[len(body) // 2 :]


class Server:
    "A bucket, and the gate before it."

    def __init__(self, moto, app):
        moto._server.app = self.gate = Gate(app)
        self.endpoint = "http://{}:{}".format(*moto.get_host_and_port())
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="y",
        )
        urllib.request.urlopen(
            urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        ).close()  # what earlier tests put there
        self.s3.create_bucket(Bucket=d.BUCKET, ACL="public-read")

    def put(self, name, content, acl="public-read"):
        self.s3.put_object(Bucket=d.BUCKET, Key=key(name), Body=content, ACL=acl)


@pytest.fixture(scope="module")
def moto():
    out = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    out.start()
    assert out.get_host_and_port()[0] == "127.0.0.1"
    yield out, out._server.app
    out.stop()


@pytest.fixture
def server(moto, monkeypatch):
    out = Server(*moto)
    monkeypatch.setenv("SPACENET5_S3_ENDPOINT", out.endpoint)
    monkeypatch.setenv("SPACENET5_PROGRESS", "0")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield out
    out.gate.release.set()
    out.s3.close()


@pytest.fixture
def published(monkeypatch):
    "Pretend that these MD5 sums are published, and no others."

    def set_sums(**sums):
        monkeypatch.setattr(
            d,
            "CATALOGUE",
            tuple(
                replace(t, md5=sums.get(t.name.removesuffix(".tar.gz"), "")) for t in d.CATALOGUE
            ),
        )

    set_sums()
    return set_sums


def spacenet5(*arguments, before="", start=False):
    """The command in a process of its own, with no published sums and small parts, deaf to nothing
    (jobs in the background are born deaf to Ctrl-C); `before` runs first."""
    code = (
        "import dataclasses, signal, sys\nsignal.signal(signal.SIGINT, "
        "signal.default_int_handler)\nimport spacenet5_nb.acquire.download as d\n"
        "d.CATALOGUE = tuple(dataclasses.replace(t, md5='') for t in d.CATALOGUE)\n"
        f"d.download.__kwdefaults__.update(part_bytes={PART}, threads=2)\n"
        f"{before}\nfrom spacenet5_nb.pipeline import main\nmain()"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if start:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL
    )


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def until(condition):
    "Wait for what another process does; its not doing so is the failure."
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


# -- the way it should go


def test_the_command_ends_in_chips_that_are_found(server, moscow, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server.put(MOSCOW, moscow)
    server.put(
        "SN5_roads_test_public_AOI_9_San_Juan",
        pack(
            *chips(
                "SN5_roads_test_public_AOI_9_San_Juan", f"{DISK}test_public/AOI_9_San_Juan", "PS-MS"
            )
        ),
    )
    server.put(VEGAS, pack(*chips(VEGAS, "./AOI_2_Vegas", "PS-MS", "geojson_roads", kind="img")))
    server.put(VEGAS_SPEED, pack(*chips(VEGAS, "AOI_2_Vegas", "geojson_roads_speed", kind="img")))
    server.put(
        VEGAS_TEST,
        pack(
            *(
                (
                    f"AOI_2_Vegas_Roads_Test_Public/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img{i}.tif",
                    b"x",
                )
                for i in (7, 8)
            )
        ),
    )
    out = spacenet5(
        "download",
        "--aoi",
        "7,vegas",
        "--aoi",
        "San Juan",
        "--split",
        "all",
        "--to",
        tmp_path / "data",
    )
    assert out.returncode == 0, out.stderr
    assert f"{len(moscow) / 1024:,.1f} KiB  {MOSCOW}.tar.gz" in out.stdout and out.stdout.index(
        "CC BY-SA 4.0"
    ) < out.stdout.index("agrees with")
    assert "Attribution: SpaceNet on Amazon Web Services" in out.stdout and "free" in out.stdout
    found = find_chips(tmp_path / "data").set_index("chip")
    assert dict(found.groupby(["city", "split"]).size()) == {
        ("Moscow", "train"): 3,
        ("San_Juan", "test"): 3,
        ("Vegas", "train"): 3,
        ("Vegas", "test"): 2,
    }
    row = found.loc["AOI_7_Moscow_chip1"]
    home = tmp_path.resolve() / "data" / "SN5_roads" / "train" / "AOI_7_Moscow"
    assert (
        row["ps_ms"] == str(home / "PS-MS" / f"{MOSCOW}_PS-MS_chip1.tif")
        and row["ps_rgb"]
        and row["label"]
        == str(home / "geojson_roads_speed" / f"{MOSCOW}_geojson_roads_speed_chip1.geojson")
    )
    assert all(
        "/SN3_roads/train/AOI_2_Vegas/geojson_roads_speed/" in label
        for label in found.loc[(found["city"] == "Vegas") & (found["split"] == "train"), "label"]
    )
    assert not any(found.loc[found["split"] == "test", "label"]) and not server.gate.signed, (
        "anonymous, although there are keys in the environment"
    )
    assert {Path(f).suffix for f in files(tmp_path / "data" / "tarballs")} == {".stamp", ""}, (
        "stamps and the lock"
    )


def test_the_same_again_fetches_nothing(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)
    published(**{MOSCOW: hashlib.md5(moscow).hexdigest()})
    (folder,) = d.download(["7"], to=tmp_path, keep_archives=True, part_bytes=PART)
    stamp = json.loads((tmp_path / "tarballs" / f"{MOSCOW}.tar.gz.stamp").read_text())
    assert (
        stamp
        | {
            "files": 9,
            "md5": hashlib.md5(moscow).hexdigest(),
            "checked": "published MD5 sum",
            "key": key(MOSCOW),
        }
        == stamp
    )
    assert (tmp_path / "tarballs" / f"{MOSCOW}.tar.gz").read_bytes() == moscow
    assert sorted(server.gate.ranges) == list(range(0, len(moscow), PART))
    server.gate.ranges.clear()
    said = []
    assert (
        d.download(["7"], to=tmp_path, say=said.append) == [folder]
        and not server.gate.ranges
        and "Everything is there already" in said[-1]
    )
    (
        folder / "PS-MS" / f"{MOSCOW}_PS-MS_chip0.tif"
    ).unlink()  # a file is gone: the tarball that was kept gives it back
    d.download(["7"], to=tmp_path)
    assert not server.gate.ranges and len(files(folder)) == 9


def test_sizes_and_licence_are_said_before_anything_is_fetched(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)
    said = []

    def ask():
        assert (
            not server.gate.ranges
            and "CC BY-SA" in said[-1]
            and any(MOSCOW in s and "KiB" in s for s in said)
        )
        return False

    assert (
        d.download(["7"], to=tmp_path / "new", ask=ask, say=said.append) == []
        and not server.gate.ranges
        and not (tmp_path / "new").exists()
    )


def test_a_bar_that_can_be_silenced(server, moscow, published, tmp_path, monkeypatch, capfd):
    server.put(MOSCOW, moscow)
    d.download(["7"], to=tmp_path / "silent")
    assert not re.search(r"\d%\|", capfd.readouterr().err)
    monkeypatch.delenv("SPACENET5_PROGRESS")
    d.download(["7"], to=tmp_path / "loud")
    err = capfd.readouterr().err
    assert f"{MOSCOW}.tar.gz: 100%" in err and "check" in err and "unpack" in err


def test_only_fetched_then_unpacked(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)
    d.download(["7"], to=tmp_path, extract=False)
    assert files(tmp_path) == [
        f"tarballs/{n}" for n in (".lock", f"{MOSCOW}.tar.gz", f"{MOSCOW}.tar.gz.stamp")
    ]
    server.gate.ranges.clear()
    d.download(["7"], to=tmp_path, extract=False)
    d.download(["7"], to=tmp_path)
    assert (
        not server.gate.ranges
        and not (tmp_path / "tarballs" / f"{MOSCOW}.tar.gz").exists()
        and len(find_chips(tmp_path)) == 3
    )


def test_renamed_and_new_tarballs_are_found(server, published, tmp_path):
    for name, aoi in (
        ("SN5_roads_train_AOI_7_Moscow_v2", "AOI_7_Moscow"),
        ("SN5_roads_train_AOI_10_Dar_Es_Salaam", "AOI_10_Dar_Es_Salaam"),
    ):
        server.put(name, pack(*chips(name, f"train/{aoi}", "PS-RGB")))
    d.download(["moscow", "10"], to=tmp_path)
    assert set(find_chips(tmp_path)["city"]) == {"Moscow", "Dar_Es_Salaam"}


def test_list(server, moscow, tmp_path):
    server.put(MOSCOW, moscow)
    out = spacenet5("download", "--list")
    assert (
        out.returncode == 0
        and f"{len(moscow) / 1024:,.1f} KiB" in out.stdout
        and VEGAS not in out.stdout
        and not server.gate.ranges
    )


# -- interrupted


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name
)
def test_a_transfer_that_was_interrupted_goes_on(server, moscow, tmp_path, how):
    server.put(MOSCOW_TEST, moscow)
    server.gate.hold_from, finished = (
        3 * PART,
        [0, 1, 2],
    )  # the parts from the fourth on hang in the middle
    box, command = (
        tmp_path / "tarballs",
        ("download", "--aoi", "7", "--split", "test_public", "--to", tmp_path),
    )
    part = box / f"{MOSCOW_TEST}.tar.gz.part"
    process = spacenet5(*command, start=True)

    def recorded():
        return (
            json.loads(part.with_name(f"{part.name}.state").read_text())["done"]
            if part.with_name(f"{part.name}.state").exists()
            else []
        )

    until(
        lambda: (
            process.poll() is not None or recorded() == finished and server.gate.reached.is_set()
        )
    )
    assert process.poll() is None, process.stderr.read()
    process.send_signal(how)
    out, err = process.communicate(timeout=120)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[how]
    if how != signal.SIGKILL:
        assert f"are kept in {part}" in out and "the same command goes on" in out + err
    assert (
        part.stat().st_size == len(moscow)
        and recorded() == finished
        and not (tmp_path / "SN5_roads").exists()
        and not (box / f"{MOSCOW_TEST}.tar.gz").exists()
    )

    server.gate.hold_from = None
    server.gate.release.set()
    server.gate.ranges.clear()
    out = spacenet5(*command)
    assert out.returncode == 0, out.stderr
    assert sorted(server.gate.ranges) == list(range(3 * PART, len(moscow), PART)), (
        "only the missing parts were asked for"
    )
    assert (
        len(find_chips(tmp_path)) == 3
        and not part.exists()
        and not part.with_name(f"{part.name}.state").exists()
    )


def test_unpacking_that_was_killed_starts_again_without_the_network(server, moscow, tmp_path):
    server.put(MOSCOW, moscow)
    before = (
        "import spacenet5_nb.acquire.unpack as u\nwrite = u._write_file\n"
        "def slow(*a):\n    write(*a)\n    if 'chip2' in str(a[3]): print('now', "
        "flush=True); sys.stdin.readline()\nu._write_file = slow"
    )
    process = spacenet5("download", "--aoi", "7", "--to", tmp_path, before=before, start=True)
    assert any(line == "now\n" for line in iter(process.stdout.readline, "")), process.stderr.read()
    process.kill()
    process.communicate()
    assert [p.name for p in (tmp_path / "SN5_roads" / "train").iterdir()] == [
        f".unpack-{MOSCOW}.tar.gz"
    ], "nothing under a final name"
    with pytest.raises(DataError, match="no GeoTIFF"):
        find_chips(tmp_path)
    server.gate.ranges.clear()
    assert spacenet5("download", "--aoi", "7", "--to", tmp_path).returncode == 0
    assert (
        not server.gate.ranges
        and [p.name for p in (tmp_path / "SN5_roads" / "train").iterdir()] == ["AOI_7_Moscow"]
        and len(find_chips(tmp_path)) == 3
    )


def test_a_merge_that_was_killed_goes_on(server, published, tmp_path, monkeypatch):
    server.put(VEGAS, pack(*chips(VEGAS, "AOI_2_Vegas", "PS-RGB", kind="img")))
    server.put(VEGAS_SPEED, pack(*chips(VEGAS, "AOI_2_Vegas", "geojson_roads_speed", kind="img")))
    move, moved = os.replace, []

    def stop(a, b):
        if "geojson_roads_speed/" in str(b):
            moved.append(b)
            if len(moved) == 2:
                raise KeyboardInterrupt
        move(a, b)

    monkeypatch.setattr(unpack.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        d.download(["2"], to=tmp_path)
    monkeypatch.setattr(unpack.os, "replace", move)
    server.gate.ranges.clear()
    d.download(["2"], to=tmp_path)
    assert (
        not server.gate.ranges
        and all(find_chips(tmp_path)["label"])
        and len(find_chips(tmp_path)) == 3
    )


def test_an_answer_that_breaks_off_is_asked_for_again(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)
    server.gate.cuts = 3
    d.download(["7"], to=tmp_path, part_bytes=PART, threads=1)
    assert server.gate.ranges[:4] == [0, 0, 0, 0] and len(find_chips(tmp_path)) == 3


def test_a_line_that_dies_keeps_its_parts(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)

    def cut(start):
        server.gate.cuts = 100 * (start >= 2 * PART)

    server.gate.before = cut
    with pytest.raises(DownloadError, match="no connection to http://127.0.0.1.*are kept"):
        d.download(["7"], to=tmp_path, part_bytes=PART, threads=1)
    assert server.gate.ranges == [0, PART] + [2 * PART] * s3_transfer.TRIES
    server.gate.before, server.gate.cuts = lambda start: None, 0
    server.gate.ranges.clear()
    d.download(["7"], to=tmp_path, part_bytes=PART)
    assert (
        sorted(server.gate.ranges) == list(range(2 * PART, len(moscow), PART))
        and len(find_chips(tmp_path)) == 3
    )


def test_two_at_once(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)

    def other(start):
        with pytest.raises(DownloadError, match="another download is writing here"):
            d.download(["7"], to=tmp_path)

    server.gate.before = other
    d.download(["7"], to=tmp_path)
    assert len(server.gate.ranges) == 1


# -- changed, corrupted


def test_an_object_that_changed_between_two_runs(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)
    server.gate.before = lambda start: setattr(server.gate, "cuts", 100 * (start >= 2 * PART))
    with pytest.raises(DownloadError):
        d.download(["7"], to=tmp_path, part_bytes=PART, threads=1)
    server.gate.before, server.gate.cuts = lambda start: None, 0
    newer = pack(*chips(MOSCOW, f"{DISK}train/AOI_7_Moscow", "PS-MS", n=8))
    server.put(MOSCOW, newer)
    server.gate.ranges.clear()
    said = []
    d.download(["7"], to=tmp_path, part_bytes=PART, say=said.append)
    assert (
        any("changed on the server" in s for s in said)
        and sorted(server.gate.ranges) == list(range(0, len(newer), PART))
        and len(find_chips(tmp_path)) == 8
    )


def test_an_object_that_changes_during_the_transfer(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)
    newer = pack(*chips(MOSCOW, f"{DISK}train/AOI_7_Moscow", "PS-MS", n=8))
    server.gate.before = lambda start: server.put(MOSCOW, newer) if start == 2 * PART else None
    with pytest.raises(
        DownloadError, match="changed on the server while it was being fetched.*HTTP 412"
    ):
        d.download(["7"], to=tmp_path, part_bytes=PART, threads=1)
    server.gate.before = lambda start: None
    d.download(["7"], to=tmp_path, part_bytes=PART)
    assert len(find_chips(tmp_path)) == 8


def test_content_that_differs_from_the_published_sum(server, moscow, published, tmp_path):
    wrong = moscow[:-100] + bytes(100)
    server.put(MOSCOW, wrong)
    published(**{MOSCOW: hashlib.md5(moscow).hexdigest()})
    with pytest.raises(DownloadError) as e:
        d.download(["7"], to=tmp_path)
    assert (
        hashlib.md5(moscow).hexdigest() in str(e.value)
        and hashlib.md5(wrong).hexdigest() in str(e.value)
        and "Run the same command" in e.value.cure
    )
    assert (
        files(tmp_path) == [f"tarballs/{n}" for n in (".lock", f"{MOSCOW}.tar.gz.corrupt")]
        and (tmp_path / "tarballs" / f"{MOSCOW}.tar.gz.corrupt").read_bytes() == wrong
    )
    server.put(MOSCOW, moscow)
    d.download(["7"], to=tmp_path)
    assert len(find_chips(tmp_path)) == 3


def test_bytes_that_rot_on_this_disk_are_found_by_the_buckets_own_sum(
    server, moscow, published, tmp_path, monkeypatch
):
    server.put(MOSCOW, moscow)

    def rot(*a, **k):
        part = s3_transfer.fetch(*a, **k)
        with open(part, "r+b") as f:
            f.seek(5000)
            f.write(b"rot")
        return part

    monkeypatch.setattr(d, "fetch", rot)
    with pytest.raises(DownloadError, match="and the MD5 sum that the bucket gives is"):
        d.download(["7"], to=tmp_path)
    assert not (tmp_path / "SN5_roads").exists()


def test_an_upload_in_pieces_is_checked_by_its_etag_or_by_gzip(server, published, tmp_path):
    def upload(name, content, piece):
        whole = {"Bucket": d.BUCKET, "Key": key(name)}
        whole["UploadId"] = server.s3.create_multipart_upload(**whole, ACL="public-read")[
            "UploadId"
        ]
        parts = [
            {
                "PartNumber": n,
                "ETag": server.s3.upload_part(
                    **whole, PartNumber=n, Body=content[(n - 1) * piece : n * piece]
                )["ETag"],
            }
            for n in range(1, -(-len(content) // piece) + 1)
        ]
        server.s3.complete_multipart_upload(**whole, MultipartUpload={"Parts": parts})

    big = pack(*chips(MOSCOW_TEST, "test_public/AOI_7_Moscow", "PS-MS", n=3, size=3 << 20))  # 9 MiB
    said = []
    upload(MOSCOW_TEST, big, 8 << 20)
    d.download(["7"], "test_public", tmp_path / "a", say=said.append)
    assert any("agrees with the ETag" in s for s in said)
    upload(MOSCOW_TEST, big, 7 << 20)
    said.clear()
    d.download(["7"], "test_public", tmp_path / "b", say=said.append)
    assert any("has no published checksum; its size is right, and gzip checks" in s for s in said)
    upload(
        MOSCOW_TEST, big[:-2000], 7 << 20
    )  # truncated before it was uploaded: only gzip can tell
    with pytest.raises(DataError, match="not a whole tar.gz"):
        d.download(["7"], "test_public", tmp_path / "c")
    assert not list((tmp_path / "c").rglob("*.tif")) and not list(
        (tmp_path / "c" / "SN5_roads" / "test_public").iterdir()
    )


# -- attacked


@pytest.mark.parametrize(
    ("word", "members"),
    [
        ("'..'", [("AOI_7_Moscow/../../../../evil.tif", b"x")]),
        ("absolute", [("/tmp/evil.tif", b"x")]),
        ("absolute", [("C:\\evil.tif", b"x")]),
        (
            "is a link",
            [
                ("AOI_7_Moscow/PS-MS", special(tarfile.SYMTYPE, "../../../..")),
                ("AOI_7_Moscow/PS-MS/evil.tif", b"x"),
            ],
        ),
        ("is a link", [("AOI_7_Moscow/a.tif", special(tarfile.LNKTYPE, "../../../evil.tif"))]),
        ("neither", [("AOI_7_Moscow/a.tif", special(tarfile.CHRTYPE))]),
        ("neither", [("AOI_7_Moscow/a.tif", special(tarfile.FIFOTYPE))]),
        ("case alone", [("AOI_7_Moscow/a.tif", b"x"), ("AOI_7_Moscow/A.tif", b"y")]),
        ("twice", [("x/AOI_7_Moscow/a.tif", b"x"), ("y/AOI_7_Moscow/a.tif", b"y")]),
        ("too long", [("AOI_7_Moscow/" + "a" * 300, b"x")]),
        ("more than may be unpacked", [("AOI_7_Moscow/zeros.tif", bytes(20_000_000))]),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_hostile_archives_leave_nothing(server, published, tmp_path, word, members):
    (tmp_path / "data").mkdir()
    server.put(MOSCOW, pack(("AOI_7_Moscow/first.tif", b"first"), *members))
    with pytest.raises(DataError, match=re.escape(word)) as e:
        d.download(["7"], to=tmp_path / "data")
    assert "do not trust" in str(e.value)
    assert (
        not [f for f in files(tmp_path) if not f.startswith("data/tarballs/")]
        and not Path("/tmp/evil.tif").exists()
    )


def test_zeros_without_end_after_the_archive(server, published, tmp_path):
    server.put(
        MOSCOW,
        gzip.compress(gzip.decompress(pack(("AOI_7_Moscow/a.tif", b"x"))) + bytes(30_000_000)),
    )
    with pytest.raises(DataError, match="unpacks to more than"):
        d.download(["7"], to=tmp_path)
    assert not list((tmp_path / "SN5_roads" / "train").iterdir())


def test_too_many_members(server, published, tmp_path, monkeypatch):
    monkeypatch.setitem(unpack.unpack.__kwdefaults__, "max_files", 5)
    server.put(MOSCOW, pack(*((f"AOI_7_Moscow/{i}.tif", b"x") for i in range(6))))
    with pytest.raises(DataError, match="'AOI_7_Moscow/5.tif' is one too many"):
        d.download(["7"], to=tmp_path)


def test_more_than_the_disk_has(server, published, tmp_path, monkeypatch):
    server.put(MOSCOW, pack(("AOI_7_Moscow/a.tif", bytes(900_000))))
    monkeypatch.setattr(d, "EXPANSION", 0)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 0, 800_000)
    )
    with pytest.raises(DataError, match="more than may be unpacked"):
        d.download(["7"], to=tmp_path)


# -- the user's folders and disk


def test_a_folder_that_is_there_is_joined_and_never_overwritten(
    server, moscow, published, tmp_path
):
    server.put(MOSCOW, moscow)
    home = tmp_path / "SN5_roads" / "train" / "AOI_7_Moscow"
    (home / "mine").mkdir(parents=True)
    (home / "mine" / "notes.txt").write_text("mine")
    d.download(["7"], to=tmp_path)
    assert (home / "mine" / "notes.txt").read_text() == "mine" and len(files(home)) == 10
    label = home / "geojson_roads_speed" / f"{MOSCOW}_geojson_roads_speed_chip1.geojson"
    label.write_text("edited")
    (home / "PS-MS" / f"{MOSCOW}_PS-MS_chip0.tif").unlink()
    with pytest.raises(
        DataError, match="chip1.geojson: is there already with another content .1 of 9"
    ) as e:
        d.download(["7"], to=tmp_path)
    assert (
        "Nothing was changed" in e.value.cure
        and label.read_text() == "edited"
        and len(files(home)) == 9
    )
    label.unlink()
    server.gate.ranges.clear()
    d.download(["7"], to=tmp_path)  # the tarball is still there
    assert not server.gate.ranges and len(files(home)) == 10


def test_a_full_disk_is_found_before_anything_is_fetched(
    server, moscow, published, tmp_path, monkeypatch
):
    server.put(MOSCOW, moscow)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 0, 2 * len(moscow))
    )
    with pytest.raises(DownloadError) as e:
        d.download(["7"], to=tmp_path)
    assert (
        f"about {len(moscow) / 1024:.1f} KiB for tarballs and "
        f"{2 * len(moscow) / 1024:.1f} KiB for their files"
        in str(e.value)
        and "are free" in str(e.value)
    )
    assert not server.gate.ranges and not files(tmp_path)


def test_a_disk_that_refuses_in_the_middle(server, moscow, tmp_path):
    server.put(MOSCOW, moscow)
    out = spacenet5(
        "download",
        "--aoi",
        "7",
        "--to",
        tmp_path,
        before=(
            f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({PART}, "
            f"{resource.RLIM_INFINITY}))"
        ),
    )
    assert (
        out.returncode == 1
        and (
            f"error: {tmp_path}/tarballs/{MOSCOW}.tar.gz.part: could not be written "
            "(File too large)"
        )
        in out.stderr
    )
    assert not (tmp_path / "SN5_roads").exists()


def test_a_write_error_in_a_thread_is_a_write_error(
    server, moscow, published, tmp_path, monkeypatch
):
    server.put(MOSCOW, moscow)

    class Full(io.BytesIO):
        name = "x.part"

        def write(self, block):
            raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match="x.part.*disk is full"):
        s3_transfer._write(Full(), b"x")

    def full(f, block=None):
        raise WriteError(f.name, "could not be written", "The disk is full")

    monkeypatch.setattr(s3_transfer, "_write", full)
    with pytest.raises(WriteError, match="disk is full"):
        d.download(["7"], to=tmp_path)


# -- no such thing, nobody there


def test_offline(moscow, tmp_path, monkeypatch):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    monkeypatch.setenv("SPACENET5_S3_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    out = spacenet5("download", "--aoi", "7", "--to", tmp_path)
    assert out.returncode == 1 and not files(tmp_path)
    assert (
        out.stderr.startswith(
            f"error: s3://spacenet-dataset: no connection to http://127.0.0.1:{port}"
        )
        and "HTTPS_PROXY" in out.stderr
        and "Traceback" not in out.stderr
    )
    out = spacenet5("download", "--list")
    assert (
        out.returncode == 0
        and "no connection" in out.stdout
        and re.search("35.0 GiB .*AOI_7_Moscow", out.stdout)
    )


@pytest.mark.parametrize(
    ("proxy", "address"),
    [("http://127.0.0.1:{}", "http://example.invalid"), ("", "not an address")],
    ids=["proxy", "address"],
)
def test_a_proxy_that_is_not_there_and_an_address_that_is_none(
    tmp_path, monkeypatch, proxy, address
):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.format(port))
    with pytest.raises(
        DownloadError,
        match="no connection to .*ProxyConnectionError" if proxy else "is not an address",
    ):
        d.download(["7"], to=tmp_path, endpoint=address)


@pytest.mark.parametrize("aois", [["77"], ["9"], ["Atlantis"], []])
def test_what_does_not_exist(server, moscow, tmp_path, aois):
    server.put(MOSCOW, moscow)
    with pytest.raises(DownloadError, match="There is: SN5 train: 7 Moscow."):
        d.download(aois, to=tmp_path)
    assert not files(tmp_path)


def test_the_command_says_what_does_not_exist(server, moscow, tmp_path):
    server.put(MOSCOW, moscow)
    out = spacenet5("download", "--aoi", "77", "--to", tmp_path)
    assert (out.returncode, out.stderr, files(tmp_path)) == (
        1,
        "error: --aoi 77 --split train: does not exist. There is: SN5 train: 7 Moscow.\n",
        [],
    )


def test_what_may_not_be_read(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow, acl="private")
    with pytest.raises(DownloadError, match=f"{MOSCOW}.tar.gz: may not be read without an account"):
        d.download(["7"], to=tmp_path)


def test_no_bucket(server, tmp_path):
    server.s3.delete_bucket(Bucket=d.BUCKET)
    with pytest.raises(DownloadError, match="is not in the bucket.*404"):
        d.download(["7"], to=tmp_path)


def test_a_mirror_that_may_not_be_listed(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)
    server.gate.deny_lists = True
    said = []
    d.download(["7"], to=tmp_path, say=said.append)
    assert "may not be listed" in said[0] and len(find_chips(tmp_path)) == 3


def test_a_server_without_ranges(server, moscow, published, tmp_path):
    server.put(MOSCOW, moscow)
    server.gate.ignore_ranges = True
    with pytest.raises(DownloadError, match="does not send the part"):
        d.download(["7"], to=tmp_path, part_bytes=PART)


def test_importing_takes_neither_boto3_nor_tqdm():
    code = (
        "import sys\nfrom spacenet5_nb.acquire import download\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'boto3', 'botocore', "
        "'tqdm', 'torch', 'rasterio'}))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
        ).stdout.strip()
        == "[]"
    )


def test_without_boto3_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(DownloadError, match=r'pip install "spacenet5_nb\[download\]"'):
        d.download(["7"], to=tmp_path)
