"""The families that come with the package: one a file, which has the family's name."""
