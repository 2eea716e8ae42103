"""Starts the stand-in on a free port, and ends it."""

import os
import subprocess


def built(program):
    """A program of podbeat-lab, as `just conformance` builds it."""
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "debug", program)


class StandIn:
    """`podbeat-lab service` with these arguments; `url` and `token` are what it printed."""

    def __init__(self, *arguments):
        command = [built("podbeat-lab"), "service", "--listen", "127.0.0.1:0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        told = {}
        while "token" not in told:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"the stand-in did not start: exit code {self.process.wait()}")
            name, _, value = line.strip().partition(" ")
            told[name] = value.strip()
        self.url, self.token = told["url"], told["token"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if code != 0:
            raise RuntimeError(f"the stand-in ended with exit code {code}")
