#!/usr/bin/env bash
# One of several processes, started by hand; on each host one command, with all of its
# devices (host a is process 0, and the others have to reach its port):
#
#   a$ launch/multihost.sh a:9876 2 0 configs/cass_mm.py:full --config.data.root=FOLDER
#   b$ launch/multihost.sh a:9876 2 1 configs/cass_mm.py:full --config.data.root=FOLDER
#
# --workdir has to be a folder that all of them share. The commands wait a minute for
# each other (--start_timeout). Started again, with as many processes or others, they go
# on; batches have to divide over all devices. No hyperparameter stands here.
set -euo pipefail
usage="usage: launch/multihost.sh HOST:PORT PROCESSES PROCESS CONFIG [FLAGS]"
coordinator=${1:?$usage}
processes=${2:?$usage}
process=${3:?$usage}
config=${4:?$usage}
shift 4
exec "${PYTHON:-python}" -m memejax.main --config="$config" \
  --coordinator="$coordinator" --processes="$processes" --process="$process" "$@"
