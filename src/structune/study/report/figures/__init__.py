"""The figures of a report, each drawn once: as SVG for the page, as PNG beside it."""
