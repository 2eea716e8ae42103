"""The five operations by libica 2.5.0, whose client and models were generated from the service's own description."""

import copy
import datetime
import json
import time

from libica.openapi.libtes import ApiClient, Configuration, TaskRunsApi, models
from libica.openapi.libtes.exceptions import ApiException

import strict
from server import Server

UTC = datetime.timezone.utc

# Everything that the public page's examples contain, and what they omit.
EXECUTION = models.Execution(
    image=models.Image(
        name="registry.example/tool", tag="1.2", digest="sha256:00",
        credentials=models.Credentials(username="robot", password="hunter2"),
    ),
    command="bash",
    args=["-c", "true"],
    inputs=[models.InputMountMappingWithCreds(
        storage_provider="gds", credentials={"key": "hunter2"}, path="/in", url="gds://volume/in",
        urn="urn:in", mode="download", type="File",
    )],
    outputs=[models.MountMappingWithCreds(
        path="/out", url="gds://volume/out", urn="urn:out", type="Folder", storage_provider="gds",
        service_url="https://storage.example", credentials={"key": "hunter2"},
    )],
    system_files=models.SystemFiles(
        url="gds://volume/system", urn="urn:system", storage_provider="gds", credentials={"key": "hunter2"},
    ),
    environment=models.Environment(
        variables={"LANG": "C"},
        resources=models.Resources(
            type="standard", size="medium", cpu_cores=3.14, memory_gb=8.0, hardware=["fpga"], tier="economy",
        ),
        input_stream_settings=models.InputStreamSettings(
            access_pattern="sequential", cache_size_gb=50, block_size_mb=32.0, prefetch_blocks=32,
        ),
    ),
    working_directory="/work",
    retry_limit=3,
    retry_count=0,
)


class Client(TaskRunsApi):
    """libica's client. It also checks the text of every answer strictly against its models."""

    def __init__(self, url, token):
        configuration = Configuration(host=url)
        if token is not None:
            configuration.api_key["Authorization"] = token
            configuration.api_key_prefix["Authorization"] = "Bearer"
        super().__init__(ApiClient(configuration))

    def strictly(self, kind, call, *arguments, **named):
        model, status, headers = call(*arguments, **named)
        assert headers["content-type"] == "application/json", headers
        text = self.api_client.last_response.data
        strict.round_trip(json.loads(text), kind)
        return model, status

    def create(self, body=None):
        call = self.create_task_run_with_http_info
        run, status = self.strictly("TaskRun", call, **({} if body is None else {"body": body}))
        assert status == 201, status
        return run

    def get(self, run_id):
        run, status = self.strictly("TaskRun", self.get_task_run_with_http_info, run_id)
        assert status == 200, status
        return run

    def abort(self, run_id):
        run, status = self.strictly("TaskRunSummary", self.abort_task_run_with_http_info, run_id)
        assert status == 200, status
        return run

    def beat(self, run_id, **members):
        body = models.HeartbeatTaskRunRequest(**members)
        call = self.heartbeat_task_run_with_http_info
        answer, status = self.strictly("TaskRunHeartbeat", call, run_id, body=body)
        assert status == 200, status
        return answer

    def page(self, **asked):
        listed, status = self.strictly("TaskRunSummaryPagedItems", self.list_task_runs_with_http_info, **asked)
        assert status == 200, status
        return listed


def refused(status, call, *arguments, **named):
    """Makes a call that must fail with this status, and returns its ErrorResponse."""
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == status, f"expected {status}: {error}"
        assert error.headers["content-type"] == "application/json", error.headers
        problem = strict.round_trip(json.loads(error.body), "ErrorResponse")
        assert problem.code and problem.message, problem
        return problem
    raise AssertionError(f"expected {status}, but the call succeeded")


def same(got, wanted, *members):
    for member in members:
        one, other = getattr(got, member), getattr(wanted, member)
        assert one == other, f"{member}: {one!r} instead of {other!r}"


