"""Compares the project with the floor and the usual build, in turn: the same seven jobs on the same rows."""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import data, machine
from benchmarks.machine import BenchmarkError, Load, Server

SERVERS = {
    "floor": ("-m", "uvicorn", "benchmarks.floor:app", "--no-access-log"),
    "project": machine.PROJECT,
    "usual": ("-m", "uvicorn", "benchmarks.usual:app"),
}
SHOWN_AS = {
    "floor": "by hand: Starlette, asyncpg, orjson",
    "project": "Contacts API",
    "usual": "FastAPI, SQLModel, fastapi-users",
}
# The maximum ratios to the floor: CPU of the project and PostgreSQL together, and CPU of PostgreSQL alone.
LIMITS = {
    "one contact": (1.15, 1.2),
    "list of 50": (1.2, 1.2),
    "search": (1.2, 1.2),
    "birthdays": (1.15, 1.2),
    "create": (1.35, 1.3),
    "change": (1.5, 1.5),
    "delete": (1.5, 1.5),
}
# CPU of Fastify 5 with pg, on Node.js 20, and PostgreSQL together, as a ratio to the same floor. Measured once, on
# 2026-12-01, by code that is not in this repository. It is the usual choice if speed matters more than Python.
FASTIFY = {"one contact": 0.38, "list of 50": 0.55, "search": 0.73, "birthdays": 0.45, "create": 0.46}
P99_TO_P50 = 2.5
MEBIBYTES = 120
OWNERS, CONTACTS = 100, 100
WARM_UP_SECONDS = 1

Loads = dict[tuple[str, str], list[Load]]
"""The results of all rounds, by server and job."""


def run(options: argparse.Namespace, console: Console) -> list[str]:
    """Measure, print the results, and return the missed limits."""
    core = machine.divide_cores()
    directory = machine.temporary_directory()
    console.print("Starting PostgreSQL, and filling it …")
    url = machine.start_postgres(options.postgres, directory)
    postgres = machine.postmaster(url)
    owners = data.fill(url, "user", OWNERS, CONTACTS)
    jobs = {
        job: data.write_requests(directory / f"{job}.txt", owners, data.JOBS[job], data.EACH.get(job, 10))
        for job in data.JOBS
    }
    loads: Loads = defaultdict(list)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(name, SERVERS[name], core, directory, DATABASE_URL=url))
            for name in options.servers
        ]
        compare_answers(servers, owners[0], url)
        with _progress(console) as progress:
            task = progress.add_task("", total=options.rounds * len(jobs) * len(servers))
            for number in range(1, options.rounds + 1):
                for job, requests in jobs.items():
                    for server in servers:
                        progress.update(task, description=f"round {number}: {job}, {server.name}")
                        for seconds in (WARM_UP_SECONDS, options.seconds):
                            if job == "delete":
                                data.create_deletable(url)
                            load = server.load(requests, seconds, options.connections, postgres)
                        loads[server.name, job].append(load)
                        if job in ("create", "delete"):
                            data.forget_created(url)
                        progress.advance(task)
        memory = {server.name: server.mebibytes() for server in servers}
    print_tables(console, loads, memory)
    if options.json:
        rounds = [{"name": key[0], "job": key[1], **asdict(load)} for key, found in loads.items() for load in found]
        options.json.write_text(json.dumps({"mebibytes": memory, "rounds": rounds}, indent=1))
    if options.picture:
        draw(options.picture, loads)
    return list(missed(loads, memory))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def compare_answers(servers: Sequence[Server], owner: data.Owner, url: str) -> None:
    """Raise BenchmarkError unless all servers return the same contacts for each job."""
    for name, job in data.JOBS.items():
        answers, request = {}, job(owner, 0)
        for server in servers:
            if name == "delete":
                data.create_deletable(url)
            answers[server.name] = _shape(_call(server, owner, *request))
        if len({json.dumps(answer) for answer in answers.values()}) != 1:
            raise BenchmarkError(f"{name}: the servers do not answer alike: {answers}")


def _call(server: Server, owner: data.Owner, method: str, path: str, body: str) -> Any:
    headers = {"Authorization": f"Bearer {owner.token}", "Content-Type": "application/json"}
    try:
        with urlopen(Request(server.url + path, body.encode() or None, headers, method=method), timeout=5) as response:
            return json.loads(response.read() or b"{}")
    except URLError as error:
        raise BenchmarkError(f"{server.name}: {method} {path}: {error}\n{server.log()}") from None


