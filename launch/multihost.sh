#!/usr/bin/env bash
# One of several processes, started by hand: one command per host, on all of its devices
# (host a is process 0; the others have to reach its port):
#
#   a$ launch/multihost.sh a:9876 2 0 configs/cass_mm.py:full --config.data.root=FOLDER
#   b$ launch/multihost.sh a:9876 2 1 configs/cass_mm.py:full --config.data.root=FOLDER
#
# with --config.weights.image_cnn=, image_vit= and text=, the checkpoints to start from.
#
# --workdir has to be a folder that all hosts share. The commands wait a minute for each
# other (--start_timeout). The same commands resume, with any number of processes;
# batches have to divide evenly over all devices. Hyperparameters belong in the config.
set -euo pipefail
usage="usage: launch/multihost.sh HOST:PORT PROCESSES PROCESS CONFIG [FLAGS]"
coordinator=${1:?$usage}
processes=${2:?$usage}
process=${3:?$usage}
config=${4:?$usage}
shift 4
exec "${PYTHON:-python}" -m memejax.main --config="$config" \
  --coordinator="$coordinator" --processes="$processes" --process="$process" "$@"
