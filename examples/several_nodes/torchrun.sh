#!/usr/bin/env bash
# Data-parallel training on several nodes: call this once on every node, with the same configs everywhere.
#
#   NODES=2 NODE=0 HEAD=node-a PER_NODE=8 examples/several_nodes/torchrun.sh --config configs/glue/rte.yaml --config configs/strategies/ddp.yaml
#
# NODES  number of nodes                           NODE  number of this one, from 0; HEAD names node 0
# PER_NODE  processes on each node, one a GPU      PORT  a free port of node 0
# Every node needs the same data, and the run's directory has to be on a file system that all of them see.
set -euo pipefail

NODES="${NODES:-1}" NODE="${NODE:-0}" HEAD="${HEAD:-127.0.0.1}" PORT="${PORT:-29500}"
PER_NODE="${PER_NODE:?set PER_NODE to the number of GPUs of a node}"

exec torchrun --nnodes "$NODES" --node-rank "$NODE" --nproc-per-node "$PER_NODE" \
    --master-addr "$HEAD" --master-port "$PORT" --no-python \
    lightning fit "$@" --trainer.num_nodes "$NODES" --trainer.devices "$PER_NODE"
