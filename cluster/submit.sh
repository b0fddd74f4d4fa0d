#!/bin/sh
# From a folder of MIDI to a trained model on a SLURM cluster: four jobs, each after the one before.
#
#   MIDI=/data/lmd_full WORK=/scratch/backline sh cluster/submit.sh
#
# Run it in the repository, on a file system that all nodes share. Whatever is killed can be submitted again, by the
# same command: cleaning and tokenizing go on with the files that are left, training with its last checkpoint.
set -eu
: "${MIDI:?folder of MIDI files}" "${WORK:?folder for what is made}"
: "${PYTHON:=.venv/bin/python}" "${SHARDS:=16}" "${NODES:=1}" "${PROCESSES:=8}"
: "${MODEL:=configs/model_teacher.json}" "${TRAINING:=configs/training_gpu.json}"
export MIDI WORK PYTHON PROCESSES MODEL TRAINING
mkdir -p "$WORK"

clean=$(sbatch --parsable --array="1-$SHARDS" cluster/clean.sbatch)
tokens=$(sbatch --parsable --array="1-$SHARDS" --dependency="afterok:$clean" cluster/tokenize.sbatch)
dataset=$(sbatch --parsable --dependency="afterok:$tokens" cluster/prepare.sbatch)
training=$(sbatch --parsable --nodes="$NODES" --gpus-per-node="$PROCESSES" --dependency="afterok:$dataset" cluster/train.sbatch)
echo "clean $clean, tokenize $tokens, prepare $dataset, train $training; squeue --me shows how far they are"
