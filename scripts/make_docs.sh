#!/usr/bin/env bash
# Writes what is generated in docs/: the table of parameters.
set -euo pipefail
cd "$(dirname "$0")/.."
file=docs/parameters.md
table=$("${VENV:-.venv}/bin/python" -m moving_object_detector.nodes.parameter_table)
text=$(sed '/<!-- parameters -->/q' "$file"; printf '%s\n' "$table"; sed -n '/<!-- \/parameters -->/,$p' "$file")
printf '%s\n' "$text" >"$file"
