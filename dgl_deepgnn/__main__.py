"""Entry point of ``dgl-deepgnn``: `doctor` and `--version` work where nothing else imports."""

from __future__ import annotations

import sys

from dgl_deepgnn import __version__, _environment


def main() -> None:
    """Run the command line; exit code 2 stands for wrong input."""
    if sys.argv[1:] == ["--version"]:
        print(f"dgl-deepgnn {__version__}")
        return
    if sys.argv[1:] == ["doctor"]:
        report, healthy = _environment.doctor()
        print(report)
        sys.exit(0 if healthy else 1)
    problem = _environment.problem()
    if problem:
        print(problem, file=sys.stderr)
        sys.exit(2)
    from dgl_deepgnn.cli import run

    run()


if __name__ == "__main__":
    main()
