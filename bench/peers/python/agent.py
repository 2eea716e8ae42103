"""The sidecar as one writes it in Python: kubernetes' own client watches the pod, libica sends the heartbeats.

Two threads: one watches and hands on what it sees, the main one sends. It does podbeat's work on an ordinary day: the settings have
the same names, and so have the members on the wire.
"""

import os
import queue
import random
import signal
import sys
import threading
import time
import uuid

from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.incluster_config import InClusterConfigLoader
from libica.openapi.libtes import ApiClient, Configuration, TaskRunsApi, models
from libica.openapi.libtes.exceptions import ApiException as ServiceException
from urllib3.exceptions import HTTPError

POD_NAME = os.environ["POD_NAME"]
NAMESPACE = os.environ["POD_NAMESPACE"]
RUN = os.environ["TASK_RUN_ID"]
OWN_CONTAINER = os.environ.get("PODBEAT_CONTAINER_NAME", "podbeat")
INTERVAL = float(os.environ.get("PODBEAT_INTERVAL", "30s").removesuffix("s"))
TIMEOUT = float(os.environ.get("PODBEAT_TIMEOUT", "10s").removesuffix("s"))
SERVICE_ACCOUNT = os.environ.get("PODBEAT_SERVICE_ACCOUNT_DIR", "/var/run/secrets/kubernetes.io/serviceaccount")

# How long to wait after SIGTERM for the event with the end of the task, in seconds.
SETTLING = 1.0

# The server ends a watch after this many seconds; the client ends it a little later.
WATCH = 290

# A marker among the looks: SIGTERM arrived.
STOP = object()


class Look:
    """What one look at the pod tells: the statuses for the wire, and whether the task is over."""

    def __init__(self, pod):
        statuses = pod.status.container_statuses or []
        self.statuses = [wire_status(s) for s in statuses if s.name != OWN_CONTAINER and has_state(s.state)]
        exits = {s.name: s.state.terminated for s in statuses if s.state is not None and s.state.terminated}
        tasks = [c.name for c in pod.spec.containers if c.name != OWN_CONTAINER]
        self.is_over = bool(tasks) and all(is_final(exits.get(name), pod.spec.restart_policy) for name in tasks)


def has_state(state):
    return state is not None and bool(state.waiting or state.running or state.terminated)


def is_final(terminated, policy):
    if terminated is None:
        return False
    return policy == "Never" or (policy == "OnFailure" and terminated.exit_code == 0)


def wire_status(status):
    state = status.state
    if state.terminated is not None:
        ended = state.terminated
        told = models.ContainerState(terminated=models.ContainerStateTerminated(
            container_id=ended.container_id, exit_code=ended.exit_code, finished_at=ended.finished_at,
            message=ended.message, reason=ended.reason, signal=ended.signal, started_at=ended.started_at,
        ))
    elif state.running is not None:
        told = models.ContainerState(running=models.ContainerStateRunning(started_at=state.running.started_at))
    else:
        waiting = state.waiting
        told = models.ContainerState(
            waiting=models.ContainerStateWaiting(message=waiting.message, reason=waiting.reason))
    return models.ContainerStatus(name=status.name, state=told)


def backoff(tries):
    return random.uniform(0, min(30.0, 0.5 * 2 ** min(tries, 6)))


