"""PEFT's own tests with our method in their lists of cases: a second opinion. Run as `make test-peft`.

`prepare` fetches the tests and builds `models`; `plugin` puts `cases` in place of PEFT's and marks `exceptions`.
"""
