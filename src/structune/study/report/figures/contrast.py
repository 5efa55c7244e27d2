"""Colours that can be told from what is behind them."""

from __future__ import annotations


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours, 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def readable(colour: str, behind: str, ratio: float) -> str:
    """The colour, mixed with as little black or white as gives it that contrast with what is behind it."""
    towards = max("#000000", "#ffffff", key=lambda end: contrast(end, behind))
    for step in range(21):
        mixed = _mixed(colour, towards, step / 20)
        if contrast(mixed, behind) >= ratio:
            return mixed
    return towards


def _channels(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def _luminance(colour: str) -> float:
    shares = [channel / 255 for channel in _channels(colour)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _mixed(colour: str, other: str, share: float) -> str:
    pairs = zip(_channels(colour), _channels(other), strict=True)
    return "#" + "".join(f"{round((1 - share) * one + share * two):02x}" for one, two in pairs)
