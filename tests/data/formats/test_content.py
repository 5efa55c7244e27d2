"""Compressed files, each written by the library that writes them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest

from structune.data.reading import read_table
from structune.errors import UserError

CSV = "text,label\nnaïve,a\n".encode()


def zstd(raw: bytes) -> bytes:
    target = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(target, "zstd") as stream:
        stream.write(raw)
    return bytes(target.getvalue())


def zipped(raw: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/", "")
        archive.writestr("data/inside.csv", raw)
        archive.writestr("__MACOSX/._inside.csv", b"\0")
    return target.getvalue()


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd, "zip": zipped}


@pytest.mark.parametrize("ending", PACKED)
def test_unpacked(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.csv.{ending}"
    path.write_bytes(PACKED[ending](CSV))
    assert read_table(path, "train").columns == {"text": ["naïve"], "label": ["a"]}


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd], ids=lambda pack: pack.__name__)
def test_cut_off(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.csv.packed"
    path.write_bytes(pack(CSV * 99)[:-9])
    with pytest.raises(UserError, match=r"compressed with \w+, and damaged \(.*\); get it anew"):
        read_table(path, "train")


def test_packed_twice_and_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(zipped(CSV)))
    assert read_table(path, "train").columns["label"] == ["a"]


def test_an_archive_of_json_lines_under_another_name(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("inside.json", '{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "x.zip").write_bytes(content.getvalue())
    with pytest.raises(UserError, match=r"rename it to 'inside\.jsonl'"):
        read_table(tmp_path / "x.zip", "train")
