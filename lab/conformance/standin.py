"""Starts the stand-in on a free port, and ends it."""

import subprocess

BINARY = ["cargo", "run", "--quiet", "--locked", "--package", "podbeat-lab", "--"]


class StandIn:
    """`podbeat-lab service` with these arguments; `url` and `token` are what it printed."""

    def __init__(self, *arguments):
        command = BINARY + ["service", "--listen", "127.0.0.1:0", *arguments]
        # cargo replaces itself with the program, so that a signal reaches the program.
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
