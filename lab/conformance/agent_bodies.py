"""Sends every body of the demo's first act through libica's models, and those to podbeat-server."""

import json
import os
import subprocess
import tempfile

from libica.openapi.libtes import models

import strict
from libica_client import Client
from server import Server, built


def recorded():
    """The bodies of a run of the agent's real code, as the service received them, in order."""
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "heartbeats.jsonl")
        subprocess.run([built("demo"), "--record", file], check=True, stdout=subprocess.DEVNULL, timeout=120)
        with open(file, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def kinds(body):
    """The members and states that a body contains."""
    found = set(body)
    for status in body.get("containerStatus", []):
        found |= set(status["state"])
        for members in status["state"].values():
            found |= set(members)
    return found


def every_body_survives_a_strict_round_trip(bodies):
    for body in bodies:
        strict.round_trip(body, "HeartbeatTaskRunRequest")


def the_bodies_cover_every_member(bodies):
    first, last = bodies[0], bodies[-1]
    assert "containerStatus" not in first and "lastHeartbeat" not in first, first
    assert last["lastHeartbeat"] is True and kinds(last) >= {"terminated", "exitCode"}, last
    assert not any("lastHeartbeat" in body for body in bodies[:-1] if body["nonce"] != last["nonce"])
    wanted = {
        "waiting", "running", "terminated", "reason", "startedAt", "finishedAt", "exitCode", "containerID",
        "jobRetryCount", "podHardwareDetails", "podName", "podUID", "nonce",
    }
    missing = wanted - set().union(*map(kinds, bodies))
    assert not missing, missing


def an_unknown_member_is_rejected(bodies):
    for spoiled in [{**bodies[-1], "podUid": "u"}, {**bodies[-1], "jobRetryCount": "1"}]:
        try:
            strict.round_trip(spoiled, "HeartbeatTaskRunRequest")
        except AssertionError:
            continue
        raise AssertionError(f"not rejected: {spoiled}")


def the_server_accepts_the_bodies_from_libica(bodies):
    with Server() as server:
        client = Client(server.url, server.token)
        run = client.create(models.CreateTaskRunRequest(name="demo"))
        for body in bodies:
            model = strict.round_trip(body, "HeartbeatTaskRunRequest")
            client.heartbeat_task_run(run.id, body=model)
        assert client.get(run.id).status == "Completed"


CHECKS = [
    every_body_survives_a_strict_round_trip,
    the_bodies_cover_every_member,
    an_unknown_member_is_rejected,
    the_server_accepts_the_bodies_from_libica,
]
