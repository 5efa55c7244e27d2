"""The embedded data: 23.7 thousand sentences of four kinds, each rated by 15 or more people from -4 to 4.

Source: C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text", ICWSM 2014. It ships (MIT licence) in the source distribution of the PyPI package `vaderSentiment` 3.3.2, from
where it is fetched once with pip, checked by its SHA-256 and cached. Set `STRUCTUNE_EMBEDDED_DATA` to that
distribution's file, or to a folder that holds it, to work without a network.

The label is `positive` where the mean rating is above zero, else `negative`; `rating` is that mean, as a text. Product
reviews and editorials carry the number of their review or article, and a split keeps these whole; movie sentences and
tweets are numbered singly.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from structune.data.table import Table
from structune.errors import UserError
from structune.files import write_bytes
from structune.paths import expand

SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
ARCHIVE_SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
MEMBERS = {
    "movie-sentences": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "tweets": "hutto_ICWSM_2014/tweets_GroundTruth.txt",
    "product-reviews": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
    "editorials": "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
}
SOURCE_VARIABLE = "STRUCTUNE_EMBEDDED_DATA"
CACHE_VARIABLE = "STRUCTUNE_CACHE"
_LARGEST_MEMBER = 8 * 2**20  # bytes; the largest real one has 2.4 million


def load_embedded(domain: str) -> Table:
    """One kind of sentences as a table with the columns `text`, `label`, `rating` and `group`.

    Raises:
        UserError: the data cannot be fetched, or is not what it should be.
    """
    member = MEMBERS[domain]
    text = _read_member(_archive(), member).decode("utf-8-sig")
    columns: dict[str, list[str]] = {"text": [], "label": [], "rating": [], "group": []}
    rows = [line for line in text.split("\n") if line.strip()]
    for row in rows:
        number, rating, sentence = row.rstrip("\r").split("\t")
        review, part_of_review, _ = number.partition("_")
        columns["text"].append(sentence)
        columns["label"].append("positive" if float(rating) > 0 else "negative")
        columns["rating"].append(rating)
        columns["group"].append(review if part_of_review else " ".join(sentence.lower().split()))
    return Table(f"the embedded data ({domain})", columns, list(range(1, len(rows) + 1)))


def cache_folder() -> Path:
    """Where fetched files are kept: `$STRUCTUNE_CACHE`, else `structune` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(expand(own))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "structune"


def _archive() -> bytes:
    """The inner archive: from the cache, or fetched and put there. Its hash is checked on every use."""
    cached = cache_folder() / Path(ARCHIVE).name
    if cached.is_file():
        content = cached.read_bytes()
        if _sha256(content) == ARCHIVE_SHA256:
            return content
    content = _read_member(_sdist(), ARCHIVE)
    _check(content, ARCHIVE_SHA256, Path(ARCHIVE).name)
    write_bytes(cached, content)
    return content


def _sdist() -> bytes:
    if given := os.environ.get(SOURCE_VARIABLE):
        path = Path(expand(given))
        path = path / SDIST if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"{SOURCE_VARIABLE} = {given!r}: there is no {SDIST}; put it there, or unset the variable")
        content = path.read_bytes()
    else:
        content = _download()
    _check(content, SDIST_SHA256, SDIST)
    return content


def _download() -> bytes:
    """The source distribution, by pip, from wherever pip is set up to look; pip checks its hash before opening it."""
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder) / "requirement.txt"
        requirement.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
        flags = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
        command = [sys.executable, "-m", "pip", "download", *flags, "--dest", folder, "--requirement", str(requirement)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        file = Path(folder) / SDIST
        if done.returncode != 0 or not file.is_file():
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise UserError(
                f"data.embedded: pip could not fetch {SDIST} ({reason}). Check the network, or download that file "
                f"elsewhere (`pip download --no-deps --no-binary :all: vaderSentiment==3.3.2`) and set "
                f"{SOURCE_VARIABLE} to it."
            )
        return file.read_bytes()


def _read_member(archive: bytes, name: str) -> bytes:
    """One regular file, by its known name, read in memory. No path in the archive is ever written to."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            member = tar.getmember(name)
            if not member.isreg():
                raise UserError(f"{name}: not a regular file in the archive, so it is not used")
            if member.size > _LARGEST_MEMBER:
                raise UserError(f"{name}: {member.size} bytes in the archive, more than it can have; not used")
            content = tar.extractfile(member)
            assert content is not None  # a regular file has content
            return content.read()
    except (KeyError, tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{name}: cannot be read from its archive ({error})") from None


def _check(content: bytes, expected: str, name: str) -> None:
    if (found := _sha256(content)) != expected:
        raise UserError(
            f"{name}: its SHA-256 is {found}, not {expected}; it is damaged or another file, and is not used"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
