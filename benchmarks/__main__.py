"""`python -m benchmarks compare`, `… scale`, `… growth` and `… layers`."""

import argparse
import os
import sys
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks import compare, growth, layers, machine, scale
from benchmarks.machine import BenchmarkError, newest_postgres

COMPARE = """
Measure what a request costs the server, in CPU, beside the same seven jobs written by hand (Starlette, asyncpg,
orjson: the floor) and in the usual way (FastAPI, SQLModel sessions, fastapi-users, response_model).

It starts a PostgreSQL of its own, and the three servers with one worker each, all on one core; PostgreSQL and wrk
get another. The requests rotate over 100 users with 100 contacts each. CPU is what the operating system accounts
to the server, divided by the requests that wrk counts. The servers take turns in every round, and each is compared
with the floor of the same round: the machine's speed drifts, the ratios hold. An answer that is not a success, and a
server that answers with other contacts than the rest, end the run with an error.
"""

SCALE = """
Measure what grows and what waits: an owner with 100,000 contacts among a million beside one with 100;
files in and out; sign-ins a second on one core, and what the others notice of them; the start; memory. The search needs
pg_trgm, which Debian's PostgreSQL has and the embedded one has not. The time of an answer is its median in the quietest
of the rounds, that of a start its shortest. Limits in seconds are those of a core that hashes 48 passwords a second;
beside them stands what they come to on this one, which each section measures. Takes five to ten minutes, and 2 GB
in the temporary directory.
"""


def main() -> None:
    """Run a benchmark. Prints missed limits, and exits with 1 if there are any."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(title="commands", metavar="", required=True)
    comparing = commands.add_parser(
        "compare",
        help="CPU a request beside the floor and the usual build",
        description=COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    comparing.set_defaults(run=compare.run)
    comparing.add_argument(
        "--servers",
        nargs="+",
        choices=compare.SERVERS,
        default=list(compare.SERVERS),
        metavar="NAME",
        help=f"which to run, of {', '.join(compare.SERVERS)} (all)",
    )
    comparing.add_argument("--json", type=Path, metavar="FILE", help="write what was measured, round by round")
    comparing.add_argument("--picture", type=Path, metavar="FILE", help="draw it")
    scaling = commands.add_parser(
        "scale",
        help="an owner of 100,000, files, sign-ins, the start",
        description=SCALE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scaling.set_defaults(run=scale.run)
    layering = commands.add_parser("layers", help="an ORM session beside Core and asyncpg", description=layers.__doc__)
    layering.set_defaults(run=layers.run)
    growing = commands.add_parser("growth", help="bytes, indexes, ended sessions", description=growth.__doc__)
    growing.set_defaults(run=growth.run)
    for command, rounds, seconds, postgres, which in (
        (layering, 3, 4, None, "the embedded one"),
        # The speed of the machine varies from second to second, so many short rounds scatter less than a few long ones.
        (comparing, 10, 2, None, "the embedded one"),
        (scaling, 3, 4, newest_postgres(), "Debian's newest, or else the embedded one"),
        (growing, 3, 4, newest_postgres(), "Debian's newest, or else the embedded one"),
    ):
        command.add_argument("--rounds", type=int, default=rounds, metavar="N", help="rounds, in turn (%(default)s)")
        command.add_argument("--seconds", type=int, default=seconds, metavar="S", help="of each load (%(default)s)")
        command.add_argument("--connections", type=int, default=16, metavar="N", help="of each load (%(default)s)")
        command.add_argument(
            "--postgres", type=Path, default=postgres, metavar="DIR", help=f"where PostgreSQL's programs are ({which})"
        )
        command.add_argument("--report-only", action="store_true", help="exit with 0 even where a limit is missed")
    options = parser.parse_args()
    # With this variable, every start would compile the modules again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    before = psutil.cpu_times()
    try:
        missed = options.run(options, console)
    except BenchmarkError as error:
        sys.exit(f"benchmarks: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    stolen = machine.stolen_since(before)
    console.print(f"Other machines on the same host took {stolen:.0%} of the CPU time asked for.")
    for line in missed:
        console.print(f"missed: {line}", style="red")
    if missed and not options.report_only:
        sys.exit(1)


if __name__ == "__main__":
    main()
