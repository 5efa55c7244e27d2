"""What is installed."""

from __future__ import annotations

from importlib import metadata

from structune import __version__


def versions() -> dict[str, str]:
    """Of structune and of what it stands on, as installed: nothing is imported."""
    versions = {"structune": __version__}
    for package in ("torch", "peft", "transformers"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
