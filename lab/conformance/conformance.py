"""Checks podbeat-server and podbeat's bodies with independent clients, and prints the results.

If a client disagrees with the contract, the contract is right. A comment at each exclusion says so.
"""

import signal
import sys
import tempfile
import time
import traceback

import agent_bodies
import generated
import libica_client
import sdk_page
from server import Server

# More than the default of 6,000 creates a minute, because schemathesis does nothing else.
UNLIMITED = ["--creates-per-minute", "1000000"]

PHASES = ["coverage", "fuzzing", "stateful"]

# Seconds; it takes about forty.
LIMIT = 300


class Ended(BaseException):
    """A signal arrived, or the time is up. It is not a check's failure: it ends all checks and their processes."""


def end(number, _):
    raise Ended(signal.Signals(number).name)


class Counts:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def check(self, name, run):
        """Runs one check, and continues if it fails."""
        try:
            run()
        except Exception:
            self.failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        else:
            self.passed += 1
            print(f"ok      {name}", flush=True)


def libica(counts):
    print("\nlibica calls the five operations", flush=True)
    with Server() as server:
        client = libica_client.Client(server.url, server.token)
        for check in libica_client.CHECKS:
            counts.check(check.__name__, lambda: check(client))


def bodies(counts):
    print("\nlibica's models parse the bodies that podbeat's agent sends", flush=True)
    sent = agent_bodies.recorded()
    print(f"{len(sent)} bodies", flush=True)
    for check in agent_bodies.CHECKS:
        counts.check(check.__name__, lambda: check(sent))


def schemathesis(counts):
    print("\nschemathesis generates requests from the contract", flush=True)
    with Server(*UNLIMITED) as server, tempfile.TemporaryDirectory() as directory:
        client = libica_client.Client(server.url, server.token)
        done, report = generated.run(client, server.token, directory)
    counts.check("schemathesis completed", lambda: ran(done, report))
    for operation in generated.OPERATIONS:
        counts.check(operation, lambda: holds(operation, report))
    tried = report["test_cases"]
    print(f"{report['operations']['tested']} operations, {tried['generated']} examples tried, "
          f"{tried['with_failures'] + tried['errored']} failures", flush=True)
    if done.returncode != 0:
        print(done.stdout)


def ran(done, report):
    phases = {name: phase["status"] for name, phase in report["phases"].items()}
    assert report["complete"] and not report["errors"], report["errors"]
    assert all(phases[name] != "skip" for name in PHASES), phases
    assert report["operations"]["tested"] == len(generated.OPERATIONS), report["operations"]
    # A failure here must belong to an operation below, or else it counts for this check.
    names = set(generated.OPERATIONS)
    nobodys = [failure for failure in report["failures"] if not names & set(failure["operations"])]
    assert not nobodys, nobodys
    assert done.returncode == 0 or report["failures"], done.stdout


def holds(operation, report):
    failures = [failure for failure in report["failures"] if operation in failure["operations"]]
    assert not failures, failures
    # If an operation refused every request, the check would be meaningless.
    accepted = sum(phase["accepted"] for phase in report["valid_rates"][operation].values())
    assert accepted > 0, report["valid_rates"]


def sdks():
    """The generated clients: for each its version, its environment and its directory, as run.sh passes them."""
    words = iter(sys.argv[1:])
    found = [sdk_page.Sdk(*words) for words in zip(words, words, words)]
    assert found, "run.sh passes the generated clients"
    return found


def examples(counts):
    for sdk in sdks():
        sdk_page.check(counts, sdk)


def main():
    for number in [signal.SIGTERM, signal.SIGINT, signal.SIGALRM]:
        signal.signal(number, end)
    signal.alarm(LIMIT)
    begun = time.monotonic()
    counts = Counts()
    for part in [libica, bodies, examples, schemathesis]:
        try:
            part(counts)
        except Exception:
            counts.failed += 1
            print(f"FAILED  {part.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"\ntook {time.monotonic() - begun:.0f} s")
    print(f"{counts.passed} passed, {counts.failed} failed")
    return 1 if counts.failed or not counts.passed else 0


sys.exit(main())
