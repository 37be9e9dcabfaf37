#!/bin/sh
# GRPO under ID with verl on a Ray cluster of NODES machines with 8 GPUs each. Install on every machine:
#   pip install 'entrostat[verl]' and the rollout engine that verl's own guide names (vllm or sglang)
# Start Ray once (ray start --head --port 6379 on one, ray start --address HEAD:6379 on the others), then here:
#   NODES=4 MODEL=Qwen/Qwen2.5-Math-7B sh examples/verl_cluster.sh
set -eu
export VERL_USE_EXTERNAL_MODULES=entrostat.integrations.verl.trainer
exec python -m verl.trainer.main_ppo --config-dir examples --config-name verl_id_8gpu \
    trainer.nnodes="${NODES:-1}" \
    actor_rollout_ref.model.path="${MODEL:-Qwen/Qwen2.5-Math-7B}" \
    data.train_files="${TRAIN:-train.parquet}" data.val_files="${VAL:-test.parquet}" \
    "$@"