class PodWatch(threading.Thread):
    """Lists the pod, watches it from there, and lists again when the server has forgotten that version."""

    def __init__(self, looks):
        super().__init__(name="pod-watch", daemon=True)
        configuration = client.Configuration()
        InClusterConfigLoader(
            token_filename=os.path.join(SERVICE_ACCOUNT, "token"),
            cert_filename=os.path.join(SERVICE_ACCOUNT, "ca.crt"),
        ).load_and_set(configuration)
        self.pods = client.CoreV1Api(client.ApiClient(configuration))
        self.selector = f"metadata.name={POD_NAME}"
        self.looks = looks
        self.version = None

    def run(self):
        tries = 0
        while True:
            try:
                if self.version is None:
                    self.list()
                self.follow()
                tries = 0
            except ApiException as refused:
                if refused.status == 410:
                    self.version, tries = None, 0
                    continue
                print(f"watching the pod: {refused.status} {refused.reason}", file=sys.stderr, flush=True)
                tries += 1
                time.sleep(backoff(tries))
            except (HTTPError, OSError) as broken:
                print(f"watching the pod: {broken}", file=sys.stderr, flush=True)
                tries += 1
                time.sleep(backoff(tries))

    def list(self):
        pods = self.pods.list_namespaced_pod(
            NAMESPACE, field_selector=self.selector, resource_version="0", _request_timeout=(10, 30))
        for pod in pods.items:
            self.looks.put(Look(pod))
        self.version = pods.metadata.resource_version

    def follow(self):
        events = watch.Watch().stream(
            self.pods.list_namespaced_pod, NAMESPACE, field_selector=self.selector, resource_version=self.version,
            allow_watch_bookmarks=True, timeout_seconds=WATCH, _request_timeout=(10, WATCH + 10))
        for event in events:
            if event["type"] in ("ADDED", "MODIFIED"):
                self.looks.put(Look(event["object"]))
            # Where the watch resumes after it ends or breaks. Bookmarks also update it.
            self.version = event["raw_object"]["metadata"]["resourceVersion"]


class Service:
    """Sends heartbeats by libica, one at a time, each until it is accepted."""

    def __init__(self):
        configuration = Configuration(host=os.environ["PODBEAT_SERVICE_URL"])
        configuration.ssl_ca_cert = os.environ.get("PODBEAT_CA_FILE")
        configuration.api_key_prefix["Authorization"] = "Bearer"
        self.configuration = configuration
        self.runs = TaskRunsApi(ApiClient(configuration))
        retries = os.environ.get("JOB_RETRY_COUNT")
        self.always = {
            "pod_name": POD_NAME,
            "pod_uid": os.environ["POD_UID"],
            "pod_hardware_details": os.environ.get("POD_HARDWARE_DETAILS"),
            "job_retry_count": int(retries) if retries else None,
        }

    def send(self, look, is_last=False):
        body = models.HeartbeatTaskRunRequest(
            container_status=look.statuses if look else None,
            last_heartbeat=True if is_last else None,
            nonce=os.environ.get("PODBEAT_NONCE") or uuid.uuid4().hex,
            **self.always,
        )
        tries = 0
        while True:
            try:
                with open(os.environ["PODBEAT_TOKEN_FILE"], encoding="ascii") as file:
                    self.configuration.api_key["Authorization"] = file.read().strip()
                self.runs.heartbeat_task_run(RUN, body=body, _request_timeout=TIMEOUT)
                return
            except ServiceException as refused:
                print(f"sending a heartbeat: {refused.status} {refused.reason}", file=sys.stderr, flush=True)
                if refused.status in (400, 422):
                    return
            except (HTTPError, OSError) as broken:
                print(f"sending a heartbeat: {broken}", file=sys.stderr, flush=True)
            tries += 1
            time.sleep(backoff(tries))


def beat(service, looks):
    """Sends until the task is over or SIGTERM comes. Returns the last look, and whether SIGTERM came."""
    look = None
    service.send(None)
    due = time.monotonic() + INTERVAL
    while True:
        try:
            news = looks.get(timeout=max(0, due - time.monotonic()))
        except queue.Empty:
            news = look
        else:
            if news is STOP:
                return settle(look, looks), True
            is_change = look is None or news.statuses != look.statuses
            look = news
            if look.is_over:
                return look, False
            if not is_change:
                continue
        due = time.monotonic() + INTERVAL * random.uniform(0.9, 1.1)
        service.send(news)


def settle(look, looks):
    """The event that shows the end of the task mostly follows SIGTERM."""
    deadline = time.monotonic() + SETTLING
    while look is None or not look.is_over:
        try:
            news = looks.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            break
        look = look if news is STOP else news
    return look


def main():
    # The only queue that a signal handler may write to.
    looks = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: looks.put(STOP))
    PodWatch(looks).start()
    service = Service()
    last, is_stopped = beat(service, looks)
    service.send(last, is_last=True)
    # The kubelet restarts a native sidecar that ends by itself, so it waits for SIGTERM.
    while not is_stopped:
        is_stopped = looks.get() is STOP


if __name__ == "__main__":
    main()
