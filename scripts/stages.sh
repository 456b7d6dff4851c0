# Sourced by scripts/test: runs named stages, stops at the first that fails, and sums up their seconds.

declare -a stage_lines=()

die() {
    echo "error: $*" >&2
    exit 1
}

summary() {
    printf '\n%s\n' "${stage_lines[@]}"  | sed '/^$/d; s/^/  /'
    printf '  %-22s %5d s\n\n' "total" "$SECONDS"
}

# finish NAME BEGIN STATUS: notes how a stage ended; one that failed ends everything.
finish() {
    local name=$1 begin=$2 rc=$3
    stage_lines+=("$(printf '%-22s %5d s%s' "$name" "$((SECONDS - begin))" "$([ "$rc" = 0 ] || echo "   failed ($rc)")")")
    if [ "$rc" != 0 ]; then
        summary
        die "stage '$name' failed with exit status $rc"
    fi
}

# stage NAME COMMAND...: in a subshell, with errexit on (a function called in a condition would lose it).
stage() {
    local name=$1 begin=$SECONDS rc=0
    shift
    printf '\n=== %s\n' "$name"
    set +e
    (
        set -euo pipefail
        "$@"
    )
    rc=$?
    set -e
    finish "$name" "$begin" "$rc"
}

# beside LOG NAME COMMAND...: the same while other stages run, one at a time; what it says goes into LOG until
# joined waits for it. One that still runs when everything ends is ended too.
beside() {
    beside_log=$1 beside_name=$2 beside_begin=$SECONDS
    shift 2
    set -m # a process group of its own, to end it with all that it has started
    (
        set -euo pipefail
        "$@"
    ) > "$beside_log" 2>&1 &
    beside_pid=$!
    set +m
    trap 'kill -- "-$beside_pid" 2> /dev/null || true' EXIT
}

joined() {
    local rc=0
    printf '\n=== %s\n' "$beside_name"
    wait "$beside_pid" || rc=$?
    trap - EXIT
    cat "$beside_log"
    finish "$beside_name" "$beside_begin" "$rc"
}