def _shape(answer: Any) -> Any:
    """Return the parts of an answer that must be equal: its contacts, in any order, and the names of their fields."""
    if "items" in answer:
        return sorted(str(_shape(item)) for item in answer["items"])
    contact = answer.get("contact", answer)
    return [
        contact.get("email"),
        sorted(contact),
        {key: answer[key] for key in ("birthday_on", "turns") if key in answer},
    ]


def ratio(loads: Loads, server: str, job: str, of: str = "cpu") -> float:
    """Return the median, over all rounds, of the ratio to the floor's CPU in the same round."""
    pairs = zip(loads[server, job], loads["floor", job], strict=True)
    ratios: list[float] = [getattr(load, of) / getattr(floor, of) for load, floor in pairs]
    return median(ratios)


def print_tables(console: Console, loads: Loads, memory: dict[str, float]) -> None:
    cpu = Table(title="CPU, µs per request: server + PostgreSQL (sum, PostgreSQL alone × the floor)")
    seen = Table(title="Requests a second; latency p50 / p99 in ms; memory in MiB")
    for table in (cpu, seen):
        table.add_column("")
        for job in data.JOBS:
            table.add_column(job, justify="right")
    seen.add_column("memory", justify="right")
    for server in memory:
        costs, latencies = [], []
        for job in data.JOBS:
            rounds = loads[server, job]
            times = ""
            if "floor" in memory:
                times = f"({ratio(loads, server, job):.2f}, {ratio(loads, server, job, 'postgres'):.2f})"
            spent = [f"{median(getattr(load, of) for load in rounds):,.0f}" for of in ("server", "postgres")]
            costs.append(f"{' + '.join(spent)} {times}")
            p50, p99 = median(load.p50 for load in rounds), median(load.p99 for load in rounds)
            latencies.append(f"{median(load.rate for load in rounds):,.0f}; {p50:.1f} / {p99:.1f}")
        cpu.add_row(SHOWN_AS[server], *costs)
        seen.add_row(SHOWN_AS[server], *latencies, f"{memory[server]:.0f}")
    if "floor" in memory and "project" in memory:
        fastify = (f"({FASTIFY[job]:.2f})" if job in FASTIFY else "" for job in data.JOBS)
        cpu.add_row("Fastify, pg (see compare.py)", *fastify, style="dim")
        cpu.add_row("to reach", *("≤ {}, {}".format(*LIMITS[job]) for job in data.JOBS), style="dim")
    console.print(cpu, seen)


def missed(loads: Loads, memory: dict[str, float]) -> Sequence[str]:
    """Return a line for each limit that the project missed."""
    found: list[str] = []
    if "project" not in memory:
        return found
    for job, (limit, postgres_limit) in LIMITS.items():
        if "floor" in memory and (times := ratio(loads, "project", job)) > limit:
            found.append(f"{job}: {times:.2f} × the floor; at most {limit}")
        if "floor" in memory and (times := ratio(loads, "project", job, "postgres")) > postgres_limit:
            found.append(f"{job}: {times:.2f} × the floor's PostgreSQL; at most {postgres_limit}")
        spread = median(load.p99 / load.p50 for load in loads["project", job])
        if spread > P99_TO_P50:
            found.append(f"{job}: p99 is {spread:.1f} × p50; at most {P99_TO_P50}")
    if memory["project"] > MEBIBYTES:
        found.append(f"memory: {memory['project']:.0f} MiB; at most {MEBIBYTES}")
    return found


def draw(path: Path, loads: Loads) -> None:
    """Save a bar chart of the CPU times."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    servers = [server for server in SHOWN_AS if (server, "one contact") in loads]
    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    height = 0.8 / len(servers)
    for n, server in enumerate(servers):
        values = [median(load.cpu for load in loads[server, job]) for job in data.JOBS]
        places = [place + n * height for place in range(len(data.JOBS))]
        bars = axes.barh(places, values, height, label=SHOWN_AS[server], color=("#9aa5b1", "#0b7a75", "#d98e04")[n])
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(data.JOBS))], list(data.JOBS))
    axes.invert_yaxis()
    axes.set_xlabel("CPU of the server and PostgreSQL, µs per request (less is better)")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
