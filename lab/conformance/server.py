"""Starts podbeat-server on a free port with a new data file, and ends it."""

import json
import os
import subprocess
import tempfile
import time

# Seconds. It takes a tenth of one.
START = 60


def built(program):
    """A program, as `just conformance` builds it."""
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "debug", program)


class Server:
    """`podbeat-server` with these arguments; `url`, and the first administrator's `token`."""

    def __init__(self, *arguments):
        self.directory = tempfile.TemporaryDirectory()
        path = lambda name: os.path.join(self.directory.name, name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PODBEAT_")}
        with open(path("log"), "w", encoding="utf-8") as log, open(path("output"), "w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [built("podbeat-server"), "--listen", "127.0.0.1:0", "--data", path("podbeat.db"), *arguments],
                env={**environment, "PODBEAT_LOG_FORMAT": "json"}, stdout=output, stderr=log,
            )
        self.log = path("log")
        limit = time.monotonic() + START
        while not self.found("ready"):
            if self.process.poll() is not None or time.monotonic() > limit:
                self.process.kill()
                raise RuntimeError(f"podbeat-server did not start: exit code {self.process.wait()}\n{self.logged()}")
            time.sleep(0.01)
        self.url = self.found("listening")[0]["url"]
        with open(path("output"), encoding="utf-8") as output:
            self.token = next(word for word in output.read().split() if word.startswith("pbt_"))

    def logged(self):
        with open(self.log, encoding="utf-8") as log:
            return log.read()

    def found(self, message):
        """The complete lines of the log with this message."""
        lines = [json.loads(line) for line in self.logged().splitlines(True) if line.endswith("\n")]
        return [line for line in lines if line["message"] == message]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            code = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        logged = self.logged()
        self.directory.cleanup()
        if code != 0 or '"level":"ERROR"' in logged:
            raise RuntimeError(f"podbeat-server ended with exit code {code}\n{logged}")
