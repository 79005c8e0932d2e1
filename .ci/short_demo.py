"""The demo in a short form: two concepts are learned in a fraction of the updates."""

import json
import pathlib
import subprocess
import sys
import tempfile

with tempfile.TemporaryDirectory() as folder:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "memejax.main",
            "--config=configs/cass_mm.py",
            f"--workdir={folder}",
            "--config.data.synthetic.concepts=2",
            "--config.data.synthetic.train=4000",
            "--config.data.synthetic.dev=400",
            "--config.data.synthetic.test=400",
            "--config.pretrain.steps=60",
            "--config.finetune.steps=60",
            "--config.finetune.eval_every=30",
            "--config.finetune.optimizer.warmup=10",
        ],
        check=True,
    )
    results = json.loads((pathlib.Path(folder) / "results.json").read_text("utf-8"))
auroc = results["summary"]["test_unseen"]["average"]["auroc"]["mean"]
collapsed = results["seeds"]["0"]["pretrain"]["collapsed"]
print(f"test AUROC {auroc:.3f}, collapsed: {collapsed}")
if auroc < 0.6 or collapsed:
    sys.exit("the short demo did not learn")
