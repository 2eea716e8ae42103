"""Every body that podbeat's agent sends in the demo, before libica's generated models, and through them to the stand-in."""

import json
import os
import subprocess
import tempfile

from libica.openapi.libtes import models

import strict
from libica_client import Client
from standin import StandIn, built


def recorded():
    """The bodies of a run of the agent's real code, as the service received them, in order."""
    with tempfile.TemporaryDirectory() as directory:
        file = os.path.join(directory, "heartbeats.jsonl")
        subprocess.run([built("demo"), "--record", file], check=True, stdout=subprocess.DEVNULL, timeout=120)
        with open(file, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def kinds(body):
    """What a body shows that another may not."""
    found = set(body)
    for status in body.get("containerStatus", []):
        found |= set(status["state"])
        for members in status["state"].values():
            found |= set(members)
    return found


def every_body_is_read_strictly_and_says_the_same_again(bodies):
    for body in bodies:
        strict.round_trip(body, "HeartbeatTaskRunRequest")


def every_kind_of_body_was_there(bodies):
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


def an_unknown_member_would_be_noticed(bodies):
    for spoilt in [{**bodies[-1], "podUid": "u"}, {**bodies[-1], "jobRetryCount": "1"}]:
        try:
            strict.round_trip(spoilt, "HeartbeatTaskRunRequest")
        except AssertionError:
            continue
        raise AssertionError(f"not noticed: {spoilt}")


def the_stand_in_takes_them_from_libica(bodies):
    with StandIn() as standin:
        client = Client(standin.url, standin.token)
        run = client.create(models.CreateTaskRunRequest(name="demo"))
        for body in bodies:
            model = strict.round_trip(body, "HeartbeatTaskRunRequest")
            client.heartbeat_task_run(run.id, body=model)
        assert client.get(run.id).status == "Completed"


CHECKS = [
    every_body_is_read_strictly_and_says_the_same_again,
    every_kind_of_body_was_there,
    an_unknown_member_would_be_noticed,
    the_stand_in_takes_them_from_libica,
]
