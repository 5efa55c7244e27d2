"""The embedded data's archive: read by known names, in memory, and only when its hash is right."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from structune.data import embedded
from structune.errors import UserError
from structune.finetune.task_data import load_data
from structune.tasks.parts.text.texts import LabelledTextData
from structune.tasks.text_classification import TextClassification

TWEETS = "1\t2.5\tWhat a day!\n2\t-0.5\tNo luck again\n3\t0\tMonday\n"
REVIEWS = "\ufeff1_1\t1.5\tIt works\r\n1_2\t-1\tBut slowly\r\n2_1\t3\tSplendid\r\n"
HOSTILE = "/tmp/structune-was-here"


def archive(files: dict[str, bytes], more: Callable[[tarfile.TarFile], None] = lambda tar: None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        more(tar)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Source:
    """A folder with an sdist, named in the environment, whose hashes are the expected ones."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "source"
        self.cache = folder / "cache"
        self.folder.mkdir()
        self.monkeypatch = monkeypatch
        monkeypatch.setenv(embedded.SOURCE_VARIABLE, str(self.folder))
        monkeypatch.setenv(embedded.CACHE_VARIABLE, str(self.cache))

    def put(self, inner: bytes) -> None:
        sdist = archive({embedded.ARCHIVE: inner})
        (self.folder / embedded.SDIST).write_bytes(sdist)
        self.monkeypatch.setattr(embedded, "SDIST_SHA256", hashlib.sha256(sdist).hexdigest())
        self.monkeypatch.setattr(embedded, "ARCHIVE_SHA256", hashlib.sha256(inner).hexdigest())


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    return Source(tmp_path, monkeypatch)


def good() -> bytes:
    members = embedded.MEMBERS
    return archive({members["tweets"]: TWEETS.encode(), members["product-reviews"]: REVIEWS.encode()})


def test_rows_become_text_label_rating_and_group(source: Source) -> None:
    source.put(good())
    assert embedded.load_embedded("tweets").columns == {
        "text": ["What a day!", "No luck again", "Monday"],
        "label": ["positive", "negative", "negative"],
        "rating": ["2.5", "-0.5", "0"],
        "group": ["what a day!", "no luck again", "monday"],
    }
    assert embedded.load_embedded("product-reviews").columns["group"] == ["1", "1", "2"]
    assert embedded.load_embedded("product-reviews").columns["text"] == ["It works", "But slowly", "Splendid"]


def test_cached_after_the_first_time(source: Source) -> None:
    source.put(good())
    first = embedded.load_embedded("tweets")
    (source.folder / embedded.SDIST).unlink()
    assert embedded.load_embedded("tweets") == first
    assert [path.name for path in source.cache.iterdir()] == ["hutto_ICWSM_2014.tar.gz"]


def test_a_damaged_cache_is_fetched_again(source: Source) -> None:
    source.put(good())
    embedded.load_embedded("tweets")
    cached = source.cache / "hutto_ICWSM_2014.tar.gz"
    cached.write_bytes(cached.read_bytes()[:-9])
    assert len(embedded.load_embedded("tweets").lines) == 3
    assert cached.read_bytes() == good()


def test_other_content_is_refused_and_not_cached(source: Source) -> None:
    source.put(good())
    (source.folder / embedded.SDIST).write_bytes(archive({embedded.ARCHIVE: b"else"}))
    with pytest.raises(UserError, match=r"vaderSentiment-3\.3\.2\.tar\.gz: its SHA-256 is .* and is not used"):
        embedded.load_embedded("tweets")
    assert not source.cache.exists()


def test_other_inner_archive_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.put(good())
    monkeypatch.setattr(embedded, "ARCHIVE_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"hutto_ICWSM_2014\.tar\.gz: its SHA-256"):
        embedded.load_embedded("tweets")
    assert not source.cache.exists()


def test_paths_in_the_archive_are_never_written(source: Source) -> None:
    """Even with the right hash: absolute and climbing names, links and devices are simply not read."""

    def hostile(tar: tarfile.TarFile) -> None:
        for name in (HOSTILE, "../" * 9 + HOSTILE[1:], "hutto_ICWSM_2014/../../escape"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)

    before = set(source.folder.parent.rglob("*"))
    source.put(archive({embedded.MEMBERS["tweets"]: TWEETS.encode()}, hostile))
    assert len(embedded.load_embedded("tweets").lines) == 3
    written = set(source.folder.parent.rglob("*")) - before
    assert {path.name for path in written} == {embedded.SDIST, "cache", "hutto_ICWSM_2014.tar.gz"}
    assert not Path(HOSTILE).exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_regular_file_is_refused(source: Source, kind: bytes) -> None:
    def instead(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(embedded.MEMBERS["tweets"])
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)

    source.put(archive({}, instead))
    with pytest.raises(UserError, match="not a regular file in the archive"):
        embedded.load_embedded("tweets")


def test_a_member_too_large_is_refused_unread(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.put(good())
    monkeypatch.setattr(embedded, "_LARGEST_MEMBER", 10)
    with pytest.raises(UserError, match="more than it can have"):
        embedded.load_embedded("tweets")


def test_a_missing_member_and_a_missing_file_are_told(source: Source) -> None:
    source.put(good())
    with pytest.raises(UserError, match="movieReviewSnippets.*cannot be read from its archive"):
        embedded.load_embedded("movie-sentences")
    (source.folder / embedded.SDIST).unlink()
    (source.cache / "hutto_ICWSM_2014.tar.gz").unlink()
    with pytest.raises(UserError, match=f"{embedded.SOURCE_VARIABLE} = .*: there is no {embedded.SDIST}"):
        embedded.load_embedded("tweets")


def test_without_a_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Source
) -> None:
    monkeypatch.delenv(embedded.SOURCE_VARIABLE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=rf"pip could not fetch.*set {embedded.SOURCE_VARIABLE} to it"):
        embedded.load_embedded("tweets")
    assert not source.cache.exists()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(embedded.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert embedded.cache_folder() == tmp_path / "structune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert embedded.cache_folder() == tmp_path / "home" / ".cache" / "structune"
    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(tmp_path / "own"))
    assert embedded.cache_folder() == tmp_path / "own"


def test_reviews_are_held_out_whole(source: Source) -> None:
    rows = "".join(f"{n // 5}_{n % 5}\t{(-1) ** n}\tsentence {n}\n" for n in range(100))
    source.put(archive({embedded.MEMBERS["product-reviews"]: rows.encode()}))
    data = load_data(TextClassification(), LabelledTextData(embedded="product-reviews"))
    assert data.evaluation.groups
    assert not set(data.train.groups) & set(data.evaluation.groups)
