"""Checks deploy/examples/airflow_dag.py: renders its operator for the second try, and compares the
pod that it builds with a file, which `just e2e-deploy` runs on a real node.

    airflow_pod.py DAG_FILE POD_FILE

With PODBEAT_WRITE_DOCS, it writes the file. Nothing asks a cluster or Airflow's database.
"""

import importlib.util
import json
import os
import sys
from types import SimpleNamespace

from airflow.sdk.definitions._internal.contextmanager import DagContext
from kubernetes.client import ApiClient


def operator_of(path):
    """The only operator of the file, with its DAG, as Airflow finds them."""
    DagContext.current_autoregister_module_name = "airflow_dag"
    spec = importlib.util.spec_from_file_location("airflow_dag", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["airflow_dag"] = module
    spec.loader.exec_module(module)
    ((dag, _),) = DagContext.autoregistered_dags
    (operator,) = dag.tasks
    return dag, operator


def main(dag_file, pod_file):
    dag, operator = operator_of(dag_file)
    ti = SimpleNamespace(dag_id=dag.dag_id, task_id=operator.task_id, try_number=2, map_index=-1)
    context = {"ti": ti, "run_id": "manual", "params": {"run": "trn.airflow"}, "dag": dag, "task": operator}
    operator.render_template_fields(context)
    built = operator.build_pod_request_obj(context, dry_run=True)
    pod = ApiClient().sanitize_for_serialization(built)
    # The suffix is random.
    pod["metadata"]["name"] = operator.task_id
    text = json.dumps(pod, indent=2, sort_keys=True) + "\n"
    if os.environ.get("PODBEAT_WRITE_DOCS"):
        with open(pod_file, "w", encoding="utf-8") as file:
            file.write(text)
    with open(pod_file, encoding="utf-8") as file:
        expected = file.read()
    if text != expected:
        sys.exit(f"the operator builds another pod than {pod_file}:\n{text}")
    # The annotation task-containers is for this container.
    operator.do_xcom_push = True
    operator.hook.get_xcom_sidecar_container_image = lambda: None
    names = [container.name for container in operator.build_pod_request_obj(context, dry_run=True).spec.containers]
    if names != ["base", "airflow-xcom-sidecar"]:
        sys.exit(f"the containers with do_xcom_push: {names}")
    print(f"the operator of {dag_file} builds the pod of {pod_file}; with do_xcom_push: {names}")


if __name__ == "__main__":
    main(*sys.argv[1:])
