"""`python -m structune` is the command `structune`, for launchers of several processes."""

from structune.cli import app

if __name__ == "__main__":
    app(prog_name="structune")
