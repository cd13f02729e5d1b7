#!/usr/bin/env bash
# Makes $VENV with raypath and the versions of constraints.txt. Needs Python 3.11 or newer and the package registry, nothing else.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
venv=${VENV:-.venv}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "raypath needs Python 3.11 or newer, $python is $("$python" --version): make PYTHON=python3.11" >&2; exit 2; }
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  # Debian ships Python without venv; as root on a fresh machine we may add it, elsewhere we say how.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "[1/3] installing python3-venv (Debian keeps it apart)"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
  else
    echo "$python cannot make virtual environments: install python3-venv (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2
  fi
fi

echo "[1/3] making $venv with $("$python" --version)"
"$python" -m venv "$venv"
echo "[2/3] installing raypath and its dependencies (about 6 GB with PyTorch; 2 to 5 minutes, once)"
"$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e ".[dev]" |
  awk '/^Collecting/ { printf "\r      %3d  %-60s", ++n, $2; fflush() }
       /^Installing collected/ { printf "\r      %d packages found; unpacking them (the longest part) %s\n", n, ""; fflush() }
       /^Successfully/ { print "      installed"; fflush() }'
echo "[3/3] checking"
"$venv/bin/python" -c 'import raypath, ray, torch, torchvision, timm, mlflow, openslide; print(
  f"ready: raypath {raypath.__version__}, ray {ray.__version__}, torch {torch.__version__}, mlflow {mlflow.__version__}")'
