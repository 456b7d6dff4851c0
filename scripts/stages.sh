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
    stage_lines+=("$(printf '%-22s %5d s%s' "$name" "$((SECONDS - begin))" "$([ $rc = 0 ] || echo "   failed ($rc)")")")
    if [ "$rc" != 0 ]; then
        summary
        die "stage '$name' failed with exit status $rc"
    fi
}
