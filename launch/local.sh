#!/usr/bin/env bash
# One process on this machine, on all of its devices:
#
#   launch/local.sh configs/cass_mm.py:full --config.data.root=FOLDER
#
# Starting it again resumes. No hyperparameter stands here.
set -euo pipefail
config=${1:?usage: launch/local.sh CONFIG [FLAGS]}
shift
exec "${PYTHON:-python}" -m memejax.main --config="$config" "$@"
