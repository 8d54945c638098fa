#!/usr/bin/env bash
# Runs the conformance cases through an icefield binary.
#
#   conformance.sh ICEFIELD_BINARY [ARGUMENTS of run.py, such as --only REGEX]
#
# Fails when a case fails that conformance-known.txt does not list; a listed case that passes is
# reported. Last line: 'N passed, N failed'. ICEFIELD_SHARED says where conformance/ lies.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
shared=${ICEFIELD_SHARED:-$root/../shared}
known=$here/conformance-known.txt

[ $# -ge 1 ] || { echo "usage: conformance.sh ICEFIELD_BINARY [ARGUMENTS]" >&2; exit 2; }
binary=$1
shift
[ -x "$binary" ] || { echo "conformance.sh: no such binary: $binary" >&2; exit 2; }
[ -f "$shared/conformance/run.py" ] || { echo "conformance.sh: no conformance/run.py in $shared (set ICEFIELD_SHARED)" >&2; exit 2; }
binary=$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary")
python=$("$root/scripts/python-env")
export PYTHONDONTWRITEBYTECODE=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

code=0
"$python" "$shared/conformance/run.py" --stage "$work/stage" \
    --cmd "$(printf %q "$binary") sql --format json -c {sql}" "$@" >"$work/out" || code=$?
cat "$work/out"
# run.py says 1 for failed cases; without its last line it did not get that far.
total=$(tail -n 1 "$work/out")
if ! [[ $total =~ ^[0-9]+\ passed,\ [0-9]+\ failed$ ]]; then
    echo "conformance.sh: run.py did not finish (exit $code)" >&2
    exit 1
fi

# An expression that selects nothing must not look like a success.
if [ "$total" = "0 passed, 0 failed" ]; then
    echo "conformance.sh: no case was selected" >&2
    exit 1
fi

"$python" - "$known" "$work/out" "$shared/conformance/expected.json" "$@" <<'PY' || code=2
import argparse, json, re, sys

parser = argparse.ArgumentParser()
parser.add_argument("known"), parser.add_argument("out"), parser.add_argument("expected")
parser.add_argument("--only", default="")
args, _ = parser.parse_known_args()
with open(args.known) as file:
    # Ids have a # in them, so a comment is a line of its own.
    known = {line.strip() for line in file if not line.startswith("#")} - {""}
with open(args.expected) as file:
    run = {case["id"] for case in json.load(file)["cases"] if re.search(args.only, case["id"])}
with open(args.out) as file:
    failed = {line.split()[1] for line in file if line.startswith("FAIL ")}
for case in sorted(known & run - failed):
    print("PASSES, though listed in conformance-known.txt:", case)
for case in sorted(failed - known):
    print("FAILS, and is not listed in conformance-known.txt:", case)
sys.exit(1 if failed - known else 0)
PY
echo "$total"
[ "$code" -ne 2 ]
