#!/usr/bin/env bash
# Checks the files for Prometheus and Grafana: `PROMTOOL=path bash deploy/monitoring/check.sh`.
# Needs promtool (3.6 or later) and python3. The rules must load, their unit tests must pass, and
# every expression of the dashboards must be PromQL. Prints the counts at the end.
set -euo pipefail
cd "$(dirname "$0")"
promtool=${PROMTOOL:-promtool}
if ! command -v "$promtool" >/dev/null || ! command -v python3 >/dev/null; then
  echo "promtool and python3 are needed; PROMTOOL says where promtool is" >&2
  exit 69
fi
exec python3 - "$(command -v "$promtool")" <<'PYTHON'
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

promtool = sys.argv[1]
scratch = tempfile.TemporaryDirectory()
counts = {True: 0, False: 0}


def told(what, held, output=""):
    counts[held] += 1
    if not held:
        print(f"FAILED: {what}\n{output}")


def run(*arguments):
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=300)
    return done.returncode == 0, done.stdout + done.stderr


for rules in ["alerts", "server-alerts"]:
    # --lint-fatal makes a duplicate rule an error.
    told(f"promtool check rules {rules}.yaml", *run("check", "rules", "--lint=all", "--lint-fatal", f"{rules}.yaml"))

    report = pathlib.Path(scratch.name, f"{rules}.xml")
    held, output = run("test", "rules", f"--junit={report}", f"{rules}_test.yaml")
    cases = list(xml.parse(report).iter("testcase")) if report.exists() else []
    if not cases:
        told(f"promtool test rules {rules}_test.yaml", False, output)
    failed = [case for case in cases if len(case)]
    for case in cases:
        told(case.get("name"), case not in failed, output if failed and case is failed[0] else "")
    if not held and not failed:
        told(f"promtool test rules {rules}_test.yaml", False, output)

# Example values for Grafana's variables, so that promtool can read the expressions.
VARIABLES = {
    "__rate_interval": "5m", "__interval": "1m", "__range": "1h",
    "namespace": "tasks", "run": "trn.1", "pod": "task-1", "instance": "10.0.0.1:9809",
}


def filled(expression):
    def value(match):
        name = match.group(1) or match.group(2)
        if name not in VARIABLES:
            raise KeyError(f"${name} is no variable of the dashboard")
        return VARIABLES[name]

    return re.sub(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})", value, expression)


rules = pathlib.Path(scratch.name, "rules.json")
for name in ["dashboard", "server-dashboard"]:
    dashboard = json.loads(pathlib.Path(f"{name}.json").read_text())
    expressions = [
        (panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    expressions += [(note["name"], note["expr"]) for note in dashboard["annotations"]["list"] if "expr" in note]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), \w+\)", variable["definition"])
            expressions.append((variable["name"], asked.group(1) if asked else variable["definition"]))
    for title, expression in expressions:
        what = f"{name}: {title}: {expression}"
        try:
            rule = {"record": "expression", "expr": filled(expression)}
        except KeyError as unknown:
            told(what, False, str(unknown))
            continue
        rules.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": [rule]}]}))
        told(what, *run("check", "rules", str(rules)))

print(f"{counts[True]} passed, {counts[False]} failed")
sys.exit(1 if counts[False] else 0)
PYTHON
