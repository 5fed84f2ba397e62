#!/bin/bash
# Training on GPUs under Slurm: sbatch launch/slurm.sh (docs/machines.md). The same command goes on where it was stopped.
#SBATCH --job-name=vlm-jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --output=%x-%j.log
set -euo pipefail

# One process a host, with all of its GPUs. The run folder and the data lie on a disk that all hosts see.
srun .venv/bin/python scripts/train.py --config=configs/qwen2_5_vl_3b_full.py --workdir=runs/full \
    --config.data.path=mine.jsonl --config.batch.rows=16 "$@"
