#!/usr/bin/env bash
# All parts, or those that are named: benchmarks/gpu/run.sh [parity stages ...] [--out FOLDER] [--label TEXT]
# Needs an installed krrdistill (or PYTHONPATH), PyTorch for most parts, pytest for the tests. No network.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
python=${PYTHON:-python3}
# cuBLAS and cuSOLVER of NVIDIA's wheels, where krrdistill is installed in another folder than they.
nvidia=$("$python" -c 'import nvidia, os; print(os.path.join(next(iter(nvidia.__path__)), "cu13", "lib"))' 2>/dev/null || true)
[ -z "$nvidia" ] || export LD_LIBRARY_PATH="$nvidia${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
PYTHONPATH="$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m gpu.run "$@"
