#!/usr/bin/env bash
# Checks the examples that no API server can check: builds the pod of the DAG with Airflow, and reads
# nextflow.config with Groovy. Airflow (430 MB) and Groovy are installed outside the checkout, once for
# each of their versions.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=e2e/examples
groovy=4.0.33
cache=${XDG_CACHE_HOME:-$HOME/.cache}/podbeat-examples
for program in python3 java mvn; do
  if ! command -v $program >/dev/null; then
    echo "examples: $program is missing (Debian: apt-get install --no-install-recommends python3-venv default-jre-headless maven)" >&2
    exit 69
  fi
done

# The file `complete` is the last that is created: without it, an interrupted installation is repeated.
venv=$cache/airflow-$(sha256sum "$here/requirements.txt" | cut -c 1-16)
if [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10) and "examples: Airflow needs Python 3.10 or later")'
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$here/requirements.txt"
  touch "$venv/complete"
fi
if [ ! -e "$cache/groovy-$groovy.jar" ]; then
  mvn --quiet org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    -Dartifact="org.apache.groovy:groovy:$groovy" -DoutputDirectory="$cache"
fi

AIRFLOW_HOME=$(mktemp -d)
export AIRFLOW_HOME
trap 'rm -rf "$AIRFLOW_HOME"' EXIT
PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" "$here/airflow_pod.py" deploy/examples/airflow_dag.py e2e/fixtures/airflow-pod.json
java -cp "$cache/groovy-$groovy.jar" groovy.ui.GroovyMain "$here/nextflow.groovy" deploy/examples/nextflow.config
echo "2 passed, 0 failed"
