#!/usr/bin/env bash
# One process on all devices of this machine:
#
#   launch/local.sh configs/cass_mm.py:full --config.data.root=FOLDER
#
# with --config.weights.image_cnn=, image_vit= and text=, the checkpoints to start from.
#
# The same command resumes. Hyperparameters belong in the config.
set -euo pipefail
config=${1:?usage: launch/local.sh CONFIG [FLAGS]}
shift
exec "${PYTHON:-python}" -m memejax.main --config="$config" "$@"
