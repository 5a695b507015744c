"""What fuzzing found, and that the guard of the fuzzing sees what it is there for."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pmp_ref.app import history, predict, run
from pmp_ref.app.main import main
from pmp_ref.data import npz
from pmp_ref.errors import InputError
from pmp_ref.files import unpack
from tests.app_data import run as train
from tests.app_data import write_images
from verification.hardening.targets import TARGETS, archive_of, npy_bytes

ROOT = Path(__file__).parents[1]
DIGITS = b"{'descr': '|u1', 'fortran_order': False, 'shape': (6," + b"7" * 200 + b"?), }\n"


def npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def seconds(action: Any) -> float:
    began = time.process_time()
    with pytest.raises(InputError):
        action()
    return time.process_time() - began


def test_a_long_row_of_digits_in_a_header_takes_no_exponential_time(tmp_path: Path) -> None:
    """Found by fuzzing: commas that were optional let the pattern try all ways to split a row of digits."""
    import numpy as np

    labels = npy_bytes(np.zeros(2, np.uint8))
    data = archive_of({"train_images.npy": npy(DIGITS), "train_labels.npy": labels})
    path = tmp_path / "x.npz"
    path.write_bytes(archive_of({"a.npy": npy(DIGITS.replace(b"|u1", b"<f8"))}))
    # 2**70 or so steps before; milliseconds now. Not a measurement: the other side of the bound is the age of the world
    assert seconds(lambda: npz.parse(io.BytesIO(data), "x")) < 20
    assert seconds(lambda: unpack(path)) < 20


@pytest.mark.parametrize("content", ["[1]", "1", '["ab"]', "[]", "{}", '{"status": "done"}', '{"status": []}', ""])
def test_a_summary_that_is_none(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found by fuzzing: a summary.json of another form ended --resume with a TypeError."""
    data = write_images(tmp_path / "d.npz", train=12, test=6)
    assert train(data, tmp_path / "a", "--epochs", "1", "--batch-size", "6") == 0
    (tmp_path / "a" / "summary.json").write_text(content)
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert "summary.json" in error and error.count("\n") == 1
    (tmp_path / "a" / "summary.json").unlink()
    assert run.ended(tmp_path / "a") is None


@pytest.mark.parametrize(
    "content", [b"step,J\n0,x\n", b"step\n1,2\n", b"\xff\n", b"step\n\x00\n", b'step\n"1\n' + b"2" * 2**18]
)
def test_a_table_that_is_none(content: bytes, tmp_path: Path) -> None:
    """Found by fuzzing: the figures of a resumed run read its tables, and a damaged one ended it with a ValueError."""
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read the table .*history\.csv"):
        history.read(tmp_path / "history.csv")


def test_a_picture_whose_chunk_claims_gigabytes(tmp_path: Path) -> None:
    """Found by fuzzing: Pillow asked for what the length of the last chunk of pixels said, before any error."""
    stream = io.BytesIO()
    Image.new("L", (4, 5)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    at = content.index(b"IDAT")
    content[at - 4 : at] = (3 * 2**29).to_bytes(4, "big")
    path = tmp_path / "x.png"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert not predict.images(path, (1, 5, 4)).any()  # all pixels are there, so Pillow reads them
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**26  # modules of Pillow included; the claim is 24 times that


def test_a_picture_larger_than_any_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read whole, so its size has a bound; one just within it is read."""
    stream = io.BytesIO()
    Image.new("L", (4, 5)).save(stream, "PNG")
    path = tmp_path / "x.png"
    path.write_bytes(stream.getvalue())
    monkeypatch.setattr(predict, "MAX_PICTURE", len(stream.getvalue()))
    assert predict.images(path, (1, 5, 4)).shape == (1, 1, 5, 4)
    monkeypatch.setattr(predict, "MAX_PICTURE", len(stream.getvalue()) - 1)
    with pytest.raises(InputError, match="holds more than"):
        predict.images(path, (1, 5, 4))


BAD_READERS = {
    "runs code": "pickle.loads(content)",
    "evaluates": "eval('1+1')",
    "writes a file": "open(place / 'y', 'wb')",
    "makes a directory": "os.mkdir(place / 'z')",
    "starts a process": "os.system('true')",
    "connects": "__import__('socket').socket()",
    "asks for memory": "bytearray(2**34)",
    "asks for memory and hides it": "hidden()",
    "raises another error": "[][0]",
    "raises two lines": "fail('a\\nb')",
    "takes for ever": "forever()",
}


@pytest.mark.parametrize("case", BAD_READERS)
def test_the_guard_sees(case: str, tmp_path: Path) -> None:
    """In a process of its own, for an audit hook cannot be taken away."""
    script = f"""
import os, pathlib, pickle, socket
from pmp_ref.errors import InputError
from verification.hardening import guard
guard.CPU_SECONDS = 0.2
place, content = pathlib.Path({str(tmp_path)!r}), {pickle.dumps(BadCall())!r}
def fail(text): raise InputError(text)
def hidden():
    try: bytearray(2**34)
    except Exception: raise InputError('damaged') from None
def forever():
    while True:
        try:
            while True: pass
        except Exception: pass
watch = guard.Guard()
def read(): {BAD_READERS[case]}
with guard.little_memory():
    print(*map(guard.outcome, [lambda: None, lambda: fail('x'), read], [watch] * 3))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("('read', None) ('refused', None) ('FINDING', "), done.stdout
    assert list(tmp_path.iterdir()) == []


class BadCall:
    """Pickles as a call."""

    def __reduce__(self) -> Any:
        return os.getpid, ()


def test_the_campaign_reports_a_finding(tmp_path: Path) -> None:
    """A reader that lets another error escape is found, named once for each place, and the exit code says so."""
    script = (
        "import sys\nfrom pmp_ref.data import idx\nfrom verification.hardening import fuzz, targets\n"
        "parse = idx.parse\n"
        "def broken(stream, *a):\n    b = stream.read(); stream.seek(0)\n    b[3] if b[:1] == b'\\0' else 1 / 0\n"
        "    return parse(stream, *a)\n"
        "idx.parse = broken\n"
        f"p = {str(tmp_path)!r}\n"
        "fuzz.one('idx labels', '400', '60', '0', 'steps', p, p, p + '/r.json')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    kinds = {text.split(" at ")[0] for text in report["findings"]}
    assert kinds == {"ZeroDivisionError", "IndexError"}, report
    assert len(list(tmp_path.glob("idx-labels-*"))) == 2


@pytest.mark.parametrize("change", [{"test_accuracy_interval": [0.5]}, {"kept_fraction": 10**400}, {"status": 1}])
def test_results_of_another_form(change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found by fuzzing: an interval of one number ended inspect with a ValueError."""
    data = write_images(tmp_path / "d.npz")
    assert train(data, tmp_path / "a", "--epochs", "1") == 0
    path = tmp_path / "a" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "a")]) == (0 if "status" in change else 2)
    assert "unexpected" not in capsys.readouterr().err


def test_a_certificate_of_another_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Found by fuzzing: a control of size 0 ended inspect with a ZeroDivisionError."""
    data = write_images(tmp_path / "d.npz")
    assert train(data, tmp_path / "a", "--epochs", "1") == 0
    path = tmp_path / "a" / "certificate.json"
    content = json.loads(path.read_text())
    content["controls"][0]["size"] = 0
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "a")]) == 2
    assert "damaged (ZeroDivisionError" in capsys.readouterr().err


