#!/usr/bin/env bash
# What only a GPU can tell, unattended, and one table of it at the end (also in FOLDER/table.md, with a log of each row beside it).
#
#     benchmarks/gpu.sh [FOLDER]                     FOLDER: default runs/gpu; it must not exist
#     CELLS=bccd/data.yaml benchmarks/gpu.sh         with the comparison of docs/comparison.md, which takes most of the time
#
# IT HAS NEVER RUN ON A GPU: there was none. Each of its commands has run on a CPU, at a small size:
#     DEVICE=cpu SIZE=64 EPOCHS=1 CFG=yolov5n BATCHES=2 ROUNDS=1 DATA=small.yaml CELLS=small.yaml \
#         METHODS="detection-only gradnorm" SEEDS=0 benchmarks/gpu.sh
# There AMP, --half and NCCL have no effect (gloo takes NCCL's place), and TensorRT is passed over.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

FOLDER=${1:-runs/gpu}
DEVICE=${DEVICE:-0} SIZE=${SIZE:-640} CFG=${CFG:-yolov5s} DATA=${DATA:-data/joint.yaml} BATCHES=${BATCHES:-16 64} ROUNDS=${ROUNDS:-8}
SHORT=${EPOCHS:-3} LONG=${EPOCHS:-100} METHODS=${METHODS:-} SEEDS=${SEEDS:-0 1 2} CELLS=${CELLS:-}
PYTHON=${PYTHON:-.venv/bin/python}
read -r FIRST _ <<<"$BATCHES"
TORCH_DEVICE=$([ "$DEVICE" = cpu ] && echo cpu || echo "cuda:$DEVICE")
export PYTHONPATH=$PWD

[ -e "$FOLDER" ] && { echo "ERROR: $FOLDER is there: name another folder" >&2; exit 1; }
mkdir -p "$FOLDER"
FOLDER=$(cd "$FOLDER" && pwd)
TABLE=$FOLDER/table.md

row() { printf '| %s | %s | %s | %s |\n' "$@" >>"$TABLE"; }

# step NAME READER COMMAND...: a row of the table; READER prints what was seen, given the log
step() {
    local name=$1 reader=$2 log=$FOLDER/$1.log start=$SECONDS outcome=ran
    shift 2
    echo "$name: $*"
    "$@" >"$log" 2>&1 || outcome="failed ($?): $(grep -a . "$log" | tail -n 1 | tr '|' '/')"
    row "$name" "$outcome" $((SECONDS - start)) "$([ "$outcome" = ran ] && "$reader" "$log")"
}

metrics() {  # of the run's folder that has the log's name
    "$PYTHON" - "${1%.log}" <<'PYTHON'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
found = json.loads((folder / "joint_metrics.json").read_text())
facts = json.loads((folder / "run.json").read_text()) if (folder / "run.json").is_file() else {}
seen = {"mAP50-95": found["detection"].get("mAP50-95"), "balanced accuracy": (found.get("classification") or {}).get("balanced_accuracy")}
print(", ".join([f"{name} {value:.4f}" for name, value in seen.items() if value is not None]
                + [f"{facts[key]} {word}" for key, word in {"seconds": "s of training", "peak_memory_mb": "MB"}.items() if facts.get(key)]))
PYTHON
}
step_ratios() { awk '/s\/step/ {on = 1; next} on && NF > 4 {name = substr($0, 1, 38); sub(/ +$/, "", name); printf "%s%s %s", n++ ? ", " : "", name, $(NF - 2)}' "$1"; }
inference_ratios() { awk '/^PyTorch/ {on = 1; next} on && NF > 3 {name = substr($0, 1, 28); sub(/ +$/, "", name); printf "%s%s %s ms (%s)", n++ ? ", " : "", name, $(NF - 2), $(NF - 1)}' "$1"; }
summary() { grep -h -m 1 'highest product' "$FOLDER/compare/exp/comparison.md" | sed 's/^- //'; }
nothing() { :; }

train() { "$PYTHON" train_joint_gradnorm_fixed.py "${SETTINGS[@]}" --name "$@"; }
validate() { "$PYTHON" -m gradnorm_plugin val --data "$DATA" --imgsz "$SIZE" --device "$DEVICE" --project "$FOLDER" --name "$@"; }
SETTINGS=(--data "$DATA" --cfg "$CFG.yaml" --weights '' --imgsz "$SIZE" --epochs "$SHORT" --batch-size "$FIRST" --device "$DEVICE" --project "$FOLDER")
BEST=$FOLDER/float16/weights/best.pt

"$PYTHON" - "$DEVICE" >"$TABLE" <<'PYTHON'
import platform, sys, torch
name = platform.processor() or platform.machine() if sys.argv[1] == "cpu" else torch.cuda.get_device_name(int(sys.argv[1]))
print(f"{name}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}\n\n| what | outcome | seconds | seen |\n|---|---|---:|---|")
PYTHON

step float32 metrics train float32 --precision float32
step float16 metrics train float16  # YOLOv5's AMP
step bfloat16 metrics train bfloat16 --precision bfloat16
step nccl metrics "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node 1 train_joint_gradnorm_fixed.py \
    "${SETTINGS[@]}" --sync-bn --name nccl
step val metrics validate val --weights "$BEST"
step val-half metrics validate val-half --weights "$BEST" --half
if "$PYTHON" -c 'import tensorrt' 2>/dev/null; then
    step tensorrt-export nothing "$PYTHON" -m gradnorm_plugin export --weights "$BEST" --include engine --device "$DEVICE" --half
    step tensorrt-val metrics validate tensorrt-val --weights "${BEST%.pt}.engine" --half
else
    row tensorrt "not installed" 0 ""
fi
for batch in $BATCHES; do
    step "step-$batch" step_ratios "$PYTHON" benchmarks/step_time.py --cfg "$CFG.yaml" --imgsz "$SIZE" --batch-size "$batch" \
        --rounds "$ROUNDS" --device "$TORCH_DEVICE"
    step "inference-$batch" inference_ratios "$PYTHON" benchmarks/inference.py --cfg "$CFG.yaml" --imgsz "$SIZE" \
        --batch-sizes "$batch" --engines torch --rounds "$ROUNDS" --device "$TORCH_DEVICE"
done
if [ -n "$CELLS" ]; then
    # shellcheck disable=SC2086  # several words
    step compare summary "$PYTHON" -m gradnorm_plugin compare --data "$CELLS" --weights '' --cfg "$CFG.yaml" --imgsz "$SIZE" \
        --epochs "$LONG" --batch-size "$FIRST" --device "$DEVICE" --cache ram --noplots --seeds $SEEDS \
        ${METHODS:+--methods $METHODS} --project "$FOLDER/compare"
else
    row compare "no data: CELLS=bccd/data.yaml (docs/comparison.md says how it is made)" 0 ""
fi
cat "$TABLE"
! grep -q '| failed' "$TABLE"
