#!/bin/sh
# All tests, in two runs side by side: those on real processes mostly wait, and the pure ones mostly compute.
# usage: run-tests.sh VENV
set -u
cd "$(dirname "$0")/.." || exit
python=$1/bin/python
said=$(mktemp)

"$python" -m pytest tests/unit tests/vectors tests/fuzz tests/sim tests/machine tests/model tests/mutants tests/attacks >"$said" 2>&1 &
pure=$!
trap 'kill "$pure" 2>/dev/null; rm -f "$said"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "the pure tests run meanwhile; what they say follows"
"$python" -m pytest tests/functional # in the foreground: Ctrl-C lets them end what they have started
functional_status=$?
tail -n +1 -f --pid="$pure" "$said"
wait "$pure"
pure_status=$?
[ "$functional_status" -eq 0 ] || echo "tests on real processes failed: see above, before the pure ones" >&2
exit $((functional_status > pure_status ? functional_status : pure_status))