# The short form of the fuzzing

EACH = 40  # mutated inputs for each reader, after its seeds; the documented run has a million in all


def short_fuzz(output: Path, before: str, *arguments: str, **environment: str) -> tuple[int, list[dict[str, Any]], str]:
    """``fuzz --each`` in a process of its own, after the statements ``before``; exit code, reports, output."""
    script = f"import sys\nfrom verification.hardening import __main__ as m\n{before}\nsys.exit(m.main(sys.argv[1:]))\n"
    command = [sys.executable, "-c", script, "fuzz", "--json", str(output), *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | environment,
    )
    assert output.exists(), done.stderr
    return done.returncode, json.loads(output.read_text()), done.stdout


def test_a_short_fuzz_of_every_reader(tmp_path: Path) -> None:
    """A fixed number of inputs, whatever the machine: no limit of time decides what is read."""
    code, reports, output = short_fuzz(tmp_path / "r.json", "", "--each", str(EACH))
    assert code == 0, output
    assert [r["target"] for r in reports] == list(TARGETS)
    assert all(r["inputs"] > EACH and r["refused"] > 0 and r["read"] > 0 for r in reports), reports
    assert all(r["inputs"] == r["refused"] + r["read"] for r in reports), reports


def test_the_short_fuzz_is_the_same_each_time(tmp_path: Path) -> None:
    """In other places, with other hashes of texts; another seed gives other inputs."""
    names = ["summary", "checkpoint state", "npz member", "package"]
    given = ["--each", "10", *(x for name in names for x in ("--target", name))]
    runs = [
        short_fuzz(tmp_path / f"{i}.json", "", *given, "--seed", seed, PYTHONHASHSEED=str(i))
        for i, seed in enumerate("001")
    ]
    digests = [[r["digest"] for r in reports] for _, reports, _ in runs]
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])


FAULTS = {  # what was or could be wrong in a reader, as statements that put it back
    "idx gzip": "from pmp_ref.data import idx\nimport gzip\nidx.opened = lambda p, unpack: gzip.open(p)",
    "npz member": "from pmp_ref.data import npz\nimport numpy\n"
    "npz.parse_array = lambda s, *_: numpy.load(s, allow_pickle=True)",
    "checkpoint archive": "from pmp_ref import files\nimport numpy\n"
    "files.parse_array = lambda s, *_, **__: numpy.lib.format.read_array(s)",
    "cifar pickle": "from pmp_ref.data import cifar\nimport pickle\ncifar.parse_pickle = lambda s, _: pickle.load(s)",
    "package": "from pmp_ref.data import fetch\nimport tarfile\n"
    "fetch._read_members = lambda p, _: tarfile.open(p).extractall(p.parent, filter='data')",
    "summary": "from pmp_ref.app import inspect\n"
    "inspect.show = lambda d: inspect.headline(inspect.read_json(d / 'summary.json'))",
    "table": "from pmp_ref.app import history\nimport csv\n"
    "history.read = lambda p: [{k: float(v) for k, v in r.items()} for r in csv.DictReader(p.open())]",
    "model": "from pmp_ref import model\nimport numpy\n"
    "model.read_model = lambda p: numpy.load(p)['network'].tobytes().decode('ascii')",
    "picture": "from pmp_ref.app import predict\nimport numpy\nfrom PIL import Image\n"
    "predict.picture = lambda p, _: numpy.asarray(Image.open(p))[None, None]",
    "conformance archive": "from verification.conformance import files\nimport numpy\n"
    "files._read_npz = lambda p: dict(numpy.load(p))",
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_short_fuzz_sees_a_fault(name: str, tmp_path: Path) -> None:
    """With as many inputs as `test_a_short_fuzz_of_every_reader` uses."""
    code, (report,), output = short_fuzz(tmp_path / "r.json", FAULTS[name], "--each", str(EACH), "--target", name)
    assert code == 1 and report["findings"], output
