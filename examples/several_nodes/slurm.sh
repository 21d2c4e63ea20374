#!/usr/bin/env bash
# Data-parallel training on several nodes of a SLURM cluster: one task a GPU.
#
#   sbatch examples/several_nodes/slurm.sh --config configs/glue/rte.yaml --config configs/strategies/ddp.yaml
#
#SBATCH --job-name=asym-lightning
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
# 90 s before the time is up Lightning saves a checkpoint, puts the job back into the queue and goes on from there.
#SBATCH --signal=SIGUSR1@90
set -euo pipefail

srun --kill-on-bad-exit=1 lightning fit "$@" \
    --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE"
