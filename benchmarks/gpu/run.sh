#!/usr/bin/env bash
# All parts, or those that are named: benchmarks/gpu/run.sh [stages parity ...] [--out FOLDER] [--label TEXT]
# Where Python does not find krrdistill, it is installed in build/gpu/site first: from the wheels of `make gpu-wheels`, or
# compiled here. Needs PyTorch for most parts, pytest for the tests; no network. Under 8 minutes with everything.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
python=${PYTHON:-python3}
# cuBLAS and cuSOLVER of NVIDIA's wheels, where krrdistill is installed in another folder than they.
nvidia=$("$python" -c 'import nvidia, os; print(os.path.join(next(iter(nvidia.__path__)), "cu13", "lib"))' 2>/dev/null || true)
[ -z "$nvidia" ] || export LD_LIBRARY_PATH="$nvidia${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

site=$root/build/gpu/site
log=$root/build/gpu/install.log
install=("$python" -m pip install --no-index --no-deps --no-compile --disable-pip-version-check --target "$site")
works() { PYTHONPATH="$site" "$python" -c 'import krrdistill._cuda' >>"$log" 2>&1; }

if ! "$python" -c 'import krrdistill' 2>/dev/null; then
  rm -rf "$site"
  mkdir -p "$site"
  : >"$log"
  for wheel in build/gpu/wheels/*.whl; do  # one by one: a wheel for another Python is refused alone
    "${install[@]}" "$wheel" >>"$log" 2>&1 || echo "not installed: $wheel (build/gpu/install.log)" >&2
  done
  if ! works; then
    echo "no wheel of krrdistill loads here (build/gpu/install.log): it is compiled" >&2
    rm -rf "$site"/krrdistill*
    KRRDISTILL_REQUIRE_NATIVE=1 timeout 150 "${install[@]}" --no-build-isolation -v \
      -C cmake.define.KRRDISTILL_CUDA=ON -C cmake.define.CMAKE_CUDA_ARCHITECTURES=90-real . >>"$log" 2>&1 && works ||
      { tail -40 "$log" >&2; exit 1; }
  fi
  echo "installed in $SECONDS s"
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
PYTHONPATH="$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m gpu.run --total $((440 - SECONDS)) "$@"