def terminated(code, name="main"):
    return models.ContainerStatus(name=name, state=models.ContainerState(
        terminated=models.ContainerStateTerminated(
            exit_code=code, signal=0, reason="Error" if code else "Completed", message="m",
            started_at=datetime.datetime(2026, 1, 1, tzinfo=UTC),
            finished_at=datetime.datetime(2026, 1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
            container_id="containerd://1",
        )))


# Each function below is one check. Its name is printed.

def create_returns_every_member_except_secrets(client):
    request = models.CreateTaskRunRequest(
        name="every member", description="d", acl=["tid:1", "wid:2"], execution=EXECUTION)
    run = client.create(request)
    same(run, request, "name", "description", "acl")
    assert run.status == "Pending" and run.id and run.href.endswith(run.id) and run.urn
    assert run.tenant_id and run.created_by and run.modified_by and run.logs == []
    same(run.execution, EXECUTION, "command", "args", "working_directory", "retry_limit", "retry_count")
    environment = copy.deepcopy(EXECUTION.environment)
    environment.variables = {"LANG": "[redacted]"}
    assert run.execution.environment == environment, run.execution.environment
    same(run.execution.image, EXECUTION.image, "name", "tag", "digest")
    same(run.execution.inputs[0], EXECUTION.inputs[0], "storage_provider", "path", "url", "urn", "mode", "type")
    same(run.execution.outputs[0], EXECUTION.outputs[0],
         "path", "url", "urn", "type", "storage_provider", "service_url")
    same(run.execution.system_files, EXECUTION.system_files, "url", "urn", "storage_provider")
    assert (run.type_of_resource, run.size_of_resource, run.tier_of_resource) == ("standard", "medium", "economy")
    assert json.loads(run.execution_raw_json)["command"] == "bash"
    assert "hunter2" not in client.api_client.last_response.data
    now = datetime.datetime.now(UTC)
    assert abs(now - run.time_created) < datetime.timedelta(minutes=1), run.time_created
    assert run.time_created == run.time_modified
    assert client.get(run.id) == run


def create_needs_no_body(client):
    run = client.create()
    assert run.status == "Pending" and run.name is None


def create_refuses_bodies_that_violate_the_contract(client):
    create = client.create_task_run
    refused(400, create, body={"name": "x" * 256})
    refused(400, create, body={"description": "x" * 4097})
    refused(400, create, body={"execution": {"image": {"name": ""}}})
    refused(400, create, body={"execution": {"image": {}}})
    refused(400, create, body={"acl": "tid:1"})
    problem = refused(400, create, body={"nmae": "misspelled"})
    assert "nmae" in problem.message, problem


def heartbeats_move_a_run_from_pending_to_its_end(client):
    for codes, ended in [([0, 0], "Completed"), ([0, 3], "Failed"), ([], "Failed")]:
        once = models.Execution(retry_limit=0)
        run = client.create(models.CreateTaskRunRequest(name="lives", execution=once))
        waiting = models.ContainerState(waiting=models.ContainerStateWaiting(reason="PodInitializing", message="m"))
        started = datetime.datetime(2026, 1, 1, tzinfo=UTC)
        running = models.ContainerState(running=models.ContainerStateRunning(started_at=started))
        common = {"pod_name": "p", "pod_uid": "u", "pod_hardware_details": "node=n", "job_retry_count": 1}
        for nonce, state in [("1", waiting), ("2", running)]:
            status = [models.ContainerStatus(name="main", state=state)]
            assert client.beat(run.id, nonce=nonce, container_status=status, **common).jwt
            assert client.get(run.id).status == "Running"
        last = {"nonce": "3", "last_heartbeat": True, "container_status": [terminated(code) for code in codes]}
        client.beat(run.id, **last, **common)
        over = client.get(run.id)
        assert over.status == ended, over.status
        assert len(over.logs) == 1 and over.logs[0].start_time <= over.logs[0].end_time == over.time_modified
        assert (over.logs[0].error is None) == (ended == "Completed")
        client.beat(run.id, **last, **common)
        assert client.get(run.id) == over, "repeating the last heartbeat changes nothing"
        refused(409, client.beat, run.id, nonce="4", **common)
        refused(409, client.abort_task_run, run.id)


def heartbeat_needs_no_body(client):
    run = client.create()
    client.heartbeat_task_run(run.id)
    assert client.get(run.id).status == "Running"


def heartbeat_refuses_bodies_that_violate_the_contract(client):
    beat, run = client.heartbeat_task_run, client.create()
    # The agent may be newer than the service, so unknown members are skipped.
    beat(client.create().id, body={"podUid": "u"})
    refused(400, beat, run.id, body={"jobRetryCount": 2 ** 31})
    # A time without an offset, as libica writes Python's naive times, is not a date-time (RFC
    # 3339).
    naive = models.ContainerStateRunning(started_at=datetime.datetime(2026, 1, 1))
    status = models.ContainerStatus(name="main", state=models.ContainerState(running=naive))
    refused(400, client.beat, run.id, container_status=[status])
    assert client.get(run.id).status == "Pending"


def a_lower_job_retry_count_is_refused(client):
    run = client.create()
    client.beat(run.id, job_retry_count=2)
    refused(409, client.beat, run.id, job_retry_count=1)
    client.beat(run.id, job_retry_count=2, last_heartbeat=True, container_status=[terminated(1)], nonce="last")
    assert client.get(run.id).status == "FailedRestartable"
    client.beat(run.id, job_retry_count=3)
    taken_up = client.get(run.id)
    assert taken_up.status == "Running" and len(taken_up.logs) == 2


def abort_ends_a_pending_or_running_run(client):
    for beats in [0, 1]:
        run = client.create(models.CreateTaskRunRequest(name="aborted"))
        for _ in range(beats):
            client.beat(run.id)
        summary = client.abort(run.id)
        assert (summary.id, summary.name, summary.status) == (run.id, "aborted", "Aborted")
        problem = refused(409, client.abort_task_run, run.id)
        assert "Aborted" in problem.message
        refused(409, client.beat, run.id)


def an_unknown_run_is_404(client):
    for call in [client.get_task_run, client.heartbeat_task_run, client.abort_task_run]:
        assert refused(404, call, "trn.none").code == "NotFound"
        refused(404, call, "a/b c:d%")


def without_the_token_every_operation_is_401(client):
    run = client.create()
    for token in ["wrong", None]:
        other = Client(client.api_client.configuration.host, token)
        for call in [other.get_task_run, other.heartbeat_task_run, other.abort_task_run]:
            assert refused(401, call, run.id).code == "Unauthorized"
        refused(401, other.create_task_run)
        refused(401, other.list_task_runs)


def a_renewed_token_is_valid_only_for_its_run(client):
    own, other = client.create(), client.create()
    renewed = Client(client.api_client.configuration.host, client.beat(own.id).jwt)
    assert renewed.beat(own.id).jwt is None, "the token is new"
    assert renewed.get(own.id).status == "Running"
    for call in [renewed.get_task_run, renewed.heartbeat_task_run, renewed.abort_task_run]:
        assert refused(403, call, other.id).code == "Forbidden"
    refused(403, renewed.abort_task_run, own.id)
    refused(403, renewed.create_task_run)
    refused(403, renewed.list_task_runs)


def lists_are_paged_sorted_and_filtered(client):
    names = [f"page-{nth:02}" for nth in range(23)]
    for name in names:
        request = models.CreateTaskRunRequest(name=name, acl=["paged", "even" if int(name[-2:]) % 2 == 0 else "odd"])
        run = client.create(request)
        if name in names[:3]:
            client.abort(run.id)
    every = {"acls": "paged"}
    for sort, wanted in [
        ("name", names),
        ("name desc", names[::-1]),
        ("timeCreated", names),
        ("timeCreated desc", names[::-1]),
        ("status asc, name desc", names[2::-1] + names[:2:-1]),
        ("timeModified desc", names[:2:-1] + names[2::-1]),
    ]:
        for size in [1, 7, 10, 23, 1000]:
            page, shown, pages = client.page(sort=sort, page_size=size, **every), [], []
            assert page.prev_page_token is None
            while True:
                assert page.item_count == len(page.items) <= size
                assert (page.total_item_count, page.total_page_count) == (23, -(-23 // size))
                pages.append([item.name for item in page.items])
                shown += pages[-1]
                assert len(shown) <= 23, f"{sort}, {size}: the pages do not end: {shown}"
                if page.next_page_token is None:
                    break
                # Half of the calls repeat the sort and the filters with the token, and half don't.
                more = {"sort": sort, **every} if len(pages) % 2 else {}
                page = client.page(page_token=page.next_page_token, page_size=size, **more)
            assert shown == wanted, f"{sort}, {size}: {shown}"
            for nth in range(len(pages) - 2, -1, -1):
                page = client.page(page_token=page.prev_page_token)
                assert [item.name for item in page.items] == pages[nth]
            assert page.prev_page_token is None
            for token, nth in [(page.last_page_token, -1), (page.first_page_token, 0)]:
                assert [item.name for item in client.page(page_token=token).items] == pages[nth]
    of = lambda **asked: {item.name for item in client.page(page_size=1000, **asked).items}
    assert of(names="page-03,page-05") == {"page-03", "page-05"}
    assert of(status="Aborted", **every) == set(names[:3])
    assert of(status="Pending,Aborted", **every) == set(names)
    assert of(acls="even") == set(names[::2])
    assert of(acls="even,odd") == set(names)
    assert of(versions="tvn.1") == set(), "these runs were created without a version"
    assert client.page(names="nobody").total_item_count == 0
    assert client.page(**every).item_count == 10, "the default of pageSize"


def list_refuses_invalid_parameters(client):
    listed = client.list_task_runs
    for asked in [{"page_size": 0}, {"page_size": 1001}, {"sort": "id"}, {"sort": "name up"}, {"page_token": "x"}]:
        refused(400, listed, **asked)
    first = client.page(sort="name", page_size=1)
    refused(400, listed, page_token=first.next_page_token, sort="name desc")


def a_run_without_heartbeats_times_out(_):
    with Server("--heartbeat-timeout", "1s") as server:
        client = Client(server.url, server.token)
        run = client.create()
        client.beat(run.id)
        limit = time.monotonic() + 20
        while (status := client.get(run.id).status) == "Running" and time.monotonic() < limit:
            time.sleep(0.01)
        assert status == "TimedOut", status
        refused(409, client.beat, run.id)
        refused(409, client.abort_task_run, run.id)


CHECKS = [
    create_returns_every_member_except_secrets,
    create_needs_no_body,
    create_refuses_bodies_that_violate_the_contract,
    heartbeats_move_a_run_from_pending_to_its_end,
    heartbeat_needs_no_body,
    heartbeat_refuses_bodies_that_violate_the_contract,
    a_lower_job_retry_count_is_refused,
    abort_ends_a_pending_or_running_run,
    an_unknown_run_is_404,
    without_the_token_every_operation_is_401,
    a_renewed_token_is_valid_only_for_its_run,
    lists_are_paged_sorted_and_filtered,
    list_refuses_invalid_parameters,
    a_run_without_heartbeats_times_out,
]
