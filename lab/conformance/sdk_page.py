"""Runs the five examples of contract/TaskRunsApi.md with clients that openapi-generator makes from our contract.

The page documents such a client, the package ICA_SDK. Only its host, its key, the placeholders in its requests and the
imports that it forgets are different here.
"""

import ast
import builtins
import os
import re
import subprocess
import tempfile

from libica.openapi.libtes import models

from libica_client import Client
from server import Server

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "contract", "TaskRunsApi.md")

# The page's examples, in the order in which they run: the list shows what `create_task_run` created.
OPERATIONS = ["create_task_run", "get_task_run", "heartbeat_task_run", "abort_task_run", "list_task_runs"]

# Seconds for one example; it takes less than one.
LIMIT = 60


def examples():
    """The page's Python, by the operation that it calls."""
    with open(PAGE, encoding="utf-8") as file:
        blocks = re.findall(r"^```python\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
    found = {}
    for block in blocks:
        called = set(re.findall(r"api_instance\.(\w+)\(", block))
        assert len(called) == 1, called
        found[called.pop()] = block
    assert sorted(found) == sorted(OPERATIONS) and len(blocks) == len(OPERATIONS), sorted(found)
    return found


def completed(example, values):
    """The example with these values in place of the page's, and with the imports that the page forgets."""
    for old, new in values.items():
        # Otherwise the page has changed.
        assert old in example, f"the page's example has no {old}"
        example = example.replace(old, new)
    return "".join(line + "\n" for line in missing_imports(example)) + example


def missing_imports(code):
    """An import for each name that the code uses and never defines."""
    tree = ast.parse(code)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    defined = {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            defined.add(node.name)
    for name in sorted({node.id for node in names} - defined):
        if name == "dateutil_parser":
            yield "from dateutil.parser import parse as dateutil_parser"
        else:
            module = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            yield f"from ICA_SDK.model.{module} import {name}"


class Sdk:
    """A generated client, in its own environment."""

    def __init__(self, version, venv, package):
        self.version = version
        self.python = os.path.join(venv, "bin", "python")
        self.package = package

    def run(self, code):
        """Runs the code in a process of its own, and returns what it printed."""
        if not os.path.isdir(os.path.join(self.package, "ICA_SDK", "model")):
            # Later generators name the package of the models in the plural.
            code = code.replace("ICA_SDK.model.", "ICA_SDK.models.")
        with tempfile.TemporaryDirectory() as directory:
            file = os.path.join(directory, "example.py")
            with open(file, "w", encoding="utf-8") as out:
                out.write(code)
            done = subprocess.run(
                [self.python, "-I", "-c", f"import runpy, sys; sys.path.insert(0, {self.package!r}); runpy.run_path({file!r})"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, cwd=directory,
            )
        assert done.returncode == 0 and "Exception when calling" not in done.stdout, done.stdout
        return done.stdout


class Page:
    """The examples against a server of their own."""

    def __init__(self, sdk, server):
        self.sdk, self.server = sdk, server
        self.client = Client(server.url, server.token)
        self.examples = examples()

    def run(self, operation, **placeholders):
        values = {
            "https://use1.platform.illumina.com\"\n)": f"{self.server.url}\"\n)",
            "YOUR_API_KEY": self.server.token,
            # The page says to uncomment this line if a prefix is needed.
            "# configuration.api_key_prefix": "configuration.api_key_prefix",
            **{f'"{name}"': f'"{value}"' for name, value in placeholders.items()},
        }
        return self.sdk.run(completed(self.examples[operation], values))

    def new_run(self):
        return self.client.create(models.CreateTaskRunRequest(name="of the page")).id

    def create_task_run(self):
        printed = self.run("create_task_run")
        created = self.client.page(names="name_example").items
        assert [run.status for run in created] == ["Pending"], created
        run = self.client.get(created[0].id)
        assert run.id in printed and "Pending" in printed, printed
        assert run.execution.environment.input_stream_settings.cache_size_gb == 50, run
        assert "password_example" not in printed, printed

    def get_task_run(self):
        run = self.new_run()
        printed = self.run("get_task_run", runId_example=run)
        assert run in printed and "of the page" in printed, printed

    def heartbeat_task_run(self):
        run = self.new_run()
        printed = self.run("heartbeat_task_run", runId_example=run)
        # The example sends two heartbeats: one without a body, and the last one.
        assert "jwt" in printed, printed
        got = self.client.get(run)
        ended = ("FailedRestartable", "name_example ended with exit code 1 (reason_example)")
        assert (got.status, got.status_details) == ended, got

    def abort_task_run(self):
        run = self.new_run()
        printed = self.run("abort_task_run", runId_example=run)
        assert run in printed and "Aborted" in printed, printed
        assert self.client.get(run).status == "Aborted"

    def list_task_runs(self):
        # After `create_task_run`. No run has a version, so the example lists all versions.
        listed = {"sort": "name desc", "names": "name_example", "status": "Pending", "versions": "", "acls": "acl_example"}
        page = self.client.page(page_size=10, **listed)
        assert page.item_count == 1, page
        printed = self.run(
            "list_task_runs", pageToken_example=page.first_page_token,
            **{f"{name}_example": value for name, value in listed.items()},
        )
        assert page.items[0].id in printed and page.first_page_token in printed, printed


def check(counts, sdk):
    """Runs each example, and counts it as one check."""
    print(f"\nthe SDK page's examples run with the client of openapi-generator {sdk.version}", flush=True)
    passed = counts.passed
    with Server() as server:
        page = Page(sdk, server)
        for operation in OPERATIONS:
            counts.check(operation, getattr(page, operation))
    print(f"{counts.passed - passed} of {len(OPERATIONS)} examples", flush=True)
