"""The processor's name, as the system tells it."""

import platform
from pathlib import Path

import pytest

from structune.processor import processor


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nflags\t: fpu\n", "Intel Xeon"),
        ("model name\t: AMD EPYC 7B13\nmodel name\t: AMD EPYC 7B13\n", "AMD EPYC 7B13"),
        ("processor\t: 0\nBogoMIPS\t: 100.00\n", "another"),
        (None, "another"),
    ],
)
def test_the_model_s_name(told: str | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, **options: str) -> str:
        assert str(path) == "/proc/cpuinfo"
        if told is None:
            raise FileNotFoundError(path)
        return told

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "another")
    assert processor.__wrapped__() == name  # as it is asked for the first time
