"""The three servers that `make bench` compares do the same work. This test checks them without load."""

import os
from contextlib import ExitStack
from pathlib import Path

from benchmarks import data
from benchmarks.compare import SERVERS, compare_answers
from benchmarks.machine import Server


def test_the_compared_servers_give_the_same_answers(database_url: str, tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    (owner,) = data.fill(database_url, "user", 1, 100)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(name, arguments, core, tmp_path, DATABASE_URL=database_url))
            for name, arguments in SERVERS.items()
        ]
        compare_answers(servers, owner, database_url)
