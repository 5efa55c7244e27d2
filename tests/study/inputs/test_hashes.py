"""Hashes of what runs read: results that are committed are found again by them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from structune.study.inputs.hashes import hash_of


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def test_of_a_file_its_bytes_count(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_bytes(b"text,label\n")
    other.write_bytes(b"text,label\n")
    assert hash_of(one) == hash_of(other) == sha(b"text,label\n")


def test_of_a_folder_names_and_bytes_count(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "1.png").write_bytes(b"one")
    (folder / "2.png").write_bytes(b"two")
    before = hash_of(folder)
    assert before == sha(f"2.png\0{sha(b'two')}\0cat/1.png\0{sha(b'one')}\0".encode())
    copies = {name: tmp_path / name for name in ("same", "changed", "renamed")}
    for copy in copies.values():
        shutil.copytree(folder, copy)
    (copies["changed"] / "2.png").write_bytes(b"twO")
    (copies["renamed"] / "2.png").rename(copies["renamed"] / "3.png")
    assert hash_of(copies["same"]) == before
    assert len({before, hash_of(copies["changed"]), hash_of(copies["renamed"])}) == 3
