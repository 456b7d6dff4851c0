#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in under nine minutes: builds the package, runs the tests of the kernels on the
# device, the small ones under compute-sanitizer where that is installed, and the benches.
#
#   bench/gpu_round.sh [FOLDER]       FOLDER (default gpu-round/) gets logs and gpu_round.json
#
# PYTHON (default python3) needs specee's requirements, torch, triton, pytest, pytest-benchmark, pytest-xdist,
# hypothesis, and to build: setuptools and pybind11. Nothing is downloaded; WHEELS: a folder with those that are missing.
# MODEL: a GGUF file or folder to decode with, end to end; without it that is left out. A stage that fails is told of at
# the end; the others still run, as long as there is time: SECONDS_IN_ALL (default 530) end the round wherever it is.
set -uo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$(realpath -m "${1:-gpu-round}")
python=${PYTHON:-python3}
mkdir -p "$out"
cd "$repo" || exit 2
export PYTHONUNBUFFERED=1  # what is cut off has said what it knew
stages=()
deadline=$((SECONDS + ${SECONDS_IN_ALL:-530}))

# stage NAME SECONDS COMMAND...: output into NAME.log, and a line of the summary. It has as long as it may take, or
# what is left of the round.
stage() {
    local name=$1 limit=$2 begin=$SECONDS rc=0 left=$((deadline - SECONDS))
    shift 2
    printf '=== %s\n' "$name"
    if [ "$left" -lt 5 ]; then
        stages+=("$name=no time left=0")
        return
    fi
    if [ "$limit" -gt "$left" ]; then limit=$left; fi
    timeout -s INT -k 10 "$limit" "$@" > "$out/$name.log" 2>&1 || rc=$?
    tail -n 3 "$out/$name.log"
    stages+=("$name=$rc=$((SECONDS - begin))")
}

# Arguments that are files or folders of this checkout.
present() {
    local path
    for path in "$@"; do
        if [ -e "$path" ]; then printf '%s\n' "$path"; fi
    done
}

if [ -n "${WHEELS:-}" ]; then "$python" -m pip install -q --no-index --no-deps "$WHEELS"/*.whl; fi
"$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || {
    echo "error: torch of $python finds no GPU: this round needs one" >&2
    exit 2
}
"$python" -c 'import gguf, hypothesis, platformdirs, pybind11, pytest, pytest_benchmark, setuptools, xdist' || {
    echo "error: $python lacks what it says above: install it, or name a folder with wheels of it in WHEELS" >&2
    exit 2
}

stage build 120 "$python" -m pip install -q --no-deps --no-build-isolation -e .

# With whole decode rounds in one launch each, of toys (tests/cuda/test_round.py) and of models; the reasons of what is
# skipped are in the XML. What needs no device is tested elsewhere.
tested=(-m "not slow" -k "not emulated" -q -p no:cacheprovider -n 8)
mapfile -t tests < <(present tests/cuda tests/graph)
stage tests 120 "$python" -m pytest "${tests[@]}" "${tested[@]}" --ignore tests/cuda/test_compile.py \
    --ignore tests/graph/test_native.py --junitxml="$out/tests.xml"

stage cuda-benches 90 "$python" -m bench.cuda_kernels --out "$out/cuda.json"
stage cuda-decode 75 "$python" -m bench.cuda_decode --out "$out/cuda_decode.json"
stage cuda-rounds 60 "$python" -m bench.cuda_rounds --out "$out/rounds.json"
stage cuda-steps 75 "$python" -m bench.cuda_steps --out "$out/cuda_steps.json"
stage cuda-planted 90 "$python" -m bench.cuda_planted --out "$out/cuda_planted.json"
if [ -n "${MODEL:-}" ]; then
    stage decode 110 "$python" -m bench.decode.speed --model "$MODEL" --contender specee:cuda \
        --contender specee:cuda:drafter --contender specee:cuda:auto --contender specee:cuda:int8:auto \
        --contender transformers:cuda --contender transformers:cuda:static --contender transformers:cuda:fp32 \
        --rounds 1 --most-prompts 4 --no-memory --lenient --out "$out/decode.json"
else
    echo "=== decode: left out, MODEL names no model"
    stages+=("decode=no model=0")
fi

mapfile -t tests < <(present tests/triton)
stage triton-tests 120 "$python" -m pytest "${tests[@]}" "${tested[@]}" --junitxml="$out/triton_tests.xml"

# torch's allocator would hide reads beside a tensor.
if sanitizer=$(command -v compute-sanitizer); then
    mapfile -t small < <(present tests/triton/test_rope_cache.py tests/triton/test_compaction.py \
        tests/triton/test_swiglu.py tests/triton/test_predictor.py tests/cuda)
    stage sanitizer 70 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$sanitizer" --error-exitcode 9 \
        "$python" -m pytest "${small[@]}" -m "not slow" -k "(alone or neighbours or sanitizer or company) and not emulated and not backend" -q -p no:cacheprovider
else
    echo "=== sanitizer: left out, compute-sanitizer is not installed"
    stages+=("sanitizer=not installed=0")
fi

mapfile -t benches < <(present bench/kernels/triton)
stage benches 180 "$python" -m pytest "${benches[@]}" --quick -q -p no:cacheprovider \
    --benchmark-json="$out/benches.json"

"$python" -m bench.gpu_summary "$out" "${stages[@]}"
