#!/usr/bin/env bash
# Makes .venv at the checkout's root with medres in editable form. Needs Python 3.11, 3.12 or 3.13 and nothing else.
# PYTHON=/path/to/python chooses one. MEDRES_TF=gpu installs the CUDA build of TensorFlow instead of the CPU build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

supported() { "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

python=""
for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3 python; do
  if command -v "$candidate" >/dev/null 2>&1 && supported "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  echo "medres needs Python 3.11, 3.12 or 3.13; none was found. Install one, or name it: make PYTHON=/path/to/python test" >&2
  exit 1
fi

if ! [ -x .venv/bin/python ] || ! supported .venv/bin/python; then
  echo "medres: making .venv with $("$python" --version)"
  rm -rf .venv
  "$python" -m venv .venv || {
    echo "medres: this Python cannot make virtual environments (Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
fi
echo "medres: installing the package and its development tools into .venv (about 1.5 GB, one to five minutes)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[${MEDRES_TF:-cpu},dev]"
touch .venv/.ready
echo "medres: ready"
