"""`python -m structune.cli` is the command `structune`."""

from structune.cli import app

if __name__ == "__main__":
    app(prog_name="structune")
