# A DAG of Airflow (https://airflow.apache.org) whose KubernetesPodOperator reports a run.
#
#   airflow dags trigger align --conf '{"run": "trn.1234"}'
#
# Needs ../admission, ../manifests/podbeat.yaml, the provider cncf.kubernetes, and the run. An earlier
# task can create the run, and pass the ID on as an XCom.
#
# Run ID: an annotation of the operator. Annotations and labels are templates.
# Retries: each try is a new pod, without a Job, so podbeat can't count. ti.try_number begins with 1.
#   If a worker restarts, Airflow attaches to the same pod again. If you clear a task that succeeded,
#   its run is Completed already, and the service answers 409: trigger the DAG with a new run instead.
# Task containers: only `base`. With do_xcom_push, Airflow adds `airflow-xcom-sidecar`, which ends only
#   after Airflow has read the result.
# podbeat in Airflow: as a native sidecar. Don't set init_container_logs=True: Airflow would follow
#   podbeat's log until the end of the task, and show the task's log only then. Name containers instead.
# Deletion: Airflow deletes the pod after its end (on_finish_action; "keep_pod" lets podbeat reap find
#   it). A stopped task loses its pod at once (on_kill): the last heartbeat then has no exit code.
# Tested: `just examples` renders this operator with provider 10.25.0 and Airflow 3.3.2. `just e2e-deploy
#   --live examples` runs the pod that it builds, with the XCom sidecar added. Airflow itself never ran.
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG

with DAG(dag_id="align", schedule=None, params={"run": "trn.1234"}):
    KubernetesPodOperator(
        task_id="align",
        namespace="tasks",
        service_account_name="podbeat",
        image="busybox:1.37",
        cmds=["sh", "-c", "echo working; sleep 5; exit 0"],
        labels={"podbeat.dev/inject": "true"},
        annotations={
            "podbeat.dev/task-run-id": "{{ params.run }}",
            "podbeat.dev/job-retry-count": "{{ ti.try_number - 1 }}",
            "podbeat.dev/task-containers": "base",
        },
        retries=3,
        security_context={
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        container_security_context={
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    )
