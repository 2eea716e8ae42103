"""schemathesis: generates valid and invalid requests from the contract, and checks every answer against it."""

import copy
import json
import os
import re
import subprocess

import yaml

from libica.openapi.libtes import models

CONTRACT = os.path.join(os.path.dirname(__file__), "..", "..", "contract", "task-runs.openapi.yaml")

# The same requests in every run.
SEED = 20261124
EXAMPLES = 60

OPERATIONS = [
    "POST /v1/tasks/runs",
    "GET /v1/tasks/runs",
    "GET /v1/tasks/runs/{runId}",
    "POST /v1/tasks/runs/{runId}:heartbeat",
    "PUT /v1/tasks/runs/{runId}:abort",
]

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
    # Left out: missing_required_header (the contract's only required header is Authorization, which
    # ignored_auth covers), and object_level_authorization (there is only one tenant).
]


def sharpened(run_ids):
    """The contract with stricter schemas: with the rules in its descriptions, and the service's additional rules."""
    with open(CONTRACT, encoding="utf-8") as file:
        contract = yaml.safe_load(file)
    for schema in contract["components"]["schemas"].values():
        sharpen(schema)
    schemas = contract["components"]["schemas"]
    for request in ["CreateTaskRunRequest", "HeartbeatTaskRunRequest"]:
        for name in requested(request, schemas):
            allow_nulls(schemas[name])
    for name in requested("HeartbeatTaskRunRequest", schemas):
        # The agent may be newer than the service, so unknown members are skipped.
        del schemas[name]["additionalProperties"]
    acl = schemas["CreateTaskRunRequest"]["properties"]["acl"]
    acl["maxItems"] = 100
    acl["items"].update({"maxLength": 255, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"})
    listed = contract["paths"]["/v1/tasks/runs"]["get"]
    for parameter in listed["parameters"]:
        if parameter["name"] == "sort":
            # The parameter's description lists the fields; anything else is answered with 400.
            parameter["schema"]["pattern"] = sort_pattern()
        elif parameter["name"] == "pageToken":
            # Tokens come from an earlier answer, so a generated one is answered with 400. libica
            # tests the real ones.
            parameter["schema"]["enum"] = [""]
    # Any text, as in the contract, and in addition the existing runs.
    run_id = contract["components"]["parameters"]["runId"]
    run_id["schema"] = {"anyOf": [{"enum": run_ids}, {"type": "string", "minLength": 1}]}
    for path, operations in contract["paths"].items():
        for operation in operations.values():
            # `default` would accept any status.
            del operation["responses"]["default"]
            if path.endswith(":abort") or path.endswith(":heartbeat"):
                # The contract doesn't list 409. On its page, every other status is "unexpected".
                operation["responses"]["409"] = copy.deepcopy(operation["responses"]["404"])
    return contract


def sort_pattern():
    """One field, or two different ones, in any case, each with a direction or none."""
    in_any_case = lambda word: "".join(f"[{letter.lower()}{letter.upper()}]" for letter in word)
    direction = f"([ :]({in_any_case('asc')}|{in_any_case('desc')}))?"
    fields = [in_any_case(field) + direction for field in ["name", "status", "timeCreated", "timeModified"]]
    pairs = [f"{first},{second}" for first in fields for second in fields if first != second]
    return f"^({'|'.join([*fields, *pairs])})$"


def requested(name, schemas):
    """The names of a request's schemas: its own, and those of its members."""
    found, to_do = set(), [name]
    while to_do:
        name = to_do.pop()
        if name not in found:
            found.add(name)
            to_do += re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schemas[name]))
    return found


def allow_nulls(schema):
    """The service reads an explicit null as an absent member. The required name of an image stays required."""
    for name, member in schema["properties"].items():
        if name in schema.get("required", []):
            continue
        if "$ref" in member:
            schema["properties"][name] = {"allOf": [member], "nullable": True}
        else:
            member["nullable"] = True


def sharpen(schema):
    """Forbids unknown members, to find misspellings, and limits numbers to the range of their format."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
            for member in schema["properties"].values():
                sharpen(member)
        if schema.get("format") == "int32":
            schema.setdefault("minimum", -(2 ** 31))
            schema.setdefault("maximum", 2 ** 31 - 1)
        sharpen(schema.get("items"))


def run(client, token, directory):
    """Runs schemathesis against the server, and returns its report as JSON."""
    # Not strict: schemathesis has to find what is wrong with these answers.
    live = [client.create_task_run(body=models.CreateTaskRunRequest(name=name)) for name in ["pending", "running", "over"]]
    client.heartbeat_task_run(live[1].id)
    client.heartbeat_task_run(live[2].id, body=models.HeartbeatTaskRunRequest(last_heartbeat=True))
    contract = os.path.join(directory, "contract.json")
    with open(contract, "w", encoding="utf-8") as file:
        json.dump(sharpened([run.id for run in live]), file)
    report = os.path.join(directory, "report.json")
    command = [
        "schemathesis", "run", contract,
        "--url", client.api_client.configuration.host,
        "--header", f"Authorization: Bearer {token}",
        "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing,stateful",
        "--seed", str(SEED), "--generation-database", "none", "--max-examples", str(EXAMPLES),
        "--workers", "1", "--request-timeout", "10",
        "--continue-on-failure", "--no-color", "--warnings", "off",
        "--report", "json", "--report-json-path", report,
    ]
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if not os.path.exists(report):
        raise RuntimeError(f"schemathesis did not run: {done.stdout}")
    with open(report, encoding="utf-8") as file:
        return done, json.load(file)
