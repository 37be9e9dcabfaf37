#!/usr/bin/env bash
# Install the wheel in dist/ into a fresh environment and do from there what the README and the documentation show.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" "$root"/dist/*.whl
cp "$root/scripts/run_examples.py" "$folder"
cd "$folder"
export PATH="$folder/venv/bin:$PATH" OMP_NUM_THREADS=1

python -I -c "
import pathlib, sys, entrostat
where = pathlib.Path(entrostat.__file__).parent
assert where.is_relative_to(sys.prefix), where
assert (where / 'py.typed').exists()
"
python -I run_examples.py "$root/README.md" "$root"/docs/*.md

small=(--set tasks.select=8 --set tasks.report=8 --set evaluation.every=4 --set campaign.steps=8)
entrostat demo --out demo "${small[@]}"
entrostat report demo/reinforce demo/grpo-id --out pair.html > pair.txt
grep -q "Side by side" pair.html
awk '/^```yaml/ {on = 1; next} /^```/ {on = 0} on' "$root/docs/first-run.md" > first.yaml
entrostat train first.yaml --out runs/first "${small[@]}" > first.txt
entrostat eval embedded --tasks listcraft --n 2 --k 1 --max-new-tokens 48 > eval.txt
echo "the wheel works: $(ls "$root"/dist/*.whl)"
